"""Which modules an adapter adapts, as far as its configuration, its tensors and the base tell.

A pattern is never run: it comes from a stranger, and matching can take for ever. Its words are
looked at instead, which names the modules that it can hit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.upstream.targets import wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft_shop.records import Json
    from peft_shop.serve.bases import Base

__all__ = ["FOREIGN", "Targets", "targets_of"]

_ALL_LINEAR: Final = "all-linear"
_TENSOR: Final = re.compile(
    r"\.(?:lora_(?:A|B|embedding_A|embedding_B|magnitude_vector|up|down)|alpha|dora_scale)\b.*$"
)
"""What a tensor's name has behind that of its module."""
_INDEX: Final = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|block)\.(\d+)\.")
_EVERY_INDEX: Final = re.compile(
    r"(?:layers?|h|blocks?|block)(?:\\\.|\.)"
    r"(?:\\d|\[\\d\]|\[0-9\]|\.|\[\^[^\]]*\]|\\w)(?:\+|\*|\{1,\})"
)
"""Indices in a pattern that stand for any layer."""
_SOME_INDEX: Final = re.compile(
    r"(?:layers?|h|blocks?|block)(?:\\\.|\.)(?:\d|\((?:\?:)?\s*\d|\[\d|\\d(?![+*{]))"
)
"""Indices in a pattern that stand for certain layers."""
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXCEPT: Final = re.compile(r"\(\?!(?:[^()]|\([^()]*\))*\)")
"""What a pattern leaves out, such as `(?!.*visual)`."""
_GROUPED: Final = re.compile(r"\((?:\?:)?([A-Za-z0-9_|]{1,200})\)([A-Za-z0-9_]{0,40})")
"""Alternatives with a common end, such as `(q|v)_proj`."""

_FEWEST_LAYERS: Final = 6
"""Of the models that are served; Pythia 70M has six."""
_WORDS: Final = """
q_proj k_proj v_proj o_proj qkv_proj out_proj gate_proj up_proj down_proj gate_up_proj fc1 fc2
fc_in fc_out c_attn c_proj c_fc query_key_value dense dense_h_to_4h dense_4h_to_h query key
value wi_0 wi_1 wi wo to_q to_k to_v to_out in_proj x_proj dt_proj in_proj_qkv in_proj_qkvz
in_proj_z in_proj_a in_proj_b in_proj_ba w1 w2 w3 lm_head embed_tokens wte wqkv W_pack qkv
proj_in proj_out linear_qkv linear_proj linear_fc1 linear_fc2 q_a_proj q_b_proj
kv_a_proj_with_mqa kv_b_proj add_q_proj add_k_proj add_v_proj to_add_out q_lin k_lin v_lin
out_lin router
"""
_LEAVES: Final = frozenset(_WORDS.split())
"""Last parts of names of layers, among which the words of a pattern are looked for."""

FOREIGN: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(?:^|\.)linear_(?:qkv|proj|fc1|fc2|kv|q|kv_up_proj|q_up_proj)$"), "Megatron"),
    (
        re.compile(r"(?:^|\.)(?:gate_up|down|gate|up)_projs(?:\.\d+)?$"),
        "Unsloth's unpacked experts",
    ),
    (re.compile(r"(?:^|\.)(?:self_attention\.|adapter_layer\.)?lora_kqv_adapter"), "NeMo"),
    (re.compile(r"(?:^|\.)(?:wq|wk|wv)_(?:a|b)_adapter$"), "a trainer of its own"),
)
"""Names of modules that only one trainer's own models have, and whose they are."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Adapted modules.

    Attributes:
        names: last parts of their names; `None` where they are not known.
        places: longer parts of their names, as far as they are known; with every index as `*` where
            the tensors tell.
        avoided: words of a pattern that it leaves out.
        pattern: whether they are given as a regular expression.
        uneven: whether some layer lacks what others have; `None` where that is not known.
        from_tensors: whether the tensors were read and not only the configuration.
        everything: whether they are all linear layers of the base, whatever these are called.
    """

    names: frozenset[str] | None
    places: frozenset[str] = frozenset()
    avoided: frozenset[str] = frozenset()
    pattern: bool = False
    uneven: bool | None = False
    from_tensors: bool = False
    everything: bool = False

    @property
    def trainer(self) -> str | None:
        """Whose modules they are, where no model of transformers or diffusers has such names."""
        for name in sorted(self.places | (self.names or frozenset())):
            for pattern, trainer in FOREIGN:
                if pattern.search(name):
                    return trainer
        return None


def targets_of(config: Mapping[str, Json], tensors: Iterable[str], base: Base | None) -> Targets:
    """Modules that a configuration names, or that tensors were saved for.

    Args:
        config: the adapter's configuration.
        tensors: names of its tensors; empty where they were not read.
        base: what is known of the base.
    """
    value = config.get("target_modules")
    pattern = isinstance(value, str) and value != _ALL_LINEAR
    layers = base.layers if base is not None else None
    modules = {name[: match.start()] for name in tensors if (match := _TENSOR.search(name))}
    if modules:
        # adapters can have very many tensors, and few names that differ in more than indices
        places = frozenset(map(wildcard, modules))
        return Targets(
            frozenset(map(_last, places)),
            places,
            pattern=pattern,
            uneven=_is_uneven(modules, layers) or _some_layers(config, layers) is True,
            from_tensors=True,
        )
    uneven = _some_layers(config, layers)
    if isinstance(value, str) and value == _ALL_LINEAR:
        names = base.modules if base is not None and base.modules else None
        return Targets(names, frozenset(), uneven=uneven, everything=True)
    if isinstance(value, str):
        names = _words(value)
        if _SOME_INDEX.search(value):
            uneven = True
        elif names and not _EVERY_INDEX.search(value) and re.search(r"\d", _without(value, names)):
            uneven = None if uneven is False else uneven
        places = frozenset(_WORD.findall(value))
        avoided = places - set(_WORD.findall(_EXCEPT.sub("", value)))
        return Targets(names - avoided or None, places, avoided, pattern=True, uneven=uneven)
    if isinstance(value, list | tuple | set | frozenset):
        entries = frozenset(str(item) for item in value)
        if any(_INDEX.search(f".{entry}") for entry in entries):
            uneven = _is_uneven(entries, layers)
        return Targets(frozenset(map(_last, entries)) or None, entries, uneven=uneven)
    return Targets(None, uneven=uneven)


def _last(name: str) -> str:
    """Last part of a name that is no index."""
    parts = [part for part in name.split(".") if part != "*" and not part.isdigit()]
    return parts[-1] if parts else name


def _words(pattern: str) -> frozenset[str]:
    """Names of layers among the words of a pattern."""
    found = {word for word in _WORD.findall(pattern) if word in _LEAVES and len(word) > 1}
    for alternatives, end in _GROUPED.findall(pattern):
        found |= {f"{one}{end}" for one in alternatives.split("|") if f"{one}{end}" in _LEAVES}
    return frozenset(found)


def _without(pattern: str, names: Iterable[str]) -> str:
    """A pattern without the names in it, whose own digits say nothing of layers."""
    for name in names:
        pattern = pattern.replace(name, "")
    return re.sub(r"\{\d+,?\d*\}", "", pattern)


def _some_layers(config: Mapping[str, Json], layers: int | None) -> bool | None:
    """Whether the configuration picks layers by their index."""
    chosen = config.get("layers_to_transform")
    if chosen is None:
        excluded = config.get("exclude_modules")
        names = [excluded] if isinstance(excluded, str) else excluded
        if isinstance(names, list | tuple):
            return any(re.search(r"\d", str(name)) for name in names)
        return False
    if isinstance(chosen, int) and not isinstance(chosen, bool):
        chosen = [chosen]
    if not isinstance(chosen, list | tuple):
        return None
    if not chosen:
        return False
    if layers is not None:
        return not set(range(layers)) <= set(chosen)
    # all of a model's layers, perhaps, where they begin with the first and leave none out
    known = {one for one in chosen if isinstance(one, int)}
    return None if len(known) >= _FEWEST_LAYERS and known == set(range(len(known))) else True


def _is_uneven(modules: Iterable[str], layers: int | None) -> bool:
    """Whether a type of module is there in some layers and lacking in others."""
    found: dict[str, set[int]] = {}
    for name in modules:
        match = _INDEX.search(f"{name}.")
        if match is not None:
            found.setdefault(name[match.end() :], set()).add(int(match[1]))
    if not found:
        return False
    every = set().union(*found.values())
    full = set(range(layers if layers is not None else max(every) + 1))
    return any(indices != full for indices in found.values())
