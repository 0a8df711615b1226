"""What people write about their model -> records: options, and which benchmark is evidence."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, get_args

from pydantic import ValidationError

from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.backends import backend_of
from peft_shop.ask.query import MemoryLimit
from peft_shop.catalog.features import TaskType
from peft_shop.errors import Keyword, QueryError, UnknownNameError, shown
from peft_shop.forecast.records import Dtype, Settings
from peft_shop.model.structure import ROLES
from peft_shop.units import format_quantity, read_quantity
from peft_shop.upstream.versions import version_key

if TYPE_CHECKING:
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.model.structure import Structure
    from peft_shop.units import Quantity

__all__ = [
    "AskedStep",
    "default_benchmark",
    "read_memory",
    "read_options",
    "read_settings",
    "read_training",
]

Options = TypeVar("Options", TargetOptions, Settings)

_LARGEST: Final = 10**12
"""No count of a training step comes near it, and products of what does stay exact."""
_LISTS = {"roles": ROLES, "task_type": get_args(TaskType)}
"""Fields whose values are names, and the valid ones."""
_EFFECTIVE: Final = "effective_batch"
_SEQUENCES: Final = 4
_IMAGES: Final = 2
"""Effective batches of the measured recipes."""
_GUESSES: Final = {"text": "text", "multimodal": "text", "image": "image"}
"""What a benchmark must be about to be a guess for a model of each kind."""


def read_options(given: TargetOptions | Mapping[str, Any] | None) -> TargetOptions:
    """Options that `given` stands for; a mapping has the fields of `TargetOptions` as keys.

    Values may be text, as a command line has them: `"true"`, `"500"`, `"attention_query,head"`.

    Raises:
        UnknownNameError: there is no such option, role or task type; names the nearest.
        QueryError: a value of another kind than the option takes.
    """
    if given is None:
        return TargetOptions()
    if isinstance(given, TargetOptions):
        return given
    if not isinstance(given, Mapping):
        raise QueryError(f"expected options by name, got {shown(given)}", keyword="adapt")
    found: dict[str, Any] = {}
    for name, value in given.items():
        key = str(name).strip().lower().replace("-", "_")
        if key not in TargetOptions.model_fields:
            raise UnknownNameError("option of adapt", str(name), TargetOptions.model_fields)
        found[key] = _listed(value) if key in {"roles", "token_indices", "adapters"} else value
        if key in _LISTS:
            _check_names(key, found[key])
    if isinstance(found.get("peft_version"), str):
        version_key(found["peft_version"])
    return _validated(TargetOptions, "adapt", found)


def read_settings(
    given: Settings | Mapping[str, Any] | None,
    model: Structure | None,
    quantization: str | None = None,
) -> Settings:
    """Settings of a training step; a mapping has the fields of `Settings` as keys.

    What is not given is the model's own (dtype, quantization) or a default.

    Args:
        given: the settings.
        model: what is trained.
        quantization: backend that the question demands; for a base that is not quantized yet.

    Raises:
        UnknownNameError: there is no such setting; names the nearest.
        QueryError: a value of another kind than the setting takes, or a sequence that is longer
            than the model takes.
    """
    if isinstance(given, Settings):
        if model is not None:
            _check_length(given, model)
        return given
    if given is not None and not isinstance(given, Mapping):
        raise QueryError(f"expected settings by name, got {shown(given)}", keyword="training")
    found: dict[str, Any] = {}
    for name, value in (given or {}).items():
        key = str(name).strip().lower().replace("-", "_")
        if key not in Settings.model_fields:
            raise UnknownNameError("setting of training", str(name), Settings.model_fields)
        found[key] = None if value == "none" else value
        if key == "quantization" and isinstance(found[key], str):
            found[key] = backend_of(found[key])
    if model is not None:
        if model.dtype in get_args(Dtype):
            found.setdefault("dtype", model.dtype)
        found.setdefault("quantization", model.quantization or quantization)
        _store_alike(found, model)
        longest = model.dimensions.max_positions
        if longest is not None:
            usual = Settings.model_fields["sequence_length"].default
            found.setdefault("sequence_length", min(usual, longest))
    settings = _validated(Settings, "training", found)
    if model is not None:
        _check_length(settings, model)
    return settings


def _store_alike(found: dict[str, Any], model: Structure) -> None:
    """Adds bits and groups of a base that is quantized already, as its files state them."""
    stored = model.stored_quantization
    if stored is None or model.quantization is None or found["quantization"] != model.quantization:
        return
    if stored.bits in {2, 3, 4, 8}:
        found.setdefault("quantization_bits", int(stored.bits))
    if stored.group_size is not None:
        found.setdefault("group_size", stored.group_size)


class AskedStep(NamedTuple):
    """A training step as it was asked for.

    Attributes:
        settings: with every default filled in.
        fixed: fields that were stated.
        effective_batch: sequences or images behind one step of the optimizer.
    """

    settings: Settings
    fixed: tuple[str, ...]
    effective_batch: int


def read_training(
    given: Settings | Mapping[str, Any] | None,
    model: Structure | None,
    quantization: str | None = None,
) -> AskedStep:
    """The training step that `given` stands for, and what of it was stated.

    A mapping may have `effective_batch` besides the fields of `Settings`.

    Args:
        given: the settings; of a record those fields count as stated that were set.
        model: what is trained.
        quantization: backend that the question demands.

    Raises:
        UnknownNameError: there is no such setting; names the nearest.
        QueryError: a value of another kind than the setting takes, a sequence that is longer than
            the model takes, or micro-batches that do not make up the effective batch.
    """
    usual = _IMAGES if model is not None and model.modality == "image" else _SEQUENCES
    if isinstance(given, Settings):
        settings = read_settings(given, model, quantization)
        fixed, effective = set(given.model_fields_set), None
    else:
        if given is not None and not isinstance(given, Mapping):
            raise QueryError(f"expected settings by name, got {shown(given)}", keyword="training")
        stated = given or {}
        folded = {str(name).strip().lower().replace("-", "_"): name for name in stated}
        fixed = set(folded) - {_EFFECTIVE}
        effective = _whole(stated[folded[_EFFECTIVE]]) if _EFFECTIVE in folded else None
        rest = {name: value for name, value in stated.items() if name != folded.get(_EFFECTIVE)}
        settings = read_settings(rest, model, quantization)
    if quantization is not None:
        fixed |= {"quantization"}
    parts = settings.batch_size if "batch_size" in fixed else 1
    parts *= settings.accumulation if "accumulation" in fixed else 1
    if effective is not None and (effective % parts or _overstated(fixed, effective, parts)):
        raise QueryError(
            f"training: an effective batch of {effective} cannot be made of micro-batches of "
            f"{settings.batch_size}"
            + (f", {settings.accumulation} at a time" if "accumulation" in fixed else "")
        )
    if effective is None:
        whole = {"batch_size", "accumulation"} <= fixed
        effective = parts if whole else max(parts, usual)
    elif "batch_size" not in fixed:
        # what is not split is one piece, wherever no setup is chosen
        update = {"batch_size": effective // parts}
        settings = settings.model_copy(update=update)
    elif "accumulation" not in fixed:
        settings = settings.model_copy(update={"accumulation": effective // parts})
    return AskedStep(settings, tuple(sorted(fixed)), effective)


def _overstated(fixed: Collection[str], effective: int, parts: int) -> bool:
    return {"batch_size", "accumulation"} <= set(fixed) and effective != parts


def _whole(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, bool):
        message = f"effective_batch: expected a number from 1, got {shown(value)}"
        raise QueryError(message, keyword="training")
    return number


def _check_length(settings: Settings, model: Structure) -> None:
    longest = model.dimensions.max_positions
    if longest is not None and settings.sequence_length > longest:
        msg = (
            f"sequence_length {settings.sequence_length} is more than the {longest} "
            f"positions that {model.name} takes"
        )
        raise QueryError(msg, keyword="training")


def _validated(record: type[Options], option: str, found: dict[str, Any]) -> Options:
    try:
        made = record.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"{where}: {first['msg'].lower()}, got {shown(first['input'])}"
        raise QueryError(msg, keyword=option) from None
    for name, value in made:
        if isinstance(value, int) and abs(value) > _LARGEST:
            message = f"{name}: {shown(value)} is more than anything takes"
            raise QueryError(message, keyword=option)
    return made


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in re.split(r"[,\s]+", value) if part)
    return tuple(value) if isinstance(value, list) else value


def _check_names(key: str, value: Any) -> None:
    names = value if isinstance(value, Collection) and not isinstance(value, str) else (value,)
    for name in names if value is not None else ():
        if not isinstance(name, str):
            raise QueryError(f"{key}: expected names, got {shown(name)}", keyword="adapt")
        if name not in _LISTS[key]:
            kind = "role" if key == "roles" else "task type"
            raise UnknownNameError(kind, name, _LISTS[key], keyword="adapt")


def read_memory(
    device: Quantity | None, most: Quantity | None = None, *, dtype: str
) -> MemoryLimit | None:
    """The memory that a device or a limit leaves to a training step; `None` without either.

    Args:
        device: name or size of a device.
        most: greatest peak memory, instead of a device.
        dtype: of the step, which not every device computes in.

    Raises:
        InputError: both, or one that cannot be read.
    """
    if device is None and most is None:
        return None
    if device is not None and most is not None:
        both = (Keyword("device"), " and ", Keyword("max_memory"))
        raise QueryError(*both, " limit the memory: give one of them")
    if device is None:
        limit = read_quantity(0 if most is None else most, "bytes", name="max_memory")
        text = most if isinstance(most, str) else format_quantity(limit, "bytes")
        return MemoryLimit(bytes=int(limit), text=text)
    from peft_shop.forecast.devices import device_of  # noqa: PLC0415 - only where a device is named

    found = device_of(device)
    return MemoryLimit(
        bytes=found.usable_bytes,
        text=str(device),
        device=found.name,
        cautions=found.cautions_in(dtype),
        count=found.count,
    )


def default_benchmark(catalog: Catalog, model: Structure | None) -> Benchmark | None:
    """The benchmark whose order says something of `model`; the catalog's first without a model.

    A trial of the user's own is evidence for the models of its kind, whichever they are.
    `None` where no order does: a benchmark of text says nothing of a ResNet. A diffusion backbone
    that was not measured gets the benchmark of images, a model with a language model in it the
    first: as a guess, which the answer tells.
    """
    if model is None:
        return catalog.benchmarks[0]
    own = catalog.benchmarks[0]
    if own.protocol is not None and own.modality == _modality(catalog, model):
        return own
    if model.benchmark is not None and model.benchmark in catalog.benchmark_by_id:
        return catalog.benchmark_by_id[model.benchmark]
    kind = _GUESSES.get(model.modality)
    usual = (benchmark for benchmark in catalog.benchmarks if not benchmark.on_request)
    return next((one for one in usual if one.modality == kind), None)


def _modality(catalog: Catalog, model: Structure) -> str | None:
    """Of the benchmark that is evidence for `model`, or a guess at it."""
    known = catalog.benchmark_by_id.get(model.benchmark or "")
    return _GUESSES.get(model.modality) if known is None else known.modality
