"""Training on really quantized bases, and comparing with the same adapter on a dequantized one."""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from peft import PeftModel, prepare_model_for_kbit_training

from peft_shop.catalog.conditions import in_words
from peft_shop.curate.probe.bases import BACKENDS, QuantizedBases
from peft_shop.curate.probe.bench import deviation, logits, randomise, trainable, wrapped_layers
from peft_shop.curate.probe.declared import declared_quantization
from peft_shop.curate.probe.judgement import Outcome, attempt, found, order, span
from peft_shop.curate.probe.training import train
from peft_shop.curate.probe.varying import MAPPED, Cell, alternatives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Base(NamedTuple):
    """One way in which a quantized base comes to be trained.

    Attributes:
        backend: who quantized it.
        bias: whether its linear layers have one.
        prepared: whether it went through `prepare_model_for_kbit_training`.
        dtype: of its activations and of the weights that are not quantized.
        device_map: whether it says that a device map placed it, as it does when it is loaded.
    """

    backend: QuantizationBackend
    bias: bool = False
    prepared: bool = False
    dtype: str = "bfloat16"
    device_map: bool = True

    @property
    def given(self) -> dict[str, object]:
        """What a verdict may depend on."""
        return {"bias": self.bias, "prepared": self.prepared, "dtype": self.dtype}


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
        if (
            name in OTHER_KERNELS
            and declared.support == "yes"
            and note.startswith("failed: RuntimeError")
        ):
            # the kernel itself fails, and peft was written for the other one
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
    """The verdict of all ways to load the base, with what it depends on."""
    measured: dict[str, float] = {}
    cells: list[Cell] = []
    working: Base | None = None
    failures: list[Outcome] = []
    mapped = None
    for way in _ways(name, cells, failures):
        numbers: dict[str, float] = {}
        base, outcome, without = _unmapped(bench, way, numbers)
        works = outcome.done and outcome.value is None
        mapped = mapped or without
        cells.append(Cell(way.given, works))
        measured |= {key: value for key, value in numbers.items() if key not in measured}
        if not works:
            failures.append(outcome)
        elif working is None:
            working = base
    if working is None:
        level = "verified" if failures[0].done and measured else failures[0].level
        note = _problem(failures[0])
        return found("no", level, note, environment=ENVIRONMENT, measured=measured)
    terms = alternatives(cells)
    notes = [f"only {in_words(terms)}; otherwise {_problem(failures[0])}"] if terms else []
    lost = _said(partial(_reloads, bench, working, measured))
    if lost is not None:
        notes.append(f"reloading: {lost}")
    support: Support = "partial" if notes else "yes"
    lossy = _said(partial(_merges, bench, working, measured))
    if lossy is not None:
        notes.append(f"merging: {lossy}")
    if mapped is not None:
        notes.append(f"{MAPPED} ({mapped})")
    level = "verified" if any(key.startswith("cosine") for key in measured) else "trained"
    return found(
        support,
        level,
        "; ".join(notes) or None,
        environment=ENVIRONMENT,
        measured=measured,
        conditions=() if lost is not None else terms,
    )


def _ways(
    backend: QuantizationBackend, cells: list[Cell], failures: list[Outcome]
) -> Iterator[Base]:
    """The ways to try, the most usual first; what came of those before decides about the rest.

    Where peft refuses the layers it refuses all of them, and where all works in bfloat16 nobody
    needs float32.
    """
    for dtype in DTYPES:
        for bias in (False, True):
            if not _bases().loads(backend, DTYPES[dtype], bias=bias):
                continue
            for prepared in (False, True):
                if failures and failures[0].kind == "refused" and len(failures) == len(cells):
                    return
                yield Base(backend, bias, prepared, dtype)
        if not failures:
            return


def _unmapped(
    bench: Bench, way: Base, measured: dict[str, float]
) -> tuple[Base, Outcome, str | None]:
    """The way that counts, its outcome, and what fails only because of a map onto the CPU."""
    outcome = attempt(partial(_trains, bench, way, measured), proven=True)
    if outcome.kind != "failed":
        return way, outcome, None
    free = way._replace(device_map=False)
    again = attempt(partial(_trains, bench, free, measured), proven=True)
    if again.done and again.value is None:
        return free, again, outcome.note
    return way, outcome, None


def _problem(outcome: Outcome) -> str:
    return str(outcome.value) if outcome.done else outcome.note


def _said(call: Callable[[], str | None]) -> str | None:
    """What a check complains of, or how it breaks down; `None` where it passes."""
    outcome = attempt(call, proven=True)
    said: str | None = outcome.value if outcome.done else outcome.note
    return said


def _host(bench: Bench, way: Base, *, quantized: bool = True) -> Host:
    host = bench.on(bias=way.bias).language_host()
    bases = _bases()
    build = bases.quantized if quantized else bases.dequantized
    host.model = build(way.backend, DTYPES[way.dtype], bias=way.bias)
    if not way.device_map and hasattr(host.model, "hf_device_map"):
        del host.model.hf_device_map
    if way.prepared:
        host.model = prepare_model_for_kbit_training(host.model, use_gradient_checkpointing=False)
    return host


def _trains(  # noqa: PLR0911 - a ladder of verdicts
    bench: Bench, way: Base, measured: dict[str, float]
) -> str | None:
    """Why training does not work, or `None`."""
    host = _host(bench, way)
    twin = _host(bench, way, quantized=False)
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
        measured[f"cosine_{'prepared' if way.prepared else 'loaded'}"] = cut
        if not cosine >= (AGREES_ROUNDED if way.backend == "bnb_8bit" else AGREES):
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


def _merges(bench: Bench, way: Base, measured: dict[str, float]) -> str | None:
    """Why merging does not work on the quantized base though it does on a float one."""
    twin = _host(bench, way, quantized=False)
    plain = bench.language_model(twin)
    if not hasattr(plain, "merge_and_unload") or not attempt(plain.merge_and_unload).done:
        return None  # it does not merge into a float base either, which says nothing of this one
    host = _host(bench, way)
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


def _reloads(bench: Bench, way: Base, measured: dict[str, float]) -> str | None:
    """Why saving and loading does not work on the quantized base, or `None`."""
    folder = str(bench.folder / f"saved_{way.backend}")
    host = _host(bench, way)
    model = bench.language_model(host)
    randomise(model, host, least=EFFECT)
    expected = logits(model, host)
    model.save_pretrained(folder)
    again = _host(bench, way)
    off = deviation(logits(PeftModel.from_pretrained(again.model, folder), again), expected)
    measured["reload"] = order(off)
    return None if off <= CLOSE else "gives other outputs"
