"""Layers -> what each does, from its name, its surroundings and its shape."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Final

from peft_shop.model.vocabulary import (
    ATTENTION_LEAVES,
    BLOCK_CLASSES,
    BLOCK_NAMES,
    EMBEDDERS,
    EXPERT_OF,
    HEADS,
    MIXER_LEAVES,
    MLP_LEAVES,
    NEUTRAL,
    POSITION,
    PROJECTORS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.model.layers import Layer
    from peft_shop.model.structure import Role

__all__ = ["Roles"]

_NORMS: Final = {"layer_norm", "rms_norm", "batch_norm", "group_norm"}
_WHOLE: Final = {"linear", "transformers_conv1d"}
_QKVO: Final = {"attention_query", "attention_key", "attention_value", "attention_output"}
_FLAT_EXPERTS: Final[dict[str, Role]] = {
    "w1": "expert_gate",
    "v1": "expert_up",
    "w2": "expert_down",
}
"""Names of weights that hold all experts in two dimensions (DBRX)."""


class Roles:
    """What the layers of one model do.

    Args:
        classes: names of the classes of its modules, by the modules' names.
        layers: all of its layers.
        experts: numbers of experts that its configuration names.
        vocabularies: sizes of vocabularies and numbers of labels that it names.
    """

    def __init__(
        self,
        classes: Mapping[str, str],
        layers: Sequence[Layer],
        *,
        experts: Iterable[int] = (),
        vocabularies: Iterable[int] = (),
    ) -> None:
        self._classes = classes
        self._layers = layers
        self._experts = frozenset(experts)
        self._vocabularies = frozenset(vocabularies)
        self._blocks: dict[str, tuple[str, str]] = {}

    def of(self, layer: Layer) -> Role | None:
        """Its role; `None` for a bare parameter that is no weight of a layer."""
        if layer.kind == "parameter":
            return self._parameter(layer)
        if layer.kind == "embedding":
            return self._embedding(layer)
        if layer.kind in _NORMS or "norm" in layer.class_name.lower():
            return "norm"
        return self._matrix(layer)

    # --- where a layer stands ---

    def _block(self, name: str) -> tuple[str, str]:
        """Kind and name of the nearest module around `name` that says what it is.

        Of one that stands in another of the same kind, such as a gated unit in an MLP, the outer.
        """
        above = name.rpartition(".")[0]
        if not above:
            return "", ""
        if above not in self._blocks:
            kind = self._kind(above)
            outer = self._block(above)
            between = above[len(outer[1]) :].split(".")
            nested = outer[0] == kind and not (
                kind == "attention" and any(one.isdigit() for one in between)
            )
            self._blocks[above] = (kind, above) if kind and not nested else outer
        return self._blocks[above]

    def _kind(self, name: str) -> str:
        cls = self._classes[name]
        word = name.rpartition(".")[2].lower()
        for kind, pattern in BLOCK_CLASSES:
            if pattern.search(cls):
                return kind
        for kind, pattern in BLOCK_NAMES:
            if pattern.fullmatch(word):
                return kind
        return ""

    @cached_property
    def _members(self) -> dict[str, list[Layer]]:
        """Layers with a matrix by the block that they are in, in the model's order."""
        layers: dict[str, list[Layer]] = {}
        for layer in self._layers:
            if layer.linear_like:
                layers.setdefault(self._block(layer.name)[1], []).append(layer)
        return layers

    # --- layers ---

    def _embedding(self, layer: Layer) -> Role:
        words = layer.name.lower().split(".")
        if any(POSITION.fullmatch(one) for one in (words[-1], layer.class_name.lower())):
            return "position_embedding"
        if len(words) > 1 and POSITION.fullmatch(words[-2]):
            return "position_embedding"
        return "embedding"

    def _parameter(self, layer: Layer) -> Role | None:
        words = layer.name.lower().split(".")
        own = words[-1]
        first = layer.shape[0]
        kind, _ = self._block(layer.name)
        if "bias" in own:
            return None
        if len(layer.shape) == 3 and first > 1 and (first in self._experts or kind == "experts"):
            return _expert_parameter(words)
        if len(layer.shape) != 2:
            return None
        if own == "weight" and (first in self._experts or kind == "router"):
            return "router"
        return _FLAT_EXPERTS.get(own) if kind == "experts" else None

    def _matrix(self, layer: Layer) -> Role:
        words = layer.name.lower().split(".")
        while len(words) > 1 and (words[-1].isdigit() or words[-1] in NEUTRAL):
            words.pop()
        leaf = words[-1]
        kind, block = self._block(layer.name)
        if self._is_router(layer, leaf, kind, block):
            return "router"
        outside, before = self._outside(layer, words)
        if outside and before and kind not in {"experts", "router"}:
            return outside
        role: Role | None = None
        if layer.kind == "multihead_attention":
            role = "attention_qkv"
        elif kind == "attention":
            role = self._attention(layer, leaf, block)
        elif kind == "mixer":
            role = self._mixer(layer, leaf, block)
        elif kind in {"mlp", "experts"}:
            role = self._mlp(layer, leaf, block)
            if role and any(word in {"expert", "experts"} for word in words):
                role = EXPERT_OF.get(role, role)
        elif kind == "router":
            role = "other"
        elif kind in {"modulation", "other"}:
            role = "modulation" if kind == "modulation" else "other"
        return role or outside or self._loose(layer, words)

    def _is_router(self, layer: Layer, leaf: str, kind: str, block: str) -> bool:
        if layer.kind not in _WHOLE:
            return False
        if kind == "router":
            return self._members[block][-1] is layer
        return layer.out_features in self._experts and leaf in {
            "gate", "router", "classifier", "wg", "layer",
        }  # fmt: skip

    def _attention(self, layer: Layer, leaf: str, block: str) -> Role | None:
        role = ATTENTION_LEAVES.get(leaf)
        if layer.kind not in _WHOLE:
            return role if layer.kernel and set(layer.kernel) == {1} else "convolution"
        if POSITION.fullmatch(leaf):
            return "position_embedding"
        members = self._members[block]
        if role == "attention_output" and len(members) == 1:
            return None
        leaves = {member.name.rpartition(".")[2] for member in members}
        if role == "attention_output" and any(
            ATTENTION_LEAVES.get(one) == "attention_mlp_in" for one in leaves
        ):
            return "attention_mlp_out"
        if leaf == "c_attn" and "q_attn" in leaves:
            return "attention_key_value"
        return role or "other"

    def _mixer(self, layer: Layer, leaf: str, block: str) -> Role:
        if layer.kind not in _WHOLE:
            return "mixer_state"
        role = ATTENTION_LEAVES.get(leaf)
        queries = any(
            ATTENTION_LEAVES.get(member.name.rpartition(".")[2].lower()) == "attention_query"
            for member in self._members[block]
        )
        if queries and role in _QKVO:
            return role
        for pattern, mixer in MIXER_LEAVES:
            if pattern.fullmatch(leaf):
                return mixer
        return "mixer_state"

    def _mlp(self, layer: Layer, leaf: str, block: str) -> Role | None:
        if layer.kind not in _WHOLE and set(layer.kernel) != {1}:
            return "convolution"
        if POSITION.search(block.lower().rpartition(".")[2]):
            return "position_embedding"
        members = [
            member for member in self._members[block] if member.kind in _WHOLE or member is layer
        ]
        leaves = [_leaf(member) for member in members]
        role = MLP_LEAVES.get(leaf)
        if role is None and len(members) == 2:
            role = "mlp_up" if members[0] is layer else "mlp_down"
        elif len(members) == 3 and not all(one in MLP_LEAVES for one in leaves):
            return _of_three(members, layer) or role
        if role == "mlp_gate" and not any(MLP_LEAVES.get(one) == "mlp_up" for one in leaves):
            role = "mlp_up" if len(members) == 2 else role
        if role == "mlp_up" and len(members) == 2:
            other = members[1] if members[0] is layer else members[0]
            return "mlp_gate_up" if other.in_features * 2 == layer.out_features else role
        return role

    def _outside(self, layer: Layer, words: Sequence[str]) -> tuple[Role | None, bool]:
        """Role of a layer by the words of its name, for what is in no attention or MLP.

        Also whether the word stands before any index: then the layer is in no stack of blocks, and
        what it is part of says more than what it is called.
        """
        for place, word in reversed(list(enumerate(words))):
            role = _outside_role(word)
            if role is not None:
                before = not any(one.isdigit() for one in words[:place])
                if word in {"proj_in", "proj_out"} and (len(words) > 2 or not before):
                    if "proj_mlp" in self._beside(layer):
                        return "attention_mlp_out", False
                    return "projector", False
                return role, before
        name = layer.name.rpartition(".")[0]
        while name:
            if "Pooling" in self._classes[name] or "Pooler" in self._classes[name]:
                return "pooler", True
            name = name.rpartition(".")[0]
        # inside a block, a width that is the vocabulary's too is chance
        outside = not any(part.isdigit() for part in layer.name.split("."))
        if outside and layer.out_features in self._vocabularies and layer.kind in _WHOLE:
            return "head", False
        return None, False

    def _beside(self, layer: Layer) -> set[str]:
        """Last names of the layers that stand right beside it."""
        around = layer.name.rpartition(".")[0]
        return {
            member.name.rpartition(".")[2]
            for member in self._members[self._block(layer.name)[1]]
            if member.name.rpartition(".")[0] == around
        }

    def _loose(self, layer: Layer, words: Sequence[str]) -> Role:
        """Role of a layer in a block that says nothing."""
        leaf = words[-1] if words else ""
        if layer.kind not in _WHOLE:
            return "convolution"
        above = words[-2] if len(words) > 1 else ""
        if leaf == "dense" and re.search("intermediate|inter$|output$|^output", above):
            return "mlp_up" if "inter" in above else "mlp_down"
        if POSITION.fullmatch(leaf) or POSITION.fullmatch(above):
            return "position_embedding"
        if leaf.startswith("norm") or above.startswith("norm"):
            return "modulation"
        repeated = any(word.isdigit() for word in words)
        role = MLP_LEAVES.get(leaf) or ATTENTION_LEAVES.get(leaf)
        return role if role and role != "attention_output" and repeated else "other"


def _of_three(members: Sequence[Layer], layer: Layer) -> Role | None:
    """Role in a gated MLP whose names say nothing: the one that turns the widths round is last."""
    last = [
        member
        for member in members
        if all(
            (member.in_features, member.out_features) == (other.out_features, other.in_features)
            for other in members
            if other is not member
        )
    ]
    if len(last) != 1 or last[0].in_features == last[0].out_features:
        return None
    if layer is last[0]:
        return "mlp_down"
    first = next(member for member in members if member is not last[0])
    return "mlp_gate" if layer is first else "mlp_up"


def _outside_role(word: str) -> Role | None:
    if word == "proj_in":
        return "patch_embedding"
    for pattern, role in EMBEDDERS:
        if pattern.fullmatch(word):
            return role
    found: Role | None = None
    if PROJECTORS.fullmatch(word):
        found = "projector"
    elif "pooler" in word or "pooling" in word:
        found = "pooler"
    elif HEADS.fullmatch(word) and word not in {"q_head", "k_head", "v_head"}:
        found = "head"
    elif word.startswith("adaln") or "modulation" in word:
        found = "modulation"
    return found


def _leaf(layer: Layer) -> str:
    words = layer.name.lower().split(".")
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in NEUTRAL):
        words.pop()
    return words[-1]


def _expert_parameter(words: Sequence[str]) -> Role | None:
    name = words[-1] if words[-1] != "weight" else words[-2]
    if "gate_up" in name or name in {"input_linear", "w13", "gate_and_up_proj"}:
        return "expert_gate_up"
    if "down" in name or name in {"output_linear", "w2"}:
        return "expert_down"
    if "gate" in name or name == "w1":
        return "expert_gate"
    return "expert_up" if "up" in name or name in {"w3", "v1"} else None
