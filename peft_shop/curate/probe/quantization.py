"""Training on really quantized bases, and comparing with the same adapter on a dequantized one."""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import torch
from peft import PeftModel, prepare_model_for_kbit_training

from peft_shop.catalog.methods import ONLY_LOADED, ONLY_PREPARED
from peft_shop.curate.probe.bases import BACKENDS, QuantizedBases
from peft_shop.curate.probe.bench import deviation, logits, randomise, trainable, wrapped_layers
from peft_shop.curate.probe.declared import declared_quantization
from peft_shop.curate.probe.judgement import Outcome, attempt, found, order, span
from peft_shop.curate.probe.training import train

if TYPE_CHECKING:
    from peft_shop.catalog.features import QuantizationBackend, Support
    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench
    from peft_shop.curate.probe.hosts import Host

__all__ = ["ENVIRONMENT", "probe_quantization"]

ENVIRONMENT: Final = "cpu_quantized"
"""Key of the environment with the quantization packages."""
AGREES: Final = 0.95
"""Least cosine [1] between the adapter's effect on the quantized and on the dequantized base."""
AGREES_ROUNDED: Final = 0.9
"""The same where the backend rounds the activations too, which the dequantized base does not."""
CLOSE: Final = 0.1
"""Largest deviation [1] of bf16 outputs that should be equal: bf16 rounding, twice."""
EFFECT: Final = 0.3
"""Effect [1] of the randomised adapter, well above bf16 rounding."""

OTHER_KERNELS: Final = frozenset({"aqlm"})
"""Backends whose code for a CPU fails where that for a GPU, which peft was written for, may not."""
FOREIGN: Final = frozenset({"aqlm", "awq", "gptq", "hqq"})
"""Backends whose layers are no `nn.Linear`, as those of EETQ and Intel Neural Compressor."""

Mode: TypeAlias = Literal["loaded", "prepared"]


@cache
def _bases() -> QuantizedBases:
    return QuantizedBases()


def probe_quantization(bench: Bench) -> dict[str, Capability]:
    """Support of every backend: tried where it is installed and runs on a CPU."""
    answers = declared_quantization(bench)
    refused = []
    for name, backend in BACKENDS.items():
        if not backend.available or bench.device != "cpu":
            continue
        declared = answers[f"quantization.{name}"]
        answer = _quantized(bench, name)
        note = answer.note or ""
        if name in OTHER_KERNELS and declared.support == "yes" and note.startswith("failed"):
            # the failure may be the CPU kernel's: peft was written for the other one
            note = f"{note} with the CPU kernel; peft has code for it, and a GPU settles it"
            answer = answer.model_copy(update={"support": "unknown", "note": note})
        if note.startswith("refused") and name in FOREIGN:
            refused.append(name)
        answers[f"quantization.{name}"] = answer
    if len(refused) >= 2:
        names = " and ".join(refused)
        for key, answer in answers.items():
            if answer.support == "unknown" and answer.level == "declared":
                said = f"takes no layer but `nn.Linear`: refused those of {names} when tried"
                answers[key] = found("no", "declared", said, environment=ENVIRONMENT)
    return answers


def _quantized(bench: Bench, name: QuantizationBackend) -> Capability:
    measured: dict[str, float] = {}
    failures: dict[Mode, Outcome] = {}
    problems: dict[Mode, str] = {}
    modes: tuple[Mode, ...] = ("loaded", "prepared")
    for mode in modes:
        outcome = attempt(partial(_trains, bench, name, mode, measured), proven=True)
        problem = outcome.value if outcome.done else outcome.note
        if problem is not None:
            problems[mode] = problem
            failures[mode] = outcome
    if len(problems) == 2:
        level = failures["loaded"].level
        if failures["loaded"].done and measured:
            level = "verified"
        note = problems["loaded"]
        return found("no", level, note, environment=ENVIRONMENT, measured=measured)
    working: Mode = "prepared" if "loaded" in problems else "loaded"
    notes = []
    if "loaded" in problems:
        notes.append(f"{ONLY_PREPARED}; before: {problems['loaded']}")
    elif "prepared" in problems:
        notes.append(f"{ONLY_LOADED}; prepared for k-bit training: {problems['prepared']}")
    kept = attempt(partial(_reloads, bench, name, working, measured), proven=True)
    said = kept.value if kept.done else kept.note
    if said is not None:
        notes.append(f"reloading: {said}")
    support: Support = "partial" if notes else "yes"
    merges = attempt(partial(_merges, bench, name, working, measured), proven=True)
    said = merges.value if merges.done else merges.note
    if said is not None:
        notes.append(f"merging: {said}")
    whole = "; ".join(notes) or None
    level = "verified" if f"cosine_{working}" in measured else "trained"
    return found(support, level, whole, environment=ENVIRONMENT, measured=measured)


def _host(bench: Bench, name: QuantizationBackend, mode: Mode, *, quantized: bool = True) -> Host:
    host = bench.language_host()
    bases = _bases()
    host.model = bases.quantized(name) if quantized else bases.dequantized(name)
    if mode == "prepared":
        host.model = prepare_model_for_kbit_training(host.model, use_gradient_checkpointing=False)
    return host


def _trains(  # noqa: PLR0911 - a ladder of verdicts
    bench: Bench, name: QuantizationBackend, mode: Mode, measured: dict[str, float]
) -> str | None:
    """Why training does not work, or `None`."""
    host = _host(bench, name, mode)
    twin = _host(bench, name, mode, quantized=False)
    base, twin_base = logits(host.model, host), logits(twin.model, twin)
    own = {id(item) for item in [*host.model.parameters(), *host.model.buffers()]}
    twin_model = bench.language_model(twin)
    twin_start = deviation(logits(twin_model, twin), twin_base)
    model = bench.language_model(host)
    wrapped, expected = len(wrapped_layers(model)), len(wrapped_layers(twin_model))
    if wrapped < expected:
        return f"wraps {wrapped} of {expected} layers without a word"
    if twin_start < CLOSE / 10 and deviation(logits(model, host), base) > CLOSE:
        return "a fresh adapter changes the outputs"
    if randomise(model, host, least=EFFECT, required=False) < CLOSE / 10:
        return "its weights have no effect on the outputs"
    if _transfer(model, twin_model, own):  # QA-LoRA, for one, has other shapes on a float base
        here = logits(model, host) - base
        there = logits(twin_model, twin) - twin_base
        cosine = float(torch.nn.functional.cosine_similarity(here.ravel(), there.ravel(), dim=0))
        # cut to 0.01, so that machines agree
        cut = math.floor(cosine * 100) / 100 if math.isfinite(cosine) else -1.0
        measured[f"cosine_{mode}"] = cut
        if not cosine >= (AGREES_ROUNDED if name == "bnb_8bit" else AGREES):
            return f"its effect differs from that on the dequantized base (cosine {cosine:.2f})"
    silent = set(train(copy.deepcopy(twin_model), twin, {}).silent)
    trained = train(model, host, {})
    if trained.problems:
        return trained.problems[0]
    lost = sorted(set(trained.silent) - silent)
    if lost:
        return f"no gradient for {lost[0]}, which gets one on a float base"
    with model.disable_adapter():
        if deviation(logits(model, host), base) > CLOSE:
            return "training changes the base"
    return None


def _transfer(model: Any, twin: Any, own: set[int]) -> bool:
    """Copy the adapter's tensors to the twin; whether all of them found a place."""
    places = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    learning = trainable(model)
    with torch.no_grad():
        for kind in (model.named_parameters(), model.named_buffers()):
            for name, tensor in kind:
                if id(tensor) in own or "base_layer" in name:
                    continue
                place = places.get(name)
                if place is not None and place.shape == tensor.shape:
                    place.copy_(tensor)
                elif name in learning:
                    return False
    return True


def _merges(
    bench: Bench, name: QuantizationBackend, mode: Mode, measured: dict[str, float]
) -> str | None:
    """Why merging does not work on the quantized base though it does on a float one."""
    twin = _host(bench, name, mode, quantized=False)
    plain = bench.language_model(twin)
    if not hasattr(plain, "merge_and_unload") or not attempt(plain.merge_and_unload).done:
        return None  # it does not merge into a float base either, which says nothing of this one
    host = _host(bench, name, mode)
    base = logits(host.model, host)
    model = bench.language_model(host)
    randomise(model, host, least=EFFECT)
    expected = logits(model, host)
    merged = logits(model.merge_and_unload(), host)
    off, effect = deviation(merged, expected), deviation(expected, base)
    measured["merge"] = order(off)
    if deviation(merged, base) < 0.1 * effect:
        return "reports success, but changes nothing"
    if off > CLOSE:
        return f"changes the outputs (by {span(off)})"
    return None


def _reloads(
    bench: Bench, name: QuantizationBackend, mode: Mode, measured: dict[str, float]
) -> str | None:
    """Why saving and loading does not work on the quantized base, or `None`."""
    folder = str(bench.folder / f"saved_{name}")
    host = _host(bench, name, mode)
    model = bench.language_model(host)
    randomise(model, host, least=EFFECT)
    expected = logits(model, host)
    model.save_pretrained(folder)
    again = _host(bench, name, mode)
    off = deviation(logits(PeftModel.from_pretrained(again.model, folder), again), expected)
    measured["reload"] = order(off)
    return None if off <= CLOSE else "gives other outputs"
