"""Merging and conversion to LoRA, on randomised adapters and compared number by number."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

import torch
from peft import get_peft_model, set_peft_model_state_dict
from peft.tuners.lora.conversion import convert_to_lora

from peft_shop.catalog.features import LayerType
from peft_shop.curate.probe.bench import deviation, logits, randomise, trainable
from peft_shop.curate.probe.hosts import WIDTH
from peft_shop.curate.probe.judgement import Outcome, attempt, found, order, span
from peft_shop.curate.probe.setups import LANGUAGE_TARGETS

if TYPE_CHECKING:
    from peft_shop.catalog.features import Support
    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench
    from peft_shop.curate.probe.hosts import Host

__all__ = ["probe_conversion", "probe_merging"]

EXACT: Final = 1e-4
"""Largest deviation [1] of fp32 outputs that counts as equal: rounding through two layers of the
Llama stays below 1e-5, a wrong weight shows above 1e-3."""
COARSE: Final = 0.1
"""Largest deviation [1] in bf16: its rounding is 2^-8 a weight, a few percent after two layers."""
COARSE_EFFECT: Final = 0.3
"""Effect [1] that an adapter must have in bf16 for a deviation below `COARSE` to mean anything."""
CONVERTED: Final = 1e-3
"""Largest deviation [1] of a conversion that keeps every singular value, in fp32."""


def probe_merging(bench: Bench) -> dict[str, Capability]:
    """Whether the adapter merges: on the Llama in fp32 and bf16, and on each layer type."""
    return {"merging": _merging(bench)}


def _merging(bench: Bench) -> Capability:
    if bench.prompt:
        return found("no", "declared", "learns virtual tokens: no weight to merge them into")
    measured: dict[str, float] = {}
    problems: list[str] = []
    fp32, undone = _merge_language(bench, torch.float32, measured)
    if "unload_fp32" not in measured:
        return found("no", "declared", fp32)
    if max(measured["unload_fp32"], measured["safe_fp32"]) > EXACT:
        return found("no", "verified", fp32, measured=measured)
    bf16, _ = _merge_language(bench, torch.bfloat16, measured)
    if fp32 is not None:
        problems.append(fp32)
    elif bf16 is not None:
        problems.append(f"in bf16: {bf16}")
    support: Support = "partial" if problems else "yes"
    if undone:  # it merges all the same
        problems.append(f"cannot be unmerged: {undone}")
    # the verdict is about the linear layers of a language model, which is what people merge; a
    # layer type of its own that does not merge is told, not mixed into it
    problems += [f"not on {problem}" for problem in _merge_layers(bench, measured)]
    return found(support, "verified", "; ".join(problems) or None, measured=measured)


def _merge_language(
    bench: Bench, dtype: Any, measured: dict[str, float]
) -> tuple[str | None, str | None]:
    """Why merging on the Llama does not work, and why peft refuses to undo it; fills `measured`."""
    suffix, limit = ("fp32", EXACT) if dtype == torch.float32 else ("bf16", COARSE)
    effect = EXACT * 100 if dtype == torch.float32 else COARSE_EFFECT

    def fresh() -> tuple[Host, Any, Any]:
        host = bench.language_host(dtype=dtype)
        model = bench.language_model(host)
        randomise(model, host, least=effect)
        model.eval()
        return host, model, logits(model, host)

    made = attempt(fresh)
    if not made.done:
        return made.note, None
    host, model, expected = made.value
    if not hasattr(model, "merge_adapter"):
        return "offers no merge", None
    said: list[str] = []
    undone = None
    for step, call in (("merge", model.merge_adapter), ("unmerge", model.unmerge_adapter)):
        outcome = attempt(call)
        if step == "unmerge" and outcome.kind == "refused":
            undone = outcome.message
            break
        off = _off(outcome, model, host, expected)
        if isinstance(off, str):
            said.append(f"{step}: {off}")
            break
        measured[f"{step}_{suffix}"] = off
    for step, safe in (("unload", False), ("safe", True)):
        host, model, expected = fresh()
        outcome = attempt(partial(model.merge_and_unload, safe_merge=safe))
        off = _off(outcome, outcome.value, host, expected)
        if isinstance(off, str):
            said.append(f"{step}: {off}")
            continue
        measured[f"{step}_{suffix}"] = off
    wrong = [
        step
        for step in ("merge", "unmerge", "unload", "safe")
        if measured.get(f"{step}_{suffix}", 0.0) > limit
    ]
    if wrong:
        worst = max(measured[f"{step}_{suffix}"] for step in wrong)
        said.append(f"{' and '.join(wrong)} change the outputs (by {span(worst)})")
    return "; ".join(said) or None, undone


def _off(outcome: Outcome, model: Any, host: Host, expected: Any) -> float | str:
    """How far the outputs of `model` are off after `outcome`, or why it does not work."""
    if not outcome.done:
        return outcome.note
    again = attempt(partial(logits, model, host))
    if not again.done:
        return again.note
    return order(deviation(again.value, expected))


def _merge_layers(bench: Bench, measured: dict[str, float]) -> list[str]:
    """Layer types on which the method works but does not merge."""
    problems = []
    worst = 0.0
    for layer in get_args(LayerType):
        if layer == "parameter" and "target_parameters" not in bench.fields:
            continue
        host = bench.layer_host(layer)
        made = attempt(partial(_randomised, bench, layer, host))
        if not made.done or not trainable(made.value):
            continue
        expected = logits(made.value, host)
        outcome = attempt(made.value.merge_and_unload)
        off = _off(outcome, outcome.value, host, expected)
        if isinstance(off, str):
            problems.append(f"{layer}: {off}")
        elif off > EXACT:
            problems.append(f"{layer}: changes the outputs (by {span(off)})")
        else:
            worst = max(worst, off)
    measured["layers_fp32"] = order(worst)
    return problems


def _randomised(bench: Bench, layer: LayerType, host: Host) -> Any:
    model = bench.wrap(host, bench.layer_config(layer, host))
    if trainable(model):
        randomise(model, host)
    return model.eval()


def probe_conversion(bench: Bench) -> dict[str, Capability]:
    """Whether peft converts the adapter to LoRA, tried at a rank that loses nothing."""
    return {"convertible_to_lora": _conversion(bench)}


def _conversion(bench: Bench) -> Capability:  # noqa: PLR0911 - a ladder of verdicts
    if bench.prompt:
        return found("no", "declared", "learns virtual tokens: no weight difference to convert")

    def fresh() -> tuple[Host, Any]:
        host = bench.language_host()
        if host.targets == LANGUAGE_TARGETS:
            # a square and a non-square layer, both of rank 32 at most: nothing is truncated
            host.targets = ("q_proj", "down_proj")
        return host, bench.language_model(host)

    made = attempt(fresh)
    if not made.done:
        return found("no", "injected", made.note)
    host, model = made.value
    if not model.supports_lora_conversion():
        return found("no", "declared", "peft declares no conversion for it")
    randomise(model, host)
    expected = logits(model, host)
    outcome = attempt(lambda: convert_to_lora(model, rank=WIDTH))
    if not outcome.done:
        return found("no", "injected", outcome.note)
    config, state = outcome.value
    base = bench.language_host()

    def load() -> Any:
        converted = get_peft_model(base.model, config)
        missed = set_peft_model_state_dict(converted, state)
        if missed.unexpected_keys:
            msg = f"{len(missed.unexpected_keys)} converted keys have no place"
            raise RuntimeError(msg)  # judged as a failure of the conversion
        return converted

    loaded = attempt(load)
    if not loaded.done:
        return found("no", "injected", loaded.note)
    off = order(deviation(logits(loaded.value, base), expected))
    if off > CONVERTED:
        note = f"converts without an error, but the outputs differ by {span(off)}"
        return found("no", "verified", note, measured={"deviation": off})
    return found("yes", "verified", measured={"deviation": off})
