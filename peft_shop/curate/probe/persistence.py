"""Saving and loading, switching off, and what training setups need: each compared with numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import PeftModel
from safetensors import safe_open

from peft_shop.curate.probe.bench import deviation, forward, logits, randomise, trainable
from peft_shop.curate.probe.judgement import attempt, found, order, span
from peft_shop.curate.probe.training import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench
    from peft_shop.curate.probe.hosts import Host

__all__ = [
    "probe_deterministic",
    "probe_disable_adapter",
    "probe_gradient_checkpointing",
    "probe_identity_at_start",
    "probe_modules_to_save",
    "probe_save_and_reload",
    "probe_token_indices",
]

SAME: Final = 1e-5
"""Largest deviation [1] of outputs that should be the same numbers computed the same way."""
TOKENS: Final = (1, 2, 3)
"""Token identifiers that stand in every sample of the language host."""


def _judged(
    feature: str, call: Callable[[], Capability], *, proven: bool = False
) -> dict[str, Capability]:
    outcome = attempt(call, proven=proven)
    if outcome.done:
        return {feature: outcome.value}
    return {feature: found("no", outcome.level, outcome.note)}


def _reloaded(bench: Bench, folder: str, *, tie: bool = False) -> tuple[Any, Host]:
    host = bench.language_host(tie=tie)
    return PeftModel.from_pretrained(host.model, folder), host


def _stored(folder: Path) -> tuple[list[str], int]:
    """Keys of the saved adapter and the bytes of its tensors [B], without the file's header."""
    keys: list[str] = []
    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as content:
            for key in content.keys():  # noqa: SIM118 - not a mapping
                tensor = content.get_tensor(key)
                keys.append(key)
                size += tensor.numel() * tensor.element_size()
    return keys, size


def _layout(keys: list[str]) -> str:
    """Last parts of the keys, such as `lora_A.weight`."""
    ends = set()
    for key in keys:
        parts = [part for part in key.split(".") if not part.isdigit()]
        tail = parts[-2:] if parts[-1] in {"weight", "bias"} else parts[-1:]
        ends.add(re.sub(r"\d+", "<n>", ".".join(tail)))
    names = sorted(ends)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def probe_save_and_reload(bench: Bench) -> dict[str, Capability]:
    """A randomised adapter saved and loaded on a fresh base gives the same outputs."""

    def call() -> Capability:
        folder = bench.folder / "saved"
        host = bench.language_host()
        model = bench.language_model(host)
        randomise(model, host)
        expected = logits(model, host)
        count = sum(weight.numel() for weight in trainable(model).values())
        model.save_pretrained(str(folder))
        keys, size = _stored(folder)
        again, fresh = _reloaded(bench, str(folder))
        off = order(deviation(logits(again, fresh), expected))
        note = f"keys end in {_layout(keys)}" if keys else "saves no weight"
        measured = {"deviation": off, "bytes_per_parameter": float(f"{size / count:.2g}")}
        if off > SAME:
            note = f"loads without an error, but gives other outputs; {note}"
            return found("no", "verified", note, measured=measured)
        if trainable(again):
            note += "; they stay trainable when loaded for inference"
        with torch.inference_mode():
            off = max(off, order(deviation(logits(again, fresh), expected)))
        if off > SAME:
            note = f"gives other outputs under `torch.inference_mode()`; {note}"
            return found("partial", "verified", note, measured=measured)
        loss = attempt(lambda: forward(again, fresh).loss)
        if not loss.done:
            note = f"no loss can be computed once it is loaded for inference ({loss.note}); {note}"
            return found("partial", "verified", note, measured=measured)
        return found("yes", "verified", note, measured=measured)

    return _judged("save_and_reload", call)


def probe_disable_adapter(bench: Bench) -> dict[str, Capability]:
    """`disable_adapter()` gives the base's outputs, and the adapter's again afterwards."""

    def call() -> Capability:
        host = bench.language_host()
        base = logits(host.model, host)
        model = bench.language_model(host)
        randomise(model, host)
        expected = logits(model, host)
        with model.disable_adapter():
            off = deviation(logits(model, host), base)
        back = deviation(logits(model, host), expected)
        measured = {"deviation": order(off), "restored": order(back)}
        if max(off, back) <= SAME:
            return found("yes", "verified", measured=measured)
        if off > SAME:
            note = "the outputs are not the base's while it is disabled"
        else:
            note = "the adapter's outputs do not come back"
        return found("no", "verified", note, measured=measured)

    return _judged("disable_adapter", call)


def probe_identity_at_start(bench: Bench) -> dict[str, Capability]:
    """A fresh adapter leaves the base's outputs as they are."""

    def call() -> Capability:
        host = bench.language_host()
        base = logits(host.model, host)
        model = bench.language_model(host)
        off = order(deviation(logits(model, host), base))
        if off <= SAME:
            return found("yes", "verified", measured={"deviation": off})
        note = "a fresh adapter changes the outputs"
        return found("no", "verified", note, measured={"deviation": off})

    return _judged("identity_at_start", call)


def _gradients(model: Any, host: Host) -> dict[str, Any]:
    model.train()
    torch.manual_seed(4)
    forward(model, host).loss.backward()
    return {
        name: weight.grad.detach().clone()
        for name, weight in trainable(model).items()
        if weight.grad is not None
    }


def probe_gradient_checkpointing(bench: Bench) -> dict[str, Capability]:
    """The adapter's gradients with gradient checkpointing against those without."""

    def gradients(*, checkpointing: bool) -> dict[str, Any]:
        host = bench.language_host()
        if checkpointing:
            host.model.gradient_checkpointing_enable()
        model = bench.language_model(host)
        randomise(model, host)
        return _gradients(model, host)

    expected = gradients(checkpointing=False)

    def call() -> Capability:
        got = gradients(checkpointing=True)
        lost = sorted(set(expected) - set(got))
        if lost:
            note = f"{len(lost)} of {len(expected)} tensors lose their gradient"
            return found("no", "verified", note, measured={"lost": len(lost)})
        scale = max(float(grad.abs().max()) for grad in expected.values())
        off = max(float((got[name] - grad).abs().max()) for name, grad in expected.items()) / scale
        if order(off) > 1e-4:
            return found(
                "no", "verified", "the gradients differ", measured={"deviation": order(off)}
            )
        return found("yes", "verified", measured={"deviation": order(off)})

    return _judged("gradient_checkpointing", call, proven=True)


def probe_deterministic(bench: Bench) -> dict[str, Capability]:
    """Two trainings under one seed give the same weights and outputs."""

    def once() -> tuple[Any, list[Any]]:
        host = bench.language_host()
        model = bench.language_model(host)
        torch.manual_seed(5)
        train(model, host, {}, steps=2)
        return logits(model, host), [w.detach().clone() for w in trainable(model).values()]

    def call() -> Capability:
        (out, weights), (again, others) = once(), once()
        off = max(
            [deviation(again, out)]
            + [float((a - b).abs().max()) for a, b in zip(weights, others, strict=True)]
        )
        if off > 0:
            note = "two trainings under one seed give other weights"
            return found("no", "verified", note, measured={"deviation": order(off)})
        return found("yes", "verified", measured={"deviation": 0.0})

    return _judged("deterministic", call)


def probe_modules_to_save(bench: Bench) -> dict[str, Capability]:
    """A whole head trained beside the adapter, saved and loaded with it."""
    if "modules_to_save" not in bench.fields:
        answer = found("no", "declared", "its configuration has no `modules_to_save`")
        return {"modules_to_save": answer}

    def call() -> Capability:  # noqa: PLR0911 - a ladder of verdicts
        folder = bench.folder / "head"
        host = bench.language_host()
        model = bench.language_model(host, modules_to_save=["lm_head"])
        head = [name for name in trainable(model) if "lm_head" in name]
        if not head:
            return found("no", "injected", "accepts `modules_to_save`, but does not train the head")
        before = {name: weight.detach().clone() for name, weight in trainable(model).items()}
        base = model.get_base_model().lm_head.original_module.weight.detach().clone()
        trained = train(model, host, {}, steps=2)
        if trained.problems:
            return found("no", "injected", trained.problems[0])
        moved = [name for name, w in trainable(model).items() if not torch.equal(w, before[name])]
        if not set(head) & set(moved):
            return found("no", "injected", "the head does not move")
        if not torch.equal(model.get_base_model().lm_head.original_module.weight, base):
            return found("no", "injected", "the base's own head moves")
        if not set(moved) - set(head):
            return found("no", "injected", "the adapter does not move beside the head")
        expected = logits(model, host)
        model.save_pretrained(str(folder))
        again, fresh = _reloaded(bench, str(folder))
        off = order(deviation(logits(again, fresh), expected))
        if off > SAME:
            note = "trains, but the reloaded model gives other outputs"
            return found("partial", "verified", note, measured={"deviation": off})
        return found("yes", "verified", measured={"deviation": off})

    return _judged("modules_to_save", call)


def probe_token_indices(bench: Bench) -> dict[str, Capability]:
    """Rows of the embedding trained beside the adapter, with the head tied and not."""
    feature = "trainable_token_indices"
    if feature not in bench.fields:
        answer = found("no", "declared", "its configuration has no `trainable_token_indices`")
        return {feature: answer}

    def call() -> Capability:
        off, problems = 0.0, []
        for tie in (False, True):
            part = _token_rows(bench, tie=tie)
            if isinstance(part, str):
                problems.append(f"{'tied' if tie else 'untied'} embeddings: {part}")
            else:
                off = max(off, part)
        if len(problems) == 2:
            return found("no", "injected", "; ".join(problems))
        return found(
            "partial" if problems else "yes",
            "verified",
            "; ".join(problems) or None,
            measured={"deviation": order(off)},
        )

    return _judged(feature, call)


def _token_rows(  # noqa: PLR0911 - a ladder of verdicts
    bench: Bench, *, tie: bool
) -> float | str:
    """How far the reloaded and the merged outputs are off, or what is wrong."""
    folder = bench.folder / f"tokens{tie}"
    host = bench.language_host(tie=tie)
    model = bench.language_model(host, trainable_token_indices=list(TOKENS))
    rows = [name for name in trainable(model) if "trainable_tokens" in name]
    if not rows:
        return "no row is trainable"
    before = model.get_input_embeddings().original_module.weight.detach().clone()
    trained = train(model, host, {}, steps=2)
    if trained.problems:
        return trained.problems[0]
    if not torch.equal(model.get_input_embeddings().original_module.weight, before):
        return "the base's own embedding moves"
    expected = logits(model, host)
    model.save_pretrained(str(folder))
    again, fresh = _reloaded(bench, str(folder), tie=tie)
    off = deviation(logits(again, fresh), expected)
    if off > SAME:
        return f"the reloaded model gives other outputs (by {span(off)})"
    merged = attempt(lambda: logits(model.merge_and_unload(), host))
    if merged.kind == "refused":
        return off  # the adapter itself does not merge
    if not merged.done:
        return f"merging: {merged.note}"
    off = max(off, deviation(merged.value, expected))
    if off > 1e-4:
        return f"merging changes the outputs (by {span(off)})"
    return off
