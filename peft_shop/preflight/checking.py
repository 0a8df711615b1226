"""The check itself: wrap without weights, look, and say."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from peft_shop.adapt.records import Preflight, Touched
from peft_shop.errors import ConfigError, WeightsNeededError
from peft_shop.model.quiet import quiet_loggers
from peft_shop.preflight.findings import find_surprises
from peft_shop.preflight.reading import Seen, pattern_of, read_wrapped
from peft_shop.preflight.scaling import scale_up
from peft_shop.preflight.stand_ins import approximations
from peft_shop.preflight.trying import Tried, tried
from peft_shop.preflight.wrapping import as_config, inject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftConfig

    from peft_shop.model.inspection import Target
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["preflight"]


def preflight(target: Target, config: PeftConfig | Mapping[str, Json]) -> Preflight:
    """What `config` does to the model of `target`, without a weight of it.

    Args:
        target: a model that was inspected; the same one serves any number of configurations.
        config: a configuration, or the fields of one with `peft_type`; it is left as it is.

    Raises:
        ConfigError: peft refuses the configuration on this model, or a forward pass with the
            adapter in place fails; the message has the words of what was raised.
    """
    given = as_config(config)
    with quiet_loggers(), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            result = _on_meta(target, given)
        except WeightsNeededError:
            result = _scaled(target, given)
    said = [f"peft: {' '.join(str(one.message).split())}" for one in heard if _of_user(one)]
    unique = dict.fromkeys([*result.warnings, *said])
    return result.model_copy(update={"warnings": tuple(unique)})


def _of_user(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is about what the user asked for, not about code that is out of date."""
    said_here = "keys did not match any targeted module" in str(warning.message)
    return issubclass(warning.category, UserWarning | RuntimeWarning) and not said_here


def _on_meta(target: Target, given: Any) -> Preflight:
    skeleton = target.skeleton()
    before = {name for name, _ in skeleton.named_parameters(remove_duplicate=False)}
    model = inject(skeleton, given)
    trainable, total = model.get_nb_trainable_parameters()
    seen = read_wrapped(model, before)
    config = model.peft_config["default"]
    touched = _touched(target.structure, seen)
    outcome = tried(target, model, lambda: inject(target.skeleton(), given))
    if outcome.passed is False:
        method, name = str(given.peft_type.value), target.structure.architecture
        msg = f"{method} cannot work on {name}: a forward pass with it raises {outcome.because}"
        raise ConfigError(msg)
    surprises = find_surprises(
        target.structure, config, given, seen, trainable=trainable, outcome=outcome
    )
    return Preflight(
        touched=touched,
        trainable_parameters=trainable,
        total_parameters=total,
        trainable_share=trainable / total,
        trained_in_full=tuple(dict.fromkeys(pattern_of(name) for name in seen.whole)),
        warnings=(*surprises, *approximations(given)),
        forward="passed" if outcome.passed else "not_tried",
        not_tried_because=outcome.because or None,
    )


def _touched(structure: Structure, seen: Seen) -> tuple[Touched, ...]:
    """Adapted and wholly trained modules by group."""
    toucheds = []
    for group in structure.groups:
        names = [name for name in group.names if name in seen.adapted or name in seen.whole]
        parts = [
            f"{name}.{leaf}"
            for name in group.names
            for leaf in ("weight", "bias")
            if f"{name}.{leaf}" in seen.whole
        ]
        hit = {*names, *(part.rpartition(".")[0] for part in parts)}
        if not hit:
            continue
        size = sum(seen.adapted.get(name, 0) + seen.whole.get(name, 0) for name in names)
        toucheds.append(
            Touched(
                role=group.role,
                tower=group.tower,
                pattern=group.pattern,
                touched=len(hit),
                present=group.count,
                parameters=size + sum(seen.whole[part] for part in parts),
            )
        )
    return tuple(toucheds)


def _scaled(target: Target, given: Any) -> Preflight:
    """The same from a few real layers, for a method that has to see weights."""
    structure = target.structure
    scaled = scale_up(target.skeleton, lambda: as_config(given))
    everywhere = _everywhere(structure, scaled.seen)
    untried = Tried(None, "the method reads weights when it is set up")
    surprises = find_surprises(
        structure, scaled.config, given, everywhere, trainable=scaled.trainable, outcome=untried
    )
    touched = tuple(
        one.model_copy(
            update={
                "parameters": sum(
                    scaled.parameters.get(f"{one.pattern}{leaf}", 0)
                    for leaf in ("", ".weight", ".bias")
                )
            }
        )
        for one in _touched(structure, everywhere)
    )
    note = (
        "the method reads weights when it is set up: figures are extrapolated from one and two "
        "layers with random weights"
    )
    return Preflight(
        touched=touched,
        trainable_parameters=scaled.trainable,
        total_parameters=scaled.total,
        trainable_share=scaled.trainable / scaled.total,
        trained_in_full=tuple(dict.fromkeys(pattern_of(name) for name in scaled.seen.whole)),
        warnings=(*surprises, note),
        basis="stand_in",
        not_tried_because=untried.because,
    )


def _everywhere(structure: Structure, first: Seen) -> Seen:
    """What is found if all layers are as the first, which `first` saw."""
    adapted = {pattern_of(name): size for name, size in first.adapted.items()}
    whole = {pattern_of(name): size for name, size in first.whole.items()}
    idle = {pattern_of(name) for name in first.idle}
    seen = Seen(whole=dict(first.whole))
    for group in structure.groups:
        for name in group.names:
            if group.pattern in adapted:
                seen.adapted[name] = adapted[group.pattern]
            if group.pattern in idle:
                seen.idle.add(name)
            for leaf in ("", ".weight", ".bias"):
                if f"{group.pattern}{leaf}" in whole:
                    seen.whole[f"{name}{leaf}"] = whole[f"{group.pattern}{leaf}"]
    return seen
