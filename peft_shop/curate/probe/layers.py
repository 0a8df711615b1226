"""Layer types: wrap each, train it, and look what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

from peft_shop.catalog.conditions import Circumstances, in_words
from peft_shop.catalog.features import LayerType
from peft_shop.curate.probe.bench import deviation, logits, wrapped_layers
from peft_shop.curate.probe.judgement import Outcome, attempt, found, order
from peft_shop.curate.probe.training import Trained, base_weights, train
from peft_shop.curate.probe.varying import joined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench
    from peft_shop.curate.probe.hosts import Host

__all__ = ["probe_layers", "trained_layer"]

SHAPED = frozenset({"linear", "transformers_conv1d"})
"""Layer types whose host comes with square or non-square layers alone."""
STARTS_EXACT: Final = 1e-4
"""A method whose fresh adapter moves no output further than this [1] starts as the identity."""
STARTS_WRONG: Final = 1e-2


def probe_layers(bench: Bench) -> dict[str, Capability]:
    """Support of every layer type, trained where it can be."""
    layers: tuple[LayerType, ...] = get_args(LayerType)
    if bench.prompt:
        answer = found("no", "declared", "adapts no layers: it learns virtual tokens")
        return {f"layer_types.{layer}": answer for layer in layers}
    if bench.setup.blocks is not None:
        note = f"cannot target single layers: wraps {bench.setup.blocks}"
        return {f"layer_types.{layer}": found("no", "declared", note) for layer in layers}
    hosts = {bias: bench.on(bias=bias) for bias in (False, True)}
    tried = {
        bias: {layer: trained_layer(there, layer) for layer in layers}
        for bias, there in hosts.items()
    }
    exact = all(_starts_exact(outcome for outcome, _ in one.values()) for one in tried.values())
    verdicts = {
        layer: joined(
            [
                ({"bias": bias}, _layer(there, layer, *tried[bias][layer], exact=exact))
                for bias, there in hosts.items()
            ]
        )
        for layer in layers
    }
    without = _problem(*tried[False]["linear"]) is None
    verdicts["linear"] = _on_inputs(hosts[not without], verdicts["linear"])
    return {f"layer_types.{layer}": verdict for layer, verdict in verdicts.items()}


def _starts_exact(outcomes: Iterable[Outcome]) -> bool:
    """Whether a fresh adapter leaves the outputs alone on some layer type of a host."""
    starts = (outcome.value[2] for outcome in outcomes if outcome.done)
    return min(starts, default=1.0) < STARTS_EXACT


def _on_inputs(bench: Bench, verdict: Capability) -> Capability:
    """The verdict on linear layers, with what inputs of two and of four dimensions take from it."""
    if verdict.support not in {"yes", "partial"}:
        return verdict
    problems = {
        inputs: _problem(*trained_layer(bench, "linear", inputs=inputs)) for inputs in (2, 4)
    }
    lost = {inputs: problem for inputs, problem in problems.items() if problem is not None}
    if not lost:
        return verdict
    left = tuple(inputs for inputs in (2, 3, 4) if inputs not in lost)
    note = f"only on inputs of {' or '.join(map(str, left))} dimensions; otherwise "
    note += next(iter(lost.values()))
    if verdict.support == "partial" and not verdict.conditions:
        return verdict.model_copy(update={"note": f"{verdict.note}; {note}"})
    terms = tuple(
        condition.model_copy(update={"inputs": left})
        for condition in verdict.conditions or (Circumstances(),)
    )
    whole = f"{note}; {verdict.note}" if verdict.note else note
    return verdict.model_copy(update={"support": "partial", "note": whole, "conditions": terms})


def trained_layer(
    bench: Bench, layer: LayerType, shapes: str = "both", inputs: int = 3
) -> tuple[Outcome, Host]:
    """Outcome of wrapping and training one layer type; its value is `(model, Trained, start)`.

    `start` is how far the fresh adapter moves the outputs [1].
    """
    host = bench.layer_host(layer, shapes=shapes, inputs=inputs)
    if layer == "parameter" and "target_parameters" not in bench.fields and not bench.setup.experts:
        # the only way left to name the experts is as a module: peft then says what it thinks
        host.targets, host.targets_are_parameters = ("experts",), False
    base = base_weights(host)

    def call() -> tuple[Any, Trained, float]:
        before = logits(host.model, host)
        model = bench.wrap(host, bench.layer_config(layer, host))
        start = deviation(logits(model, host), before)
        return model, train(model, host, base), start

    return attempt(call), host


def _layer(
    bench: Bench, layer: LayerType, outcome: Outcome, host: Host, *, exact: bool
) -> Capability:
    """Judgement on one layer type; `exact`: a fresh adapter should leave the outputs alone."""
    problem = _problem(outcome, host)
    if problem is None:
        model, trained, start = outcome.value
        if layer != "layer_norm" and _copies_layers(model):
            note = "trains a full copy of the layer, which is not parameter-efficient"
            return found("partial", "trained", note)
        if exact and start > STARTS_WRONG:
            note = "trains, but a fresh adapter already changes the outputs on this layer type"
            return found("partial", "trained", note, measured={"start": order(start)})
        return found("yes", "trained", _silence(trained))
    if layer in SHAPED and outcome.kind != "refused":
        working = [
            shapes
            for shapes in ("square", "other")
            if _problem(*trained_layer(bench, layer, shapes)) is None
        ]
        if working:
            square = Circumstances(square=working[0] == "square")
            note = f"only {in_words([square])}; otherwise {problem}"
            return found("partial", "trained", note, conditions=(square,))
    return found("no", outcome.level, problem)


def _problem(outcome: Outcome, host: Host) -> str | None:
    """Why the layer type does not work, or `None`."""
    if not outcome.done:
        return outcome.note
    model, trained, _ = outcome.value
    if trained.problems:
        return str(trained.problems[0])
    wrapped = len(wrapped_layers(model))
    if wrapped < len(host.targets):
        return f"wraps {wrapped} of {len(host.targets)} layers without a word"
    return None


def _copies_layers(model: Any) -> bool:
    """Whether the adapter of every wrapped layer has the layer's own parameters once more."""
    for layer in wrapped_layers(model):
        own = sorted(tuple(p.shape) for p in layer.get_base_layer().parameters())
        adapter = sorted(tuple(p.shape) for p in layer.parameters() if p.requires_grad)
        if own != adapter:
            return False
    return True


def _silence(trained: Trained) -> str | None:
    """A note that names tensors which never get a gradient."""
    if not trained.silent:
        return None
    names = sorted(trained.silent)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"no gradient for {', '.join(names[:3])}{more}"
