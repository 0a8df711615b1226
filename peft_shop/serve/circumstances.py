"""What a rule of an engine looks for in an adapter: one test for each circumstance.

`True` and `False` are known; `None` means that neither the folder nor the base tells.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.engines import LoadRule
    from peft_shop.serve.adapter import Adapter

__all__ = ["TESTS", "applies"]

_EXPERTS: Final = re.compile(r"(?:^|\.)(?:experts?|block_sparse_moe)(?:\.|$)")
_TOWERS: Final = re.compile(
    r"(?:^|\.)(?:visual|vision_tower|vision_model|vision_embed_tokens|audio_tower|audio_encoder|"
    r"image_encoder|multi_modal_projector|mm_projector)(?:\.|$)"
)
_NAMED: Final = re.compile(r"\.lora_[AB]\.(?!weight$|bias$)[^.]+\.weight$")
_PREFIX: Final = "base_model.model."
_PROMPTS: Final = "prompt_embeddings"


def applies(rule: LoadRule, adapter: Adapter) -> bool | None:
    """Whether the rule is about the adapter on its base."""
    if rule.kinds:
        kinds = adapter.base.kinds if adapter.base is not None else frozenset()
        if not kinds & set(rule.kinds):
            return False
    return TESTS[rule.when](adapter, rule)


def _adapts(adapter: Adapter, rule: LoadRule) -> bool | None:
    names = adapter.targets.names
    return None if names is None else bool(names & set(rule.names))


def _adapts_without(adapter: Adapter, rule: LoadRule) -> bool | None:
    targets = adapter.targets
    if targets.everything:
        return False
    if targets.names is None:
        return None
    return bool(targets.names & set(rule.names)) and not targets.names >= set(rule.lacking)


def _adapts_other(adapter: Adapter, rule: LoadRule) -> bool | None:
    names = adapter.targets.names
    return None if names is None else bool(names - set(rule.names))


def _experts(adapter: Adapter, _: LoadRule) -> bool | None:
    parameters = adapter.config.get("target_parameters")
    if isinstance(parameters, list | tuple) and any(
        "expert" in str(parameter) for parameter in parameters
    ):
        return True
    if any(_EXPERTS.search(place) for place in adapter.targets.places):
        return True
    base = adapter.base
    if adapter.targets.from_tensors or base is None or "experts" not in base.kinds:
        return False
    names = adapter.targets.names
    if names and names & {"w1", "w2", "w3", "gate_up_projs", "down_projs"}:
        return True
    # layers of experts, of a shared expert, of a dense layer, or none: their class decides
    return None if names and names & {"gate_proj", "up_proj", "down_proj"} else False


def _towers(adapter: Adapter, _: LoadRule) -> bool | None:
    targets = adapter.targets
    if any(_TOWERS.search(place) for place in targets.places - targets.avoided):
        # which of a pattern's words belong together is not looked at
        return None if adapter.targets.pattern and not adapter.targets.from_tensors else True
    return False


def _grown_vocabulary(adapter: Adapter, _: LoadRule) -> bool | None:
    return adapter.added_tokens


def _other_base(adapter: Adapter, _: LoadRule) -> bool | None:
    return bool(adapter.strangers)


def _tied_head(adapter: Adapter, _: LoadRule) -> bool | None:
    if not adapter.targets.names or "lm_head" not in adapter.targets.names:
        return False
    return None if adapter.base is None else adapter.base.tied


def _peft_keys(adapter: Adapter, _: LoadRule) -> bool | None:
    if adapter.renamed:
        return False
    # what peft saved is called so, read or not
    return not adapter.tensors or any(name.startswith(_PREFIX) for name in adapter.tensors)


def _named_keys(adapter: Adapter, _: LoadRule) -> bool | None:
    return any(_NAMED.search(name) for name in adapter.tensors)


def _other_keys(adapter: Adapter, _: LoadRule) -> bool | None:
    return any(
        not name.startswith((_PREFIX, _PROMPTS)) and PLAIN in name for name in adapter.tensors
    )


TESTS: Final[dict[str, Callable[[Adapter, LoadRule], bool | None]]] = {
    "pattern": lambda adapter, _: adapter.targets.pattern,
    "adapts": _adapts,
    "adapts_without": _adapts_without,
    "adapts_other": _adapts_other,
    "uneven_layers": lambda adapter, _: adapter.targets.uneven,
    "experts": _experts,
    "towers": _towers,
    "foreign_names": lambda adapter, _: adapter.targets.trainer is not None,
    "grown_vocabulary": _grown_vocabulary,
    "other_base": _other_base,
    "tied_head": _tied_head,
    "peft_keys": _peft_keys,
    "named_keys": _named_keys,
    "other_keys": _other_keys,
}
"""By the key in `peft_shop.catalog.engines.CIRCUMSTANCES`."""
