"""`torch.compile`: traced outputs and gradients against eager ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from peft_shop.curate.probe.bench import deviation, forward, logits, randomise, trainable
from peft_shop.curate.probe.judgement import attempt, found, order

if TYPE_CHECKING:
    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench

__all__ = ["probe_compile"]

BACKEND: Final = "aot_eager"
"""Traces forward and backward as for any backend, but generates no code: needs no compiler."""
EQUAL: Final = 1e-4
"""Largest deviation [1] from eager: the traced operations are the same, decomposed."""


def probe_compile(bench: Bench) -> dict[str, Capability]:
    """Outputs and gradients of the compiled model against the eager one."""
    host = bench.language_host()
    model = bench.language_model(host)
    randomise(model, host)
    expected = logits(model, host)
    gradients = _gradients(model, model, host)
    torch.compiler.reset()
    outcome = attempt(lambda: _compiled(model, host), proven=True)
    torch.compiler.reset()
    if not outcome.done:
        return {"torch_compile": found("no", "injected", outcome.note)}
    out, got, breaks = outcome.value
    scale = max(float(grad.abs().max()) for grad in gradients.values())
    off = max(float((got[name] - grad).abs().max()) for name, grad in gradients.items()) / scale
    off = order(max(off, deviation(out, expected)))
    measured: dict[str, float] = {"deviation": off, "graph_breaks": breaks}
    if off > EQUAL:
        note = "the compiled model gives other outputs or gradients"
        return {"torch_compile": found("no", "verified", note, measured=measured)}
    said = f"traced with graph breaks: {breaks}" if breaks else None
    return {"torch_compile": found("yes", "verified", said, measured=measured)}


def _gradients(called: Any, model: Any, host: Any) -> dict[str, Any]:
    called.train()
    model.zero_grad()
    torch.manual_seed(4)
    forward(called, host).loss.backward()
    return {
        name: weight.grad.detach().clone()
        for name, weight in trainable(model).items()
        if weight.grad is not None
    }


def _compiled(model: Any, host: Any) -> tuple[Any, dict[str, Any], int]:
    torch._dynamo.utils.counters.clear()  # noqa: SLF001 - the only place where breaks are counted
    compiled = torch.compile(model, backend=BACKEND)
    out = logits(compiled, host)
    gradients = _gradients(compiled, model, host)
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())  # noqa: SLF001 - as above
    return out, gradients, breaks
