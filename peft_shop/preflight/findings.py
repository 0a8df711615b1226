"""Surprises of a configuration on a model, in plain words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from peft_shop.adapt.blocks import share_of_blocks
from peft_shop.adapt.towers import main_towers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peft_shop.model.structure import ModuleGroup, Role, Structure, Tower
    from peft_shop.preflight.reading import Seen
    from peft_shop.preflight.trying import Tried

__all__ = ["find_surprises"]

_SEVERAL: Final = {
    "norm",
    "embedding",
    "position_embedding",
    "convolution",
    "mixer_state",
    "head",
    "other",
}
"""Roles whose modules do different things: hitting some of them is no accident."""
_SELDOM: Final[dict[Role, str]] = {
    "router": "a mixture's routing changes with it, which is seldom wanted",
    "head": "the output layer is usually left as it is or trained whole",
    "embedding": "the vocabulary is usually left as it is",
    "position_embedding": "positions are seldom meant",
    "patch_embedding": "the first look at the image changes with it",
    "time_embedding": "conditioning on time is seldom meant",
    "projector": "what joins a tower to the language model changes with it",
    "pooler": "many models do not use it for the task at hand",
}
"""Roles that a broad target takes along, and why that is a surprise."""
_SIDE: Final[frozenset[Tower]] = frozenset({"vision", "audio"})
_MAIN: Final[frozenset[Tower]] = frozenset({"text", "decoder"})
_TOKENS: Final = {"TRAINABLE_TOKENS"}
_NORMS: Final = {"LN_TUNING"}
_FROZEN_INSIDE: Final = {"XLORA"}
"""Methods whose wrapped layers are meant to hold frozen adapters."""


def find_surprises(
    structure: Structure,
    config: Any,
    given: Any,
    seen: Seen,
    *,
    trainable: int,
    outcome: Tried,
) -> Iterator[str]:
    """What a user of the configuration should know before training.

    Args:
        structure: the model's.
        config: the configuration as peft filled it in.
        given: the configuration as it was given.
        seen: what was found on the wrapped model.
        trainable: all trainable parameters [count].
        outcome: of a forward pass with the adapter in place.
    """
    method = str(config.peft_type.value)
    if trainable == 0:
        yield "nothing is trainable"
    if seen.idle and method not in _FROZEN_INSIDE and trainable:
        yield (
            f"{len(seen.idle)} of {len(seen.adapted)} wrapped modules train nothing, such as "
            f"{min(seen.idle)}"
        )
    yield from _silent(structure, outcome)
    if not outcome.passed:
        yield from _without_effect(structure, seen)
    if not outcome.reached:
        yield "nothing that is trained gets a gradient"
    partial = list(_partial(structure, seen, _indices(given)))
    yield from partial or _share(structure, seen, _indices(given))
    if method not in _TOKENS:
        yield from _seldom(structure, seen)
    yield from _tied(structure, config, seen)
    yield from _whole(structure, seen, trainable, meant=method in _NORMS)
    if seen.adapted:
        yield from _experts(structure, seen)
    yield from _left_out(structure, given, seen)
    yield from _unmatched(structure, config, given, seen)


def _hit(group: ModuleGroup, seen: Seen) -> list[str]:
    """Names of the group's modules that are adapted or trained whole."""
    return [name for name in group.names if name in seen.adapted or name in seen.whole]


def _silent(structure: Structure, outcome: Tried) -> Iterator[str]:
    """Adapters without a part in the outputs, as a forward pass showed."""
    for group in structure.groups:
        silent = [outcome.silent[name] for name in group.names if name in outcome.silent]
        if not all(silent):
            yield _uncalled(group.pattern, len(silent) - sum(silent))
        if any(silent):
            yield (
                f"{sum(silent)} of {group.count} adapters on {group.pattern} have no part in the "
                "outputs and get no gradient; leave them out"
            )


def _uncalled(pattern: str, count: int) -> str:
    return (
        f"a forward pass goes by {pattern} without calling the layer, so that an adapter there has "
        f"no effect ({count} of them); leave it out"
    )


def _without_effect(structure: Structure, seen: Seen) -> Iterator[str]:
    """Layers whose weight the model reads without calling them, so that an adapter is idle."""
    for group in structure.groups:
        # an adapter on the whole attention module takes care of its parts itself
        count = sum(
            name in seen.adapted and name.rpartition(".")[0] not in seen.adapted
            for name in group.names
        )
        if not count:
            continue
        mamba = group.suffix == "dt_proj" and group.role.startswith("mixer")
        if mamba or group.class_name == "NonDynamicallyQuantizableLinear":
            yield _uncalled(group.pattern, count)


def _indices(config: Any) -> frozenset[str] | None:
    """Layers that `layers_to_transform` names, or `None` for all."""
    value = getattr(config, "layers_to_transform", None)
    if value is None or value == []:
        return None
    return frozenset(str(one) for one in ([value] if isinstance(value, int) else value))


def _layer_of(name: str) -> str | None:
    return next((part for part in name.split(".") if part.isdigit()), None)


def _partial(structure: Structure, seen: Seen, layers: frozenset[str] | None) -> Iterator[str]:
    """Some modules of a role in a tower, but not all."""
    together: dict[tuple[str, str, str], list[ModuleGroup]] = {}
    for group in structure.groups:
        part = group.pattern if group.role in _SEVERAL else ""
        together.setdefault((group.role, group.tower, part), []).append(group)
    for (role, tower, _), groups in together.items():
        hit = {name for group in groups for name in _hit(group, seen)}
        asked = [
            name
            for group in groups
            for name in group.names
            if layers is None or _layer_of(name) in layers
        ]
        missed = [name for name in asked if name not in hit]
        if hit and missed:
            others = sorted(
                {group.pattern for group in groups if not hit.intersection(group.names)}
            )
            where = f"not {', '.join(others)}" if others else f"not {missed[0]}, for example"
            yield (
                f"only {len(asked) - len(missed)} of {len(asked)} {_words(role)} modules of the "
                f"{tower} tower are touched: {where}"
            )


def _share(structure: Structure, seen: Seen, layers: frozenset[str] | None) -> Iterator[str]:
    """Blocks without an adapter, where nobody asked for some only."""
    if layers is not None:
        return
    hit, every = share_of_blocks(structure, main_towers(structure), [*seen.adapted, *seen.whole])
    if 0 < hit < every:
        yield f"adapters sit in {hit} of {every} blocks; the others have none"


def _words(role: str) -> str:
    return role.replace("_", " ")


def _seldom(structure: Structure, seen: Seen) -> Iterator[str]:
    """Roles and towers that broad targets take along."""
    for role, why in _SELDOM.items():
        found = {
            group.pattern: count
            for group in structure.of(roles=[role])
            if (count := sum(name in seen.adapted for name in group.names))
        }
        if found:
            what = f"{sum(found.values())} {_words(role)} module"
            plural = "s" if sum(found.values()) > 1 else ""
            yield f"adapts {what}{plural} ({', '.join(found)}): {why}"
    towers = {group.tower for group in structure.groups}
    if not towers & _MAIN:
        return
    for tower in sorted(towers & _SIDE):
        groups = [group for group in structure.groups if group.tower == tower]
        count = sum(len(_hit(group, seen)) for group in groups)
        if count:
            yield f"{count} modules of the {tower} tower are touched as well as the language model"


def _tied(structure: Structure, config: Any, seen: Seen) -> Iterator[str]:
    """Tied weights of which one is adapted or trained."""
    for names in structure.tied:
        modules = {name.rpartition(".")[0]: name for name in names}
        for module, name in modules.items():
            others = sorted(set(names) - {name})
            rest = ", ".join(others)
            copied = module in seen.whole and not all(
                other.rpartition(".")[0] in seen.whole for other in others
            )
            if copied:
                yield (
                    f"{module} is tied to {rest}: a copy of it is trained, so that the two differ "
                    "afterwards and the model has to be saved and served untied"
                )
            elif (
                module in seen.adapted
                and not getattr(config, "ensure_weight_tying", False)
                and not all(other.rpartition(".")[0] in seen.adapted for other in others)
            ):
                yield (
                    f"{module} is tied to {rest}: its adapter acts on {module} alone, and merging "
                    "it changes or unties both"
                )


def _whole(structure: Structure, seen: Seen, trainable: int, *, meant: bool) -> Iterator[str]:
    """Modules of the base that are trained whole; `meant`: it is the method to train norms."""
    norms = {name for group in structure.of(roles=["norm"]) for name in group.names}
    trained = sorted(
        name for name in seen.whole if name in norms or name.rpartition(".")[0] in norms
    )
    if trained and not meant:
        yield f"{len(trained)} norms are trained whole, such as {trained[0]}"
    rest = {name: size for name, size in seen.whole.items() if name not in set(trained)}
    size = sum(rest.values())
    largest = max(rest, key=lambda name: rest[name], default="")
    if rest and meant:
        yield (
            f"{len(rest)} modules that are no norms are trained whole, such as {largest}: "
            f"{size:,} parameters"
        )
    elif rest and size > trainable / 2:
        yield (
            f"{size:,} of {trainable:,} trainable parameters belong to modules that are trained "
            f"whole, such as {largest}, and are saved whole"
        )


def _experts(structure: Structure, seen: Seen) -> Iterator[str]:
    """Experts held as parameters, which only LoRA's `target_parameters` reaches."""
    groups = [
        group
        for group in structure.groups
        if group.kind == "parameter" and group.role.startswith("expert_")
    ]
    if groups and not any(_hit(group, seen) for group in groups):
        size = sum(group.parameters * group.count for group in groups)
        patterns = ", ".join(dict.fromkeys(group.pattern for group in groups))
        yield (
            f"no expert is adapted ({patterns}; {100 * size / structure.parameters:.0f} % of the "
            "model): they are parameters, which only LoRA reaches, by target_parameters"
        )


def _left_out(structure: Structure, given: Any, seen: Seen) -> Iterator[str]:
    """Linear layers that `all-linear` does not take, but the output layer, which it never does."""
    if getattr(given, "target_modules", None) != "all-linear" or _excluded(given):
        return
    missed = [
        group.pattern
        for group in structure.groups
        if group.kind in {"linear", "transformers_conv1d"}
        and group.role != "head"
        and not _hit(group, seen)
    ]
    if missed:
        yield f"target_modules: 'all-linear' leaves out {', '.join(dict.fromkeys(missed))}"


def _unmatched(structure: Structure, config: Any, given: Any, seen: Seen) -> Iterator[str]:
    """Fields of the configuration, or entries of them, that match nothing."""
    names = [name for group in structure.groups for name in group.names]
    every = {*names, *(".".join(name.split(".")[:end]) for name in names for end in range(1, 12))}
    mapped = getattr(given, "target_modules", None) is None
    for entry in _entries(getattr(config, "target_modules", None)):
        matched = [name for name in every if _ends(name, entry)]
        origin = " (from peft's own mapping)" if mapped else ""
        if not matched:
            yield f"target_modules{origin}: {entry!r} matches nothing"
        elif not any(
            name in seen.adapted or name in seen.whole
            for match in matched
            for name in (match, *(f"{match}.{tail}" for tail in ("in_proj_weight", "weight")))
        ) and not _excluded(config):
            yield (
                f"target_modules{origin}: {entry!r} matches {len(matched)} modules, of which none "
                "is wrapped"
            )
    for field in ("exclude_modules", "modules_to_save"):
        value = getattr(given, field, None)
        if isinstance(value, str):
            if not any(re.fullmatch(value, name) for name in every):
                yield f"{field}: {value!r} matches nothing"
            continue
        for entry in _entries(value):
            tail = field == "modules_to_save"  # peft compares the end of the name there
            if not any(name.endswith(entry) if tail else _ends(name, entry) for name in every):
                yield f"{field}: {entry!r} matches nothing"
    bias = getattr(given, "bias", None)
    if isinstance(bias, str) and bias != "none" and not _biases(seen):
        yield f"bias: {bias!r} finds no bias to train"
    yield from _patterns(given, seen)
    yield from _numbers(structure, given, seen)


def _biases(seen: Seen) -> bool:
    return any(name.rpartition(".")[2] == "bias" for name in seen.whole)


def _entries(value: Any) -> Iterable[str]:
    return sorted(value) if isinstance(value, list | set | tuple | frozenset) else ()


def _ends(name: str, entry: str) -> bool:
    return name == entry or name.endswith(f".{entry}")


def _excluded(config: Any) -> bool:
    """Whether the configuration names modules or layers to leave out."""
    return any(
        getattr(config, field, None)
        for field in ("exclude_modules", "layers_to_transform", "modules_to_save")
    )


def _patterns(given: Any, seen: Seen) -> Iterator[str]:
    """Keys of pattern tables and feed-forward modules that match no adapted module."""
    for field in ("rank_pattern", "alpha_pattern"):
        table = getattr(given, field, None)
        if not isinstance(table, dict) or str(given.peft_type.value) == "ADALORA":
            continue  # AdaLoRA keeps its own results there, by names of weights
        for key in sorted(table):
            if not any(re.match(rf"(.*\.)?({key})$", name) or key in name for name in seen.adapted):
                yield f"{field}: {key!r} matches no adapted module"
    for entry in _entries(getattr(given, "feedforward_modules", None)):
        if not any(_ends(name, entry) for name in seen.adapted):
            yield f"feedforward_modules: {entry!r} matches no adapted module"


def _numbers(structure: Structure, given: Any, seen: Seen) -> Iterator[str]:
    """Layers and tokens that the model does not have."""
    layers = _indices(given)
    if layers is not None:
        present = {_layer_of(name) for name in seen.adapted}
        gone = sorted(layers - present, key=int)
        if gone:
            yield f"layers_to_transform: no adapted module in layer {', '.join(gone)}"
    rows = structure.dimensions.vocabulary
    asked = getattr(given, "token_indices", None) or getattr(given, "trainable_token_indices", None)
    tokens = (
        [one for value in asked.values() for one in value] if isinstance(asked, dict) else asked
    )
    if rows and tokens:
        beyond = sorted({token for token in tokens if token >= rows})
        if beyond:
            yield f"token {beyond[0]} is beyond the vocabulary of {rows:,}: training fails"
