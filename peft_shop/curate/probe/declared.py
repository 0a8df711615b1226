"""What peft's source says of quantized bases: the weakest evidence, until a backend is tried."""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from peft_shop.catalog.features import QuantizationBackend
from peft_shop.curate.probe.judgement import found

if TYPE_CHECKING:
    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench

__all__ = ["ELSEWHERE", "declared_quantization"]

ELSEWHERE: Final = {"eetq": "on a GPU", "inc": "on a Gaudi accelerator"}
"""Where backends run whose layers do not train on a CPU."""

_MARKS: Final[dict[str, tuple[str, ...]]] = {
    "aqlm": ("dispatch_aqlm", "is_aqlm_available"),
    "awq": ("dispatch_awq", "is_auto_awq_available", "is_gptqmodel_available"),
    "bnb_4bit": ("is_bnb_4bit_available", "Linear4bit", '"bnb 4bit"'),
    "bnb_8bit": ("is_bnb_available", "Linear8bitLt", '"bnb 8bit"'),
    "eetq": ("dispatch_eetq", "is_eetq_available"),
    "gptq": ("dispatch_gptq", "get_auto_gptq_quant_linear", "is_gptqmodel_available"),
    "hqq": ("dispatch_hqq", "is_hqq_available"),
    "inc": ("dispatch_inc", "is_inc_available"),
    "torchao": ("dispatch_torchao", "is_torchao_available"),
}
"""Names in a tuner's own source that show that it was written for a backend."""
_COMMON: Final = "resolve_quantization_backend"
"""What a tuner calls that leaves backends to peft's common code for them."""


@cache
def _source(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    folder = Path(next(iter(spec.submodule_search_locations)))
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    if _COMMON in text:
        text += (folder.parents[1] / "utils" / "quantization_utils.py").read_text(encoding="utf-8")
    return text


def declared_quantization(bench: Bench) -> dict[str, Capability]:
    """What peft's source declares for every quantization backend."""
    module = inspect.getmodule(bench.config_class)
    package = module.__name__.rpartition(".")[0] if module is not None else ""
    source = _source(package)
    answers = {}
    for backend in get_args(QuantizationBackend):
        settles = f"training with it {ELSEWHERE.get(backend, 'on a CPU')} settles it"
        if bench.prompt:
            note = f"does not touch the quantized layers; {settles}"
            answer = found("unknown", "declared", note)
        elif any(mark in source for mark in _MARKS[backend]):
            answer = found("yes", "declared", f"peft has code for it, not tried; {settles}")
        else:
            answer = found("unknown", "declared", f"peft has no code for it; {settles}")
        answers[f"quantization.{backend}"] = answer
    return answers
