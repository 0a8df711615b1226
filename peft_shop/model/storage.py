"""How a checkpoint stores its weights, from what its files say of quantization; no torch.

Sources of the keys: the quantization configurations of transformers 5.23, the exporters of
compressed-tensors, ModelOpt, Quark, AutoRound, ExLlama and MLX. Widths with scales are those of the
formats themselves: MX blocks share one byte among 32 weights, NVFP4 one among 16.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from peft_shop.model.datatypes import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Storage", "storage_of", "storage_of_types"]

_FLOATS: Final[dict[str, tuple[float, float]]] = {
    "mxfp4": (4, 1 / 32),
    "mxfp6": (6, 1 / 32),
    "mxfp8": (8, 1 / 32),
    "nvfp4": (4, 1 / 16),
    "fp8": (8, 0),
    "bitnet": (2, 0),
    "eetq": (8, 0),
}
"""Formats whose name says all: bits of a weight, and bytes of scales a weight."""
_KEPT: Final = (
    "modules_to_not_convert", "llm_int8_skip_modules", "ignore", "ignored_layers", "exclude",
    "exclude_modules", "modules_to_exclude", "exclude_layers",
)  # fmt: skip
"""Where the libraries list what they left as it was."""
_BITS: Final = ("bits", "w_bit", "nbits", "num_bits", "wbits", "weight_bits")
_GROUPS: Final = ("group_size", "q_group_size", "weight_group_size")
_WIDTH: Final = re.compile(r"(?:^|[^a-z])(?:u?int|float|fp|mx|w|e\dm\d_?)_?(\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class Storage:
    """What the files say.

    Attributes:
        name: of the format or of the backend.
        bits: of one weight, without scales.
        group_size: weights that share one scale.
        scales: bytes of scales and zeros a weight.
        kept: names and patterns of what is not stored so.
        experts_only: whether only weights of experts are.
        double: bitsandbytes 4-bit: whether the scales are quantized once more.
    """

    name: str
    bits: float | None = None
    group_size: int | None = None
    scales: float = 0.0
    kept: tuple[str, ...] = ()
    experts_only: bool = False
    double: bool = False

    @property
    def bytes_per_weight(self) -> float | None:
        """Scales included [B]; `None` where the width is not known."""
        return None if self.bits is None else self.bits / 8 + self.scales


# --- what the files say ---


def storage_of(config: Any, files: Mapping[str, Any] | None = None) -> Storage | None:
    """How the weights are stored; `None` where nothing says that they are quantized.

    Args:
        config: of transformers or diffusers, as an object or as its JSON.
        files: other JSON files of the folder by name, such as `hf_quant_config.json`.
    """
    for name in ("hf_quant_config.json", "quantize_config.json", "quant_config.json"):
        content = (files or {}).get(name)
        if isinstance(content, Mapping):
            inner = content.get("quantization")
            usual = {"quant_method": "awq" if name == "quant_config.json" else "gptq"}
            if name == "hf_quant_config.json":
                usual = {"quant_method": "modelopt"}
            settings = inner if isinstance(inner, Mapping) else content
            storage = _read(usual | dict(settings))
            if storage is not None:
                return storage
    if isinstance((files or {}).get("quanto_qmap.json"), Mapping):
        return Storage("quanto")
    for settings in _statements(config):
        storage = _read(settings)
        if storage is not None:
            return storage
    return None


def storage_of_types(elements: Mapping[str, int]) -> Storage | None:
    """The same from the types of the weights, for a model whose other files say nothing.

    Args:
        elements: by the types of safetensors [count].
    """
    narrow = {name: count for name, count in elements.items() if name.startswith("F8_E")}
    # scales are stored so too, beside weights that are packed in bytes
    packed = sum(elements.get(name, 0) for name in ("U8", "I8", "I32"))
    if not narrow or 2 * sum(narrow.values()) < sum(elements.values()) or packed:
        return None
    return Storage("fp8", 8)


def _statements(config: Any) -> Iterator[dict[str, Any]]:
    """Every statement about quantization in a configuration, its parts' last."""
    for _, part in parts_of(config):
        fields = part if isinstance(part, Mapping) else vars(part)
        for name in ("quantization_config", "quantization", "compression_config"):
            stated = fields.get(name)
            as_dict = getattr(stated, "to_dict", None)
            stated = stated if as_dict is None else as_dict()
            if isinstance(stated, Mapping):
                usual = {"quant_method": "mlx"} if _is_mlx(stated) else {}
                yield usual | dict(stated)


def _is_mlx(stated: Mapping[str, Any]) -> bool:
    """MLX writes bits and group size, and no name."""
    named = ("quant_method", "method", "quant_algo", "load_in_4bit", "load_in_8bit")
    return "bits" in stated and "group_size" in stated and not any(one in stated for one in named)


def _read(stated: dict[str, Any]) -> Storage | None:
    method = stated.get("quant_method", stated.get("method"))
    method = str(getattr(method, "value", method) or "").lower()
    kept = tuple(
        one
        for key in _KEPT
        if isinstance(stated.get(key), list | tuple)
        for one in stated[key]
        if isinstance(one, str)
    )
    if "bitsandbytes" in method or (
        not method and (stated.get("load_in_4bit") or stated.get("load_in_8bit"))
    ):
        return _bitsandbytes(stated, kept)
    if stated.get("quant_algo"):
        return _modelopt(stated, kept)
    return _READERS.get(method, _grouped)(method, stated, kept) if method else None


def _number(settings: Mapping[str, Any], names: Iterable[str]) -> float | None:
    for name in names:
        value = settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 32:
            return float(value)
    return None


def _group(settings: Mapping[str, Any]) -> int | None:
    for name in _GROUPS:
        value = settings.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _grouped(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    """Whole numbers in groups that share a scale of two bytes, and a zero or an offset."""
    bits, group = _number(stated, _BITS), _group(stated)
    scales = 0.0
    if bits is not None and group is not None:
        zero = 2 if name in {"mlx", "metal"} else bits / 8
        scales = (2 + zero) / group
    # a mean of layers with different widths includes the scales already
    return Storage(name, bits, group, 0.0 if name.startswith("exl") else scales, kept)


def _bitsandbytes(stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    if stated.get("load_in_8bit"):
        return Storage("bnb_8bit", 8, kept=kept)
    double = bool(stated.get("bnb_4bit_use_double_quant"))
    scales = 1 / 64 + 4 / (64 * 256) if double else 4 / 64
    return Storage("bnb_4bit", 4, 64, scales, kept, double=double)


def _modelopt(stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    algorithm = str(stated["quant_algo"]).lower()
    layers = stated.get("quantized_layers")
    if isinstance(layers, Mapping):
        named = Counter(
            str(layer["quant_algo"]).lower()
            for layer in layers.values()
            if isinstance(layer, Mapping) and layer.get("quant_algo")
        )
        algorithm = named.most_common(1)[0][0] if named else algorithm
    for name, (bits, scales) in _FLOATS.items():
        if name in algorithm:
            return Storage(f"{algorithm} (modelopt)", bits, _group(stated), scales, kept)
    width = _WIDTH.search(algorithm)
    group = _group(stated)
    return Storage(
        f"{algorithm} (modelopt)",
        float(width[1]) if width else None,
        group,
        2 / group if group else 0.0,
        kept,
    )


def _compressed(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage | None:
    kind = str(stated.get("format") or "")
    groups = stated.get("config_groups")
    weights = [
        one["weights"]
        for one in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(one, Mapping) and isinstance(one.get("weights"), Mapping)
    ]
    if kind == "dense":
        return None  # pruned or calibrated, stored whole
    for known, (bits, scales) in _FLOATS.items():
        if known in kind:
            return Storage(f"{name} ({known})", bits, scales=scales, kept=kept)
    if not weights:
        return Storage(name, kept=kept)
    # where parts have different widths the widest counts: rather too much than too little
    widest = max(weights, key=lambda weight: _number(weight, _BITS) or 0)
    bits_, group = _number(widest, _BITS), _group(widest)
    scales = (
        2 / group if group else _block_scales({"weight_block_size": widest.get("block_structure")})
    )
    return Storage(name, bits_, group, scales, kept)


def _quark(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    whole = stated.get("global_quant_config")
    weight = whole.get("weight") if isinstance(whole, Mapping) else None
    if isinstance(weight, list | tuple):
        weight = next((one for one in weight if isinstance(one, Mapping)), None)
    if not isinstance(weight, Mapping):
        return Storage(name, kept=kept)
    kind = str(weight.get("dtype") or "").lower()
    group = _group(weight)
    if kind.startswith("fp4") and group == 32:
        return Storage(f"{name} (mxfp4)", 4, group, 1 / 32, kept)
    width = _WIDTH.search(kind)
    return Storage(
        name, float(width[1]) if width else None, group, 2 / group if group else 0.0, kept
    )


def _aqlm(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    books, bits = stated.get("num_codebooks", 1), stated.get("nbits_per_codebook", 16)
    inputs, outputs = stated.get("in_group_size", 8), stated.get("out_group_size", 1)
    sizes = (books, bits, inputs, outputs)
    if not all(type(size) is int and size > 0 for size in sizes):
        return Storage(name, kept=kept)
    return Storage(name, books * bits / (inputs * outputs), kept=kept)


def _hqq(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    settings = stated.get("quant_config")
    if isinstance(settings, Mapping) and "weight_quant_params" not in settings:
        # settings by kind of layer
        settings = next(
            (setting for setting in settings.values() if isinstance(setting, Mapping)), {}
        )
    inner = settings.get("weight_quant_params") if isinstance(settings, Mapping) else None
    plain = inner if isinstance(inner, Mapping) else stated
    bits, group = _number(plain, _BITS), _group(plain)
    return Storage(name, bits, group, 4 / group if group else 0.0, kept)


def _by_words(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    """Formats that name the width in a word such as `int4_weight_only` or `qint8`."""
    words: list[str] = []
    pending: list[Any] = [
        stated.get(key) for key in ("weights", "quant_type", "forward_dtype", "weight", "bits")
    ]
    while pending:
        value = pending.pop(0)
        if isinstance(value, str):
            words.append(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).lower())
        elif isinstance(value, int) and not isinstance(value, bool):
            words.append(f"int{value}")
        elif isinstance(value, Mapping):
            pending += list(value.values())[:20]
    for word in words:
        for known, (bits, scales) in _FLOATS.items():
            if known in word:
                return Storage(f"{name} ({known})", bits, scales=scales, kept=kept)
        width = _WIDTH.search(f" {word.removeprefix('q')}")
        if width:
            bits = float(width[1])
            group = _group(stated) or (128 if bits < 8 else None)
            return Storage(name, bits, group, 4 / group if group else 0.0, kept)
    return _grouped(name, stated, kept)


def _fixed(name: str, stated: Mapping[str, Any], kept: tuple[str, ...]) -> Storage:
    """Formats whose name says all."""
    known = "fp8" if "fp8" in name and name not in _FLOATS else name
    bits, scales = _FLOATS[known]
    scales += _block_scales(stated.get("weight_block_size"))
    return Storage(name, bits, scales=scales, kept=kept, experts_only=name == "mxfp4")


def _block_scales(block: Any) -> float:
    """Bytes of float32 scales a weight, one per block of these sides."""
    if not isinstance(block, list | tuple) or not all(
        type(side) is int and side > 0 for side in block
    ):
        return 0.0
    return 4 / math.prod(block) if block else 0.0


_READERS: Final[dict[str, Callable[[str, Mapping[str, Any], tuple[str, ...]], Storage | None]]] = {
    **dict.fromkeys((*_FLOATS, "fbgemm_fp8", "finegrained_fp8"), _fixed),
    **dict.fromkeys(("quanto", "torchao", "fp_quant", "svdquant", "higgs"), _by_words),
    "aqlm": _aqlm,
    "compressed-tensors": _compressed,
    "hqq": _hqq,
    "quark": _quark,
}
"""How a method's statement is read; all others name bits and a group size."""
