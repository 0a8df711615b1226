"""Quantized bases: the tiny Llama under every backend that runs on a CPU.

Three have quirks. bitsandbytes repacks its 4-bit layers for inference on some CPUs, which stops
training silently, so that is switched off; gptqmodel's default kernel on a CPU is for inference
only, so another is named; aqlm has no quantizer, so its layers hold random codes.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import os
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import AwqConfig, BitsAndBytesConfig, GPTQConfig, LlamaForCausalLM, TorchAoConfig

from peft_shop.curate.probe.hosts import language_host
from peft_shop.curate.probe.judgement import attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.features import QuantizationBackend

__all__ = ["BACKENDS", "Backend", "QuantizedBases"]

WIDTH: Final = 128
OTHER: Final = 192
"""Widths of the quantized Llama: multiples of every backend's group and block size."""
GROUP: Final = 32
"""Weights that share a scale, for GPTQ and AWQ."""


@dataclass(frozen=True, slots=True)
class Backend:
    """How to make a quantized Llama.

    Attributes:
        module: what must be importable.
        package: the distribution whose version is recorded.
        build: folder of the float model and dtype -> quantized model.
    """

    module: str
    package: str
    build: Callable[[Path, Any], Any]

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The installed version."""
        return metadata.version(self.package)


def _load(folder: Path, dtype: Any, config: Any) -> Any:
    return LlamaForCausalLM.from_pretrained(
        str(folder),
        dtype=dtype,
        quantization_config=config,
        device_map={"": "cpu"},
        attn_implementation="eager",
    )


def _bnb_4bit(folder: Path, dtype: Any) -> Any:
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    model = _load(folder, dtype, config)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _bnb_8bit(folder: Path, dtype: Any) -> Any:
    return _load(folder, dtype, BitsAndBytesConfig(load_in_8bit=True))


def _torchao(folder: Path, dtype: Any) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return _load(folder, dtype, TorchAoConfig(Int8WeightOnlyConfig()))


def _hqq(folder: Path, dtype: Any) -> Any:
    from hqq.core.quantize import BaseQuantizeConfig, HQQBackend, HQQLinear
    from hqq.models.hf.base import AutoHQQHFModel

    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=dtype, attn_implementation="eager")
    AutoHQQHFModel.quantize_model(
        model,
        quant_config=BaseQuantizeConfig(nbits=4, group_size=64),
        compute_dtype=dtype,
        device="cpu",
    )
    HQQLinear.set_backend(HQQBackend.PYTORCH)
    return model


def _calibrated(folder: Path, dtype: Any, method: str) -> Path:
    """Folder of the model calibrated by gptqmodel, made once."""
    from gptqmodel import GPTQModel, QuantizeConfig

    out = folder / method
    if not out.is_dir():
        _tokenizer(folder)
        extra = {} if method == "gptq" else {"quant_method": "awq", "format": "gemm"}
        config = QuantizeConfig(bits=4, group_size=GROUP, **extra)
        torch.manual_seed(0)
        length = 32
        samples = [
            {"input_ids": torch.randint(0, 64, (length,)).tolist(), "attention_mask": [1] * length}
            for _ in range(16)
        ]
        model = GPTQModel.load(str(folder), config, dtype=dtype, device="cpu")
        model.quantize(samples, batch_size=1)
        model.save(str(out))
    return out


def _tokenizer(folder: Path) -> None:
    """A tokenizer of 64 made-up words: gptqmodel does not load a model without one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(64)}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "t0", "pad_token": "t0", "eos_token": "t1"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(str(folder))


def _gptq(folder: Path, dtype: Any) -> Any:
    config = GPTQConfig(bits=4, group_size=GROUP, backend="torch")
    return _load(_calibrated(folder, dtype, "gptq"), dtype, config)


def _awq(folder: Path, dtype: Any) -> Any:
    config = AwqConfig(bits=4, group_size=GROUP, backend="torch_awq")
    return _load(_calibrated(folder, dtype, "awq"), dtype, config)


def _aqlm(folder: Path, dtype: Any) -> Any:
    from aqlm import QuantizedLinear

    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=dtype, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, linear in list(parent.named_children()):
                if not isinstance(linear, torch.nn.Linear):
                    continue
                new = QuantizedLinear(
                    linear.in_features,
                    linear.out_features,
                    in_group_size=8,
                    out_group_size=1,
                    num_codebooks=1,
                    nbits_per_codebook=16,
                    bias=linear.bias is not None,
                    dtype=dtype,
                )
                books = torch.randn(new.codebooks.shape, generator=generator)
                codes = torch.randint(-(2**15), 2**15, new.codes.shape, generator=generator)
                new.codebooks.data = (books * linear.weight.std().item()).to(dtype)
                new.codes.data = codes.to(new.codes.dtype)
                new.scales.data = torch.ones_like(new.scales)
                if linear.bias is not None:
                    new.bias.data = linear.bias.data.clone()
                setattr(parent, name, new)
    return model


BACKENDS: Final[dict[QuantizationBackend, Backend]] = {
    "aqlm": Backend("aqlm", "aqlm", _aqlm),
    "awq": Backend("gptqmodel", "gptqmodel", _awq),
    "bnb_4bit": Backend("bitsandbytes", "bitsandbytes", _bnb_4bit),
    "bnb_8bit": Backend("bitsandbytes", "bitsandbytes", _bnb_8bit),
    "gptq": Backend("gptqmodel", "gptqmodel", _gptq),
    "hqq": Backend("hqq", "hqq", _hqq),
    "torchao": Backend("torchao", "torchao", _torchao),
}
"""Backends that run on a CPU."""


@dataclass
class QuantizedBases:
    """Quantized models and their dequantized twins, made once and copied for every use.

    Attributes:
        folder: where the float model lies.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="bases")))
    _models: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def quantized(
        self, name: QuantizationBackend, dtype: Any = torch.bfloat16, *, bias: bool = False
    ) -> Any:
        """A fresh quantized Llama."""
        key = (name, dtype, bias)
        if key not in self._models:
            self._models[key] = self._built(name, dtype, bias=bias)
        return copy.deepcopy(self._models[key])

    def loads(self, name: QuantizationBackend, dtype: Any, *, bias: bool) -> bool:
        """Whether the backend itself computes in `dtype`: where not, no method is to blame."""
        if dtype == torch.bfloat16:
            self.quantized(name, dtype, bias=bias)  # what people load: to fail is our mistake
            return True
        key = ("loads", name, dtype, bias)
        if key not in self._models:
            self._models[key] = attempt(
                lambda: self.quantized(name, dtype, bias=bias)(torch.tensor([[1, 2]])), proven=True
            ).done
        return bool(self._models[key])

    def dequantized(
        self, backend: QuantizationBackend, dtype: Any = torch.bfloat16, *, bias: bool = False
    ) -> Any:
        """A fresh float Llama whose layers compute what the quantized ones do."""
        key = ("dequantized", backend, dtype, bias)
        if key not in self._models:
            model = self._float(bias=bias).to(dtype)
            quantized = self.quantized(backend, dtype, bias=bias).eval()
            for layer, source in zip(model.model.layers, quantized.model.layers, strict=True):
                for block in ("self_attn", "mlp"):
                    for child, linear in getattr(layer, block).named_children():
                        if isinstance(linear, torch.nn.Linear):
                            _imitate(linear, getattr(getattr(source, block), child), dtype)
            # AWQ moves scales into the norms
            norms = dict(quantized.named_parameters())
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.data = norms[name].detach().clone().to(dtype)
            self._models[key] = model
        return copy.deepcopy(self._models[key])

    def _float(self, *, bias: bool) -> Any:
        return language_host(width=WIDTH, other=OTHER, bias=bias).model

    def _built(self, name: QuantizationBackend, dtype: Any, *, bias: bool) -> Any:
        folder = self.folder / ("biased" if bias else "plain")
        if not (folder / "config.json").is_file():
            self._float(bias=bias).save_pretrained(str(folder))
        # read when gptqmodel is imported: it would start a worker for each of a server's cores
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            model = BACKENDS[name].build(folder, dtype)
        model.config.use_cache = False
        return model.train()


def _imitate(linear: Any, quantized: Any, dtype: Any) -> None:
    """Give `linear` the weights that the quantized layer's forward shows, whatever it stores."""
    with torch.no_grad():
        bias = quantized(torch.zeros(1, linear.in_features, dtype=dtype))
        weight = quantized(torch.eye(linear.in_features, dtype=dtype)) - bias
        linear.weight.data = weight.T.contiguous().to(dtype)
        if linear.bias is not None:
            linear.bias.data = bias[0].contiguous().to(dtype)
