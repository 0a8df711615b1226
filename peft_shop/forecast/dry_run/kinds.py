"""Tells a recorder what the model is computing: hooks on the modules where that changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from peft.tuners.tuners_utils import BaseTunerLayer

if TYPE_CHECKING:
    from torch import nn

    from peft_shop.forecast.dry_run.trace import Kind
    from peft_shop.forecast.dry_run.tracing import Recorder

__all__ = ["attach", "head_of", "site_of"]

_NAMES: Final[tuple[tuple[re.Pattern[str], Kind], ...]] = (
    (re.compile(r"norm", re.IGNORECASE), "norm"),
    (re.compile(r"mlp|feed_?forward|ffn|experts|moe", re.IGNORECASE), "mlp"),
    (re.compile(r"attention|attn", re.IGNORECASE), "attention"),
)
# whole models and whole layers, whose names carry those of their parts
_WHOLE: Final = re.compile(r"(Model|Layer|For[A-Z]\w*)$")
_INDEX: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")


def attach(model: nn.Module, recorder: Recorder) -> None:
    """Make `recorder.kind` and `recorder.site` follow the module that runs.

    What an adapter's layer computes is an adapter's; what its base layer computes is what its
    surroundings are. Modules are told apart by the names of their classes.
    """
    head = head_of(model)
    todo: list[tuple[nn.Module, str, Kind, Kind]] = [(model, "", "other", "other")]
    while todo:
        module, name, kind, outer = todo.pop()
        for part, child in module.named_children():
            path = f"{name}.{part}" if name else part
            inner, around = _kinds(module, part, child, kind, outer)
            if child is head:
                inner = "adapter_activation" if isinstance(child, BaseTunerLayer) else "logits"
                around = "logits"
            if inner != kind:
                _hook(child, inner, site_of(path), recorder)
            todo.append((child, path, inner, around))


def site_of(name: str) -> str:
    """Name of a module with every index as `*`.

    >>> site_of("model.layers.3.mlp")
    'model.layers.*.mlp'
    """
    return _INDEX.sub("*", name)


def head_of(model: nn.Module) -> Any:
    """The layer that makes logits, or `None`."""
    find = getattr(model, "get_output_embeddings", None)
    try:
        return find() if callable(find) else None
    except (NotImplementedError, AttributeError):
        return None


def _kinds(
    parent: nn.Module, part: str, module: nn.Module, kind: Kind, outer: Kind
) -> tuple[Kind, Kind]:
    """Kind of what `module` computes itself, and of what is around the adapter it belongs to."""
    if isinstance(module, BaseTunerLayer):
        return "adapter_activation", kind
    if isinstance(parent, BaseTunerLayer) and part == "base_layer":
        return outer, outer
    name = type(module).__name__
    if kind in ("adapter_activation", "logits") or _WHOLE.search(name):
        return kind, outer
    for pattern, found in _NAMES:
        if pattern.search(name):
            return found, outer
    return kind, outer


def _hook(module: nn.Module, kind: Kind, site: str, recorder: Recorder) -> None:
    before: list[tuple[Kind, str]] = []

    def enter(_module: Any, _inputs: Any) -> None:
        before.append((recorder.kind, recorder.site))
        recorder.kind, recorder.site = kind, site

    def leave(_module: Any, _inputs: Any, _outputs: Any) -> None:
        if before:
            recorder.kind, recorder.site = before.pop()

    module.register_forward_pre_hook(enter)
    # checkpointing leaves a block by an exception once it has what it needs
    module.register_forward_hook(leave, always_call=True)
