"""Which quantization a model's layers have, and layers as quantization makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from peft_shop.catalog.features import QuantizationBackend

__all__ = ["backend_of", "quantize_skeleton", "remarks"]

_CLASSES: Final[dict[str, QuantizationBackend]] = {
    "Linear4bit": "bnb_4bit",
    "Linear8bitLt": "bnb_8bit",
    "HQQLinear": "hqq",
    "WQLinear_GEMM": "awq",
    "WQLinear_GEMV": "awq",
    "WQLinear_GEMVFast": "awq",
    "QuantizedLinear": "aqlm",
    "EetqLinear": "eetq",
    "PatchedLinear": "inc",
}
"""Classes of quantized layers, theirs and those that they inherit from."""
_PACKAGES: Final[dict[str, QuantizationBackend]] = {
    "torchao": "torchao",
    "aqlm": "aqlm",
    "eetq": "eetq",
    "hqq": "hqq",
    "neural_compressor": "inc",
}
_METHODS: Final[dict[str, QuantizationBackend]] = {
    "gptq": "gptq",
    "awq": "awq",
    "hqq": "hqq",
    "aqlm": "aqlm",
    "eetq": "eetq",
    "torchao": "torchao",
    "inc": "inc",
}


def backend_of(model: nn.Module, config: Any) -> QuantizationBackend | None:
    """Backend of the quantized layers that `model` has, or that `config` says it will have."""
    for module in model.modules():
        quantization_backend = _by_class(module)
        if quantization_backend is not None:
            return quantization_backend
    method, stated = _stated(config)
    if "bitsandbytes" in method:
        return "bnb_8bit" if stated.get("load_in_8bit") else "bnb_4bit"
    return _METHODS.get(method)


def _by_class(module: nn.Module) -> QuantizationBackend | None:
    for cls in type(module).__mro__:
        package = cls.__module__.partition(".")[0]
        quantization_backend = _CLASSES.get(cls.__name__)
        if quantization_backend:
            return quantization_backend
        if package in {"gptqmodel", "auto_gptq"} and hasattr(module, "qweight"):
            return "awq" if "awq" in cls.__name__.lower() else "gptq"
    weight = getattr(module, "weight", None)
    package = type(weight).__module__.partition(".")[0]
    return _PACKAGES.get(package)


def _stated(config: Any) -> tuple[str, dict[str, Any]]:
    """The method of quantization that a configuration names, and its settings."""
    stated = (
        config.get("quantization_config")
        if isinstance(config, dict)
        else getattr(config, "quantization_config", None)
    )
    if stated is None:
        return "", {}
    settings = stated if isinstance(stated, dict) else stated.to_dict()
    method = str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))
    if method == "None":
        method = (
            "bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else ""
        )
    return method.lower(), settings


def remarks(model: nn.Module, config: Any, backend: QuantizationBackend | None) -> Iterator[str]:
    """What a reader should know of the quantization."""
    method, _ = _stated(config)
    if method and backend is not None and not any(_by_class(module) for module in model.modules()):
        yield (
            f"Its layers are shown as they are before {backend} replaces them: load the model and "
            "pass the instance to see them as they will be."
        )


def quantize_skeleton(model: nn.Module, config: Any) -> None:
    """Replaces layers of an instance on meta as loading it would, where the backend can do that.

    Only bitsandbytes can without weights and without a GPU; all others keep their plain layers.
    """
    method, settings = _stated(config)
    if "bitsandbytes" not in method:
        return
    try:
        import bitsandbytes  # noqa: F401, PLC0415 - not installed for most, and slow
    except (ImportError, RuntimeError):
        return
    torch.set_default_dtype(model.dtype)  # for the new layers; the caller puts it back
    known = {key: value for key, value in settings.items() if not key.startswith("_")}
    known.pop("quant_method", None)
    quantizer = AutoHfQuantizer.from_config(BitsAndBytesConfig(**known), pre_quantized=False)
    quantizer.preprocess_model(model=model, dtype=model.dtype, device_map={"": "cpu"})
