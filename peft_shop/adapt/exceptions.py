"""What no rule about layers and shapes can tell: known refusals and faults of peft, as data.

Each entry was read in or seen with peft 0.21.2 and transformers 5.23; the matrix of readiness
exercises them. What can be read off the installed packages lies in `model_types.json`, which
`python -m peft_shop.curate.readiness.model_types` writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN_TYPE

if TYPE_CHECKING:
    from peft_shop.model.structure import ModuleGroup, Structure

__all__ = [
    "FOUR_DIMENSIONS",
    "HEADLESS",
    "LISTED_EXPERTS",
    "NO_PAST",
    "RENAMED_MODULES",
    "UNMIRRORED",
    "refused_model",
    "refused_module",
]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A method that does not work with some models or modules.

    Attributes:
        methods: members of `PeftType`; empty means all.
        models: model types; empty means all.
        modules: last parts of module names; empty means the model as a whole.
        because: the reason, in words.
    """

    methods: frozenset[str]
    models: frozenset[str]
    modules: frozenset[str]
    because: str


_STATE_SPACE: Final = frozenset(
    {"bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "mamba", "mamba2",
     "nemotron_h", "zamba", "zamba2"}
)  # fmt: skip
_REFUSALS: Final = (
    _Refusal(
        methods=frozenset(),
        models=_STATE_SPACE,
        modules=frozenset({"conv1d", "dt_proj", "out_proj"}),
        because="state-space kernels read its weight past the layer: an adapter on it does nothing",
    ),
    _Refusal(
        methods=frozenset(),
        models=frozenset({"wavlm"}),
        modules=frozenset({"k_proj", "out_proj", "q_proj", "v_proj"}),
        because="the model hands its weight to torch's own attention without calling the layer: an "
        "adapter on it does nothing",
    ),
    _Refusal(
        methods=frozenset({"POLY"}),
        models=frozenset({"deberta", "deberta-v2"}),
        modules=frozenset({"key_proj", "query_proj"}),
        because="it also projects positions, which are no samples and have no task_ids",
    ),
    _Refusal(
        methods=frozenset({"SHADOW"}),
        models=frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"}),
        modules=frozenset(),
        because="ShadowPEFT mirrors blocks with attention heads, and this model has none",
    ),
    _Refusal(
        methods=frozenset({"CARTRIDGE", "PREFIX_TUNING"}),
        models=frozenset({"qwen2_5_vl", "qwen2_vl"}),
        modules=frozenset(),
        because="its positions in three axes do not count the prefix",
    ),
    _Refusal(
        methods=frozenset({"XLORA"}),
        models=frozenset(),
        modules=frozenset(),
        because="peft 0.21.2 does not save the classifier that mixes the adapters: what is loaded "
        "is not what was trained, unless you keep the classifier's state dict yourself",
    ),
)
FOUR_DIMENSIONS: Final = (
    (frozenset[str](), frozenset({"kv_b_proj"})),
    (frozenset({"convnext", "convnextv2"}), frozenset({"pwconv1", "pwconv2"})),
)
"""Layers whose inputs have four dimensions, by types of models (none: all) and last parts of names:
latent attention, and images. Which methods cannot take them the catalog says."""
HEADLESS: Final = frozenset({"MULTITASK_PROMPT_TUNING", "PROMPT_TUNING", "P_TUNING"})
"""Prompt methods that work at the input alone, so that a model without attention will do."""
_MODEL_TYPES: Final[dict[str, list[str]]] = json.loads(
    resources.files(__package__).joinpath("model_types.json").read_text("utf-8")
)
NO_PAST: Final = frozenset(_MODEL_TYPES["without_past"])
"""Model types whose forward takes no past key values."""
UNMIRRORED: Final[dict[str, tuple[frozenset[str], str]]] = {
    "shadow_hidden_size": (
        frozenset({"opt"}),
        "peft shrinks the mirror's hidden size but not its embedding, which has a field of its own",
    ),
    "shadow_intermediate_size": (
        frozenset(
            {"bloom", "cpmant", "ctrl", "dbrx", "falcon", "gpt_neox_japanese", "mpt",
             "openai-gpt", "qwen3_5_moe", "qwen3_5_moe_text", "xlm", "xlnet"}
        ),
        "peft does not find this model type's field for it",
    ),
}  # fmt: skip
"""Fields of a shadow's mirror that peft cannot set, by model type, and why."""
LISTED_EXPERTS: Final = frozenset(_MODEL_TYPES["listed_experts"])
"""Model types whose LORA targets peft rewrites, because transformers 5 joined their experts: a
regular expression becomes a list of last parts."""
RENAMED_MODULES: Final = frozenset(_MODEL_TYPES["renamed_modules"])
"""Last parts of names that this rewriting takes for experts, also in dense layers."""


def refused_module(peft_type: str, structure: Structure, group: ModuleGroup) -> str | None:
    """Why a method does not take modules of this name in this model; `None` where it does."""
    for refusal in _REFUSALS:
        if (
            (not refusal.methods or peft_type in refusal.methods)
            and (not refusal.models or structure.model_type in refusal.models)
            and group.suffix in refusal.modules
        ):
            return refusal.because
    if (
        peft_type == PLAIN_TYPE
        and structure.model_type in LISTED_EXPERTS
        and group.suffix in RENAMED_MODULES
        and group.kind != "parameter"
    ):
        return f"peft takes {group.suffix} of this model type for its experts"
    return None


def refused_model(peft_type: str, structure: Structure) -> str | None:
    """Why a method does not work with this model at all; `None` where nothing is known."""
    for refusal in _REFUSALS:
        if (
            peft_type in refusal.methods
            and not refusal.modules
            and (not refusal.models or structure.model_type in refusal.models)
        ):
            return refusal.because
    return None
