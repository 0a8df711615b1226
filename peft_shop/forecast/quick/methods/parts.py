"""What a closed form is made of: the modules that an adapter sits on and the tensors it adds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from peft_shop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.model.structure import LayerKind, Structure

__all__ = [
    "DTYPE_BYTES",
    "Additions",
    "Fields",
    "Kept",
    "Site",
    "Tensor",
    "category_of",
    "rank_of",
]

DTYPE_BYTES: Final[dict[str, int]] = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "float32": 4,
    "int32": 4,
    "int64": 8,
    "float64": 8,
}
"""Size of one element [B], by torch's name of the dtype."""


class Site(NamedTuple):
    """One module that the adapter wraps.

    Attributes:
        name: full name in the base model.
        pattern: the name with `*` for every index; sites of one pattern are alike.
        kind: type of layer.
        inputs: input channels; rows of an embedding.
        outputs: output channels; width of an embedding.
        bias: whether the module has a bias.
        kernel: kernel size of convolutions, else empty.
        groups: of convolutions.
        weight: elements of the weight.
        parameters: elements of all its parameters.
    """

    name: str
    pattern: str
    kind: LayerKind
    inputs: int
    outputs: int
    bias: bool = False
    kernel: tuple[int, ...] = ()
    groups: int = 1
    weight: int = 0
    parameters: int = 0


class Tensor(NamedTuple):
    """One tensor of an adapter.

    Attributes:
        name: its key in the checkpoint.
        shape: as torch holds it.
        dtype: `adapter` (float32 where peft casts adapters), `base`, or a dtype of torch.
        trained: whether it gets a gradient.
        parameter: whether peft counts it (an `nn.Parameter`, not a buffer).
        saved: whether the checkpoint holds it.
        held: whether it takes memory of its own (false for a second name of a shared tensor).
        moved: `True` for what is on the accelerator only if the model moved there after the
            adapter was added, `False` for what is there only if it did not, `None` for the rest.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "adapter"
    trained: bool = True
    parameter: bool = True
    saved: bool = True
    held: bool = True
    moved: bool | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total


class Kept(NamedTuple):
    """What one site keeps from the forward pass until its backward pass.

    Attributes:
        site: the wrapped module.
        casts: whether it keeps the input in the adapter's dtype: a copy of its own where that
            is not the base's dtype, else the input itself.
        input: whether it keeps the input itself (once for all sites that share it).
        token: per token, in the adapter's dtype [elements].
        base_token: per token, in the base's dtype [elements].
        sequence: per sequence, in the base's dtype [elements].
        weight: whatever the batch, in the adapter's dtype [elements].
        base_weight: whatever the batch, in the base's dtype [elements].
        fixed: whatever the batch [B].
        copied_weight: as `base_weight`, where buffers stayed on the CPU and every pass copies
            them, because the adapter was added to a model that was on the accelerator already.
    """

    site: Site
    casts: bool = False
    input: bool = False
    token: float = 0.0
    base_token: float = 0.0
    sequence: float = 0.0
    weight: float = 0.0
    base_weight: float = 0.0
    fixed: float = 0.0
    copied_weight: float = 0.0


@dataclass
class Additions:
    """All that a method adds to a model.

    Attributes:
        tensors: parameters and buffers, and second names of shared ones.
        kept: activations, per site.
        prompt_tokens: tokens that are put before each sequence.
        prefix_tokens: tokens for which only keys and values are put before each sequence.
        offloaded: base weights that leave the accelerator [elements].
        unsaved_because: why the size of the checkpoint is not known; empty where it is.
        notes: what a reader should know.
        rates: what was worked out of `kept`, by what it depends on.
    """

    tensors: list[Tensor] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    prompt_tokens: int = 0
    prefix_tokens: int = 0
    offloaded: int = 0
    unsaved_because: str = ""
    notes: list[str] = field(default_factory=list)
    rates: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def add(self, site: Site, suffix: str, *shape: int, **options: Any) -> None:
        """Add a tensor of the module `site`."""
        self.tensors.append(Tensor(f"base_model.model.{site.name}.{suffix}", shape, **options))

    def share(self, name: str, *shape: int, **options: Any) -> None:
        """Add a tensor that belongs to no module."""
        self.tensors.append(Tensor(name, shape, **options))


@dataclass(frozen=True)
class Fields:
    """A configuration with the defaults of its class filled in.

    Attributes:
        method: `peft_type`.
        values: every field that a closed form reads.
        structure: of the base model.
    """

    method: str
    values: Mapping[str, Any]
    structure: Structure

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def count(self, name: str) -> int:
        """A whole number that has to be positive.

        Raises:
            ConfigError: it is not.
        """
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"{self.method}: {name} must be a positive whole number, got {value!r}"
            raise ConfigError(msg)
        return value


def pattern_value(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """Value of the first key of `patterns` that matches the end of `name`, as peft looks it up."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def rank_of(fields: Fields, site: Site, name: str = "r") -> int:
    """Rank at `site`: `rank_pattern` where it matches, else the field `name`."""
    return int(pattern_value(fields.values.get("rank_pattern"), site.name, fields.count(name)))


def category_of(name: str) -> str:
    """Group of modules for which FRoD computes one shared projection (peft 0.21.2)."""
    parts = name.split(".")
    if len(parts) == 1:
        return parts[0]
    if parts[-2].isdigit():
        return parts[-1]
    found = f"{parts[-2]}_{parts[-1]}"
    if found == "output_dense" and len(parts) >= 3 and parts[-3] == "attention":
        return "attention_output"
    return found


def largest(sites: Sequence[Site]) -> tuple[int, int]:
    """Largest inputs and largest outputs among `sites`."""
    return max(site.inputs for site in sites), max(site.outputs for site in sites)


def require(condition: bool, fields: Fields, message: str) -> None:
    """Raise a `ConfigError` with the method's name in front unless `condition` holds."""
    if not condition:
        msg = f"{fields.method}: {message}"
        raise ConfigError(msg)


def linear_only(sites: Iterable[Site], fields: Fields, *more: str) -> None:
    """Refuse sites for which no closed form is known.

    Raises:
        ConfigError: a site is of another kind.
    """
    allowed = {"linear", *more}
    for site in sites:
        require(
            site.kind in allowed,
            fields,
            f"no closed form for {site.name} of kind {site.kind}; make a dry run (needs torch)",
        )
