"""What an adapter can have that a server or a conversion stumbles over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.serve.fields import RANK, last_names, pattern, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft_shop.records import Json
    from peft_shop.serve.adapter import Adapter

__all__ = ["TRAITS"]

_EMBEDDINGS: Final = frozenset(
    ("embed_in", "embed_out", "embed_tokens", "lm_head", "tok_embeddings", "word_embeddings", "wte")
)
_HEADS: Final = frozenset(("classifier", "score"))
_HEADED_TASKS: Final = frozenset(("SEQ_CLS", "TOKEN_CLS"))
"""Tasks for which peft saves the head without being told."""


def _lora(test: Callable[[Mapping[str, Json]], bool]) -> Callable[[Adapter], bool]:
    return lambda adapter: adapter.method == PLAIN and test(adapter.config)


def _is_on(name: str) -> Callable[[Adapter], bool]:
    return _lora(lambda config: config.get(name) is True)


def _is_given(*names: str) -> Callable[[Adapter], bool]:
    return _lora(lambda config: any(config.get(name) not in (None, [], {}, ()) for name in names))


def _starts(*starts: str) -> Callable[[Adapter], bool]:
    def test(config: Mapping[str, Json]) -> bool:
        start = config.get("init_lora_weights")
        # "pissa_niter_16" is PiSSA too
        return isinstance(start, str) and (
            start in starts or start.partition("_niter_")[0] in starts
        )

    return _lora(test)


def _is_scaled(adapter: Adapter) -> bool:
    """Whether some layer's lora_alpha / r is not 1; for a method as such nobody knows: yes."""
    if adapter.method != PLAIN or adapter.config.get("use_rslora") is True:
        return False
    if not adapter.stated:
        return True
    ranks, alphas = (pattern(adapter.config, f"{name}_pattern") for name in ("rank", "alpha"))
    usual, alpha = whole(adapter.config, "r", RANK), adapter.alpha
    return alpha != usual or any(
        ranks.get(key, usual) != alphas.get(key, alpha) for key in {*ranks, *alphas}
    )


def _adapts_embeddings(adapter: Adapter) -> bool:
    target = adapter.config.get("target_modules")
    if isinstance(target, str):
        return any(name in target for name in _EMBEDDINGS)
    return any(name in _EMBEDDINGS for name in last_names(target))


def _saved(adapter: Adapter) -> frozenset[str]:
    saved = set(last_names(adapter.config.get("modules_to_save")))
    if adapter.config.get("task_type") in _HEADED_TASKS:
        saved |= _HEADS
    return frozenset(saved)


def _has_patterns(name: str) -> Callable[[Adapter], bool]:
    # EVA writes both patterns when it starts, whatever the recipe says
    by_eva = _starts("eva")
    given = _is_given(name)
    return lambda adapter: given(adapter) or by_eva(adapter)


TRAITS: Final[dict[str, Callable[[Adapter], bool]]] = {
    "scale": _is_scaled,
    "rslora": _is_on("use_rslora"),
    "dora": _is_on("use_dora"),
    "lora_bias": _is_on("lora_bias"),
    "changed_base": _starts("pissa", "olora", "corda"),
    "lora_ga": _starts("lora_ga"),
    "loftq": _starts("loftq"),
    "extra_tensors": _is_given("kasa_config", "velora_config", "monteclora_config"),
    "kasa": _is_given("kasa_config"),
    "alora": _is_given("alora_invocation_tokens"),
    "qalora": _is_on("use_qalora"),
    "bdlora": _is_given("use_bdlora"),
    "arrow": _is_given("arrow_config"),
    "rank_pattern": _has_patterns("rank_pattern"),
    "alpha_pattern": _has_patterns("alpha_pattern"),
    "layer_replication": _is_given("layer_replication"),
    "bias": lambda adapter: adapter.config.get("bias") not in (None, "none", False),
    "embeddings": _adapts_embeddings,
    "saved_head": lambda adapter: bool(_saved(adapter) & _HEADS),
    "saved_embeddings": lambda adapter: bool(_saved(adapter) & _EMBEDDINGS),
    "saved_modules": lambda adapter: bool(_saved(adapter) - _HEADS - _EMBEDDINGS),
    "trainable_tokens": lambda adapter: bool(adapter.config.get("trainable_token_indices")),
    "parameters": _is_given("target_parameters"),
    "miss_bat": lambda adapter: (
        adapter.method == "miss" and adapter.config.get("init_weights") == "bat"
    ),
    "sampling": lambda adapter: (
        adapter.method == "pvera" and adapter.config.get("sample_at_inference") is True
    ),
}
"""By topic."""
