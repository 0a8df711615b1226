"""Changes of weights -> a plain LoRA in a folder: one rank, scale 1, keys as peft has them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import LoraConfig, convert_to_lora
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import safe_open
from torch import nn

from peft_shop.conversion import factors as thin
from peft_shop.conversion.reading import PREFIX, WEIGHTS_FILE
from peft_shop.conversion.report import HALF_TOLERANCE, TOLERANCE, LayerReport
from peft_shop.conversion.writing import DTYPES, TensorEntry, write_tensors
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.deltas import LayerChange
    from peft_shop.conversion.keys import Keys
    from peft_shop.conversion.layers import Adapted
    from peft_shop.conversion.plan import Plan
    from peft_shop.conversion.ranks import Request
    from peft_shop.conversion.reading import AdapterFolder

__all__ = ["LoraParts", "refuse_biases", "target_modules"]

_PEFT_SIDE: Final = 1024
"""peft decomposes whole matrices: with a smaller side above this that takes too long."""
_EXACT: Final = 1e-4
"""An error [1] below which a conversion counts as exact."""


@dataclass
class LoraParts:
    """Factors of layers as they are made, kept on disk until the common rank is known.

    Attributes:
        scratch: folder for them.
        request: which rank was asked for.
        dtype: name of the type of the numbers.
        by_peft: whether peft's own conversion may be used, and must be.
    """

    scratch: Path
    request: Request
    dtype: str
    by_peft: bool
    must_be_peft: bool = False
    layers: list[LayerReport] = field(default_factory=list)
    kernels: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """The common rank: the highest of all layers, or the one that was asked for."""
        if self.request.kind == "rank":
            return self.request.rank
        return max([1, *(layer.rank for layer in self.layers)])

    @property
    def tolerance(self) -> float:
        """Largest error and deviation [1] that count as done, where the user gives none."""
        return TOLERANCE if self.dtype == "float32" else HALF_TOLERANCE

    @property
    def judges_layers(self) -> bool:
        """Whether the layers' errors decide, besides the outputs."""
        return True

    def add(self, change: LayerChange, adapted: Adapted | None, *, way: str) -> None:
        """Takes the factors of one layer's change.

        Raises:
            ConversionError: the layer cannot have such a rank, or no LoRA at all.
        """
        made, used = self._factors(change, adapted, way)
        number = len(self.layers)
        made.error = thin.error_of(change.delta, made.a, made.b)
        write_tensors(
            self.scratch / f"{number}.safetensors",
            [
                TensorEntry("a", tuple(made.a.shape), made.a.dtype, lambda: made.a),
                TensorEntry("b", tuple(made.b.shape), made.b.dtype, lambda: made.b),
            ],
            {},
        )
        self.kernels.append(change.kernel)
        self.layers.append(
            LayerReport(
                name=change.name,
                kind=change.kind,
                shape=tuple(change.delta.shape),
                way=used,
                rank=made.rank,
                full_rank=made.full_rank,
                size=change.size,
                error=made.error,
            )
        )

    def _factors(
        self, change: LayerChange, adapted: Adapted | None, way: str
    ) -> tuple[thin.Factors, Any]:
        delta, asked, dtype = change.delta, self.request, DTYPES[self.dtype]
        side = min(delta.shape)
        if asked.kind == "rank" and asked.rank > side:
            raise ConversionError(
                f"rank {asked.rank}: {change.name} is {delta.shape[0]} x {delta.shape[1]}, so "
                f"that no rank above {side} means anything there; ask for at most that, or 'auto'"
            )
        if self.by_peft and adapted is not None and way == "generic":
            tried = self._by_peft(change, adapted, side, dtype)
            if tried is not None:
                return tried, "peft"
        nothing = max(thin.EXACT, 8 * change.noise)
        allowed = {"auto": nothing, "share": max(asked.allowed, nothing), "rank": 0.0}[asked.kind]
        found = thin.decompose(delta, most=asked.rank, allowed=allowed, first=asked.first)
        full = found.least(nothing)
        rank = asked.rank if asked.kind == "rank" else found.least(allowed)
        if rank is None or rank > asked.rank:
            rank = min(asked.rank, side)
        known = asked.first if asked.kind == "auto" else None
        if known is not None and known < rank and found.missing(known) <= _EXACT:
            rank = full = known  # what is beyond the configured rank is peft's own rounding
        return thin.factors(found, rank, full_rank=full, dtype=dtype), way

    def _by_peft(self, change: LayerChange, adapted: Adapted, side: int, dtype: Any) -> Any:
        asked = self.request
        rank = asked.first if asked.kind == "auto" else asked.rank
        small = side <= _PEFT_SIDE or adapted.model.active_peft_config.peft_type == "MISS"
        if asked.kind == "share" or rank is None or rank > asked.rank:
            if self.must_be_peft:
                raise ConversionError("peft's own conversion needs a whole rank here")
            return None
        if change.kind not in {"linear", "conv1d"} or not (small or self.must_be_peft):
            return None
        holder = nn.Module()
        holder.add_module("layer", adapted.layer)
        holder.peft_config = adapted.model.peft_config
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the layers were chosen for it
                _, state = convert_to_lora(holder, rank=min(rank, side))
        except (TypeError, ValueError, RuntimeError) as error:
            if self.must_be_peft:
                raise ConversionError(
                    f"{change.name}: peft does not convert it: {error}"
                ) from error
            return None  # not every type of layer of a method that it converts
        (a,) = (one for key, one in state.items() if "lora_A" in key)
        (b,) = (one for key, one in state.items() if "lora_B" in key)
        off = thin.error_of(change.delta, a, b)
        nothing = max(_EXACT, 8 * change.noise)
        if asked.kind == "auto":
            if off > nothing and not self.must_be_peft:
                return None
            a, b = _trimmed(a, b)
        full = int(a.shape[0]) if off <= nothing else None
        return thin.Factors(a.to(dtype).contiguous(), b.to(dtype).contiguous(), 0.0, full)

    # --- the folder ---

    def write(
        self, folder: Path, source: AdapterFolder, base: BaseWeights, found: Plan
    ) -> LoraConfig:
        """Writes configuration and weights; gives the configuration.

        Raises:
            ConversionError: the layers cannot be named in a configuration.
        """
        names = [layer.name for layer in self.layers]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,
            lora_dropout=0.0,
            target_modules=target_modules(base.skeleton(), names),
            task_type=source.config.get("task_type"),
            modules_to_save=_saved_modules(source, found) or None,
            fan_in_fan_out=any(layer.kind == "conv1d" for layer in self.layers),
            base_model_name_or_path=source.config.get("base_model_name_or_path") or base.name,
            revision=source.config.get("revision"),
            inference_mode=True,
        )
        if config.task_type is None:  # then peft tells the model's class instead
            kind = type(base.skeleton())
            config.auto_mapping = {
                "base_model_class": kind.__name__,
                "parent_library": kind.__module__,
            }
        config.save_pretrained(str(folder))
        entries = [*self._entries(), *_whole_modules(source, found.saved)]
        write_tensors(folder / WEIGHTS_FILE, entries, {"format": "pt"})
        return config

    def write_for_engine(self, file: Path, keys: Keys) -> None:
        """Writes the same matrices once more, under the names that an engine reads."""
        down, up, scale = keys.ends
        ends = {"a": down, "b": up}
        entries = []
        for number, layer in enumerate(self.layers):
            start = keys.key(layer.name)
            for part, _, shape in self._parts(number):
                read = _Padded(self.scratch, number, part, shape)
                entries.append(
                    TensorEntry(f"{start}.{ends[part]}", shape, DTYPES[self.dtype], read)
                )
            if scale:
                entries.append(TensorEntry(f"{start}.{scale}", (), torch.float32, self._scale))
        write_tensors(file, entries, {"format": "pt"})

    def _scale(self) -> Any:
        """What kohya calls alpha: at the rank itself the matrices' product counts once."""
        return torch.tensor(float(self.rank))

    def size(self) -> int:
        """Bytes of the layers in the output."""
        return sum(entry.size for entry in self._entries())

    def _entries(self) -> list[TensorEntry]:
        dtype = DTYPES[self.dtype]
        return [
            TensorEntry(
                f"{PREFIX}{layer.name}.{end}", shape, dtype, _Padded(self.scratch, n, part, shape)
            )
            for n, layer in enumerate(self.layers)
            for part, end, shape in self._parts(n)
        ]

    def _parts(self, number: int) -> list[tuple[str, str, tuple[int, ...]]]:
        """Both matrices of a layer: which, the end of peft's key, the shape in the file."""
        layer, kernel, rank = self.layers[number], self.kernels[number], self.rank
        rows, columns = layer.shape
        if layer.kind == "embedding":
            return [
                ("a", "lora_embedding_A", (rank, columns)),
                ("b", "lora_embedding_B", (rows, rank)),
            ]
        if layer.kind == "convolution":
            ones = (1,) * (len(kernel) - 1)
            return [
                ("a", "lora_A.weight", (rank, *kernel)),
                ("b", "lora_B.weight", (rows, rank, *ones)),
            ]
        return [("a", "lora_A.weight", (rank, columns)), ("b", "lora_B.weight", (rows, rank))]


def _trimmed(a: Any, b: Any) -> tuple[Any, Any]:
    """Factors without the singular values that are zero, where they are singular vectors."""
    if float((a @ a.T - torch.eye(a.shape[0])).norm()) > _EXACT * a.shape[0]:
        return a, b  # MiSS has factors of its own
    tails = (b.double() ** 2).sum(0).flip(0).cumsum(0).flip(0).sqrt()
    kept = max(1, int((tails > thin.EXACT * tails[0]).sum()))
    return a[:kept], b[:, :kept]


@dataclass(frozen=True)
class _Padded:
    """One matrix of a layer, with zeros up to the common rank."""

    scratch: Path
    number: int
    part: str
    shape: tuple[int, ...]

    def __call__(self) -> Any:
        with safe_open(self.scratch / f"{self.number}.safetensors", framework="pt") as file:
            tensor = file.get_tensor(self.part)
        count = torch.Size(self.shape).numel()
        first = self.shape[0] if self.part == "a" else self.shape[1]
        whole = tensor.new_zeros(
            (first, count // first) if self.part == "a" else (self.shape[0], first)
        )
        whole[: tensor.shape[0], : tensor.shape[1]] = tensor
        return whole.reshape(self.shape)


def _saved_modules(source: AdapterFolder, found: Plan) -> list[str]:
    """`modules_to_save`, and tied modules that peft saved with them."""
    named = list(source.config.get("modules_to_save") or ())
    if source.config.get("ensure_weight_tying"):
        owners = dict.fromkeys(found.saved.values())
        named += [name for name in owners if not any(name.endswith(one) for one in named)]
    return named


def _whole_modules(source: AdapterFolder, saved: Mapping[str, str]) -> Iterable[TensorEntry]:
    """Modules that were trained whole, as they are."""
    for key in saved:
        tensor = source.tensors([key])[key]
        yield TensorEntry(key, tuple(tensor.shape), tensor.dtype, _Stored(source, key))


@dataclass(frozen=True)
class _Stored:
    """A tensor of the adapter's file."""

    source: AdapterFolder
    key: str

    def __call__(self) -> Any:
        return self.source.tensors([self.key])[self.key]


def target_modules(skeleton: Any, names: Sequence[str]) -> list[str]:
    """Shortest `target_modules` that match the named modules and no others.

    Raises:
        ConversionError: peft would match others with any.
    """
    wanted = set(names)
    modules = [name for name, _ in skeleton.named_modules() if name]
    chosen: dict[str, None] = {}
    for name in names:
        suffix = name.rpartition(".")[2]
        alike = {module for module in modules if module == suffix or module.endswith(f".{suffix}")}
        chosen[suffix if alike <= wanted else name] = None
    config = LoraConfig(target_modules=list(chosen))
    matched = {name for name in modules if bool(check_target_module_exists(config, name))}
    if matched != wanted:
        odd = min(matched ^ wanted)
        raise ConversionError(f"peft cannot tell {odd} from the adapted layers by its name")
    return sorted(chosen)


def refuse_biases(change: LayerChange) -> None:
    """Refuses a layer whose change is more than a weight that LoRA knows.

    Raises:
        ConversionError: it is.
    """
    if change.delta is None:
        raise ConversionError(
            f"{change.name}: the adapter changes {', '.join(sorted(change.new)) or 'it'} of a "
            f"layer that LoRA does not adapt; merge it instead (--to merged)"
        )
    if change.bias:
        raise ConversionError(
            f"{change.name}: the adapter changes its bias too, which a plain LoRA cannot; merge it "
            "instead (--to merged)"
        )
    if change.groups != 1:
        raise ConversionError(
            f"{change.name}: a convolution in {change.groups} groups, for which LoRA has no plain "
            "form; merge it instead (--to merged)"
        )
