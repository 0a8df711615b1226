"""Several adapters on one model: adding, switching, deleting, mixing, combining, swapping."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter

from peft_shop.curate.probe.bench import deviation, logits, randomise, wrapped_layers
from peft_shop.curate.probe.judgement import attempt, found, order
from peft_shop.curate.probe.training import train

if TYPE_CHECKING:
    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench
    from peft_shop.curate.probe.hosts import Host

__all__ = [
    "probe_hot_swapping",
    "probe_mixed_batches",
    "probe_mixed_methods",
    "probe_multiple_adapters",
    "probe_weighted_combination",
]

SAME: Final = 1e-5
"""Largest deviation [1] of outputs that should be the same numbers computed the same way."""
EQUAL: Final = 1e-4
"""Largest deviation [1] of outputs that should be equal but are computed in another order."""
OTHER: Final = "other"
COMBINATIONS: Final = (
    "svd",
    "linear",
    "cat",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
"""Combination types of `add_weighted_adapter`."""


def _pair(bench: Bench) -> tuple[Host, Any, str | None]:
    """A model with two different adapters, `default` active, and what limits the second one."""
    host = bench.language_host()
    model = bench.language_model(host)
    randomise(model, host, seed=1, adapter="default")
    limit = None
    added = attempt(lambda: model.add_adapter(OTHER, bench.language_config(host)))
    if not added.done:
        limit = added.note
        frozen = bench.language_config(host, inference_mode=True)
        model.add_adapter(OTHER, frozen)
        model.set_adapter(OTHER, inference_mode=True)
        frozen_weights = [w for n, w in model.named_parameters() if OTHER in n.split(".")]
        for weight in frozen_weights:
            weight.requires_grad_(requires_grad=True)
        randomise(model, host, seed=5, adapter=OTHER)
        for weight in frozen_weights:
            weight.requires_grad_(requires_grad=False)
    else:
        model.set_adapter(OTHER)
        randomise(model, host, seed=5, adapter=OTHER)
    model.set_adapter("default")
    return host, model, limit


def probe_multiple_adapters(bench: Bench) -> dict[str, Capability]:
    """Adding a second adapter, switching, training one without touching the other, deleting."""
    outcome = attempt(lambda: _multiple(bench))
    if outcome.done:
        return {"multiple_adapters": outcome.value}
    return {"multiple_adapters": found("no", outcome.level, outcome.note)}


def _multiple(bench: Bench) -> Capability:
    host, model, limit = _pair(bench)
    first = logits(model, host)
    model.set_adapter(OTHER)
    second = logits(model, host)
    if deviation(second, first) < EQUAL:
        return found(
            "no", "verified", "both adapters give the same outputs", measured={"difference": 0.0}
        )
    model.set_adapter("default")
    off = deviation(logits(model, host), first)
    train(model, host, {}, steps=2)
    first = logits(model, host)
    model.set_adapter(OTHER)
    off = max(off, deviation(logits(model, host), second))
    model.set_adapter("default")
    off = max(off, deviation(logits(model, host), first))
    if off > SAME:
        note = "switching or training one adapter changes the outputs of the other"
        return found("no", "verified", note, measured={"deviation": order(off)})
    deleted = attempt(lambda: model.delete_adapter(OTHER))
    if not deleted.done:
        note = f"adds and switches; deleting: {deleted.note}"
        return found("partial", "verified", note, measured={"deviation": order(off)})
    after = attempt(lambda: logits(model, host))
    if not after.done or deviation(after.value, first) > SAME:
        note = "adds and switches; deleting one breaks the other"
        return found("partial", "verified", note, measured={"deviation": order(off)})
    if limit is not None:
        note = f"only one may be trainable; a second one for training is {limit}"
        return found("partial", "verified", note, measured={"deviation": order(off)})
    return found("yes", "verified", measured={"deviation": order(off)})


def probe_mixed_batches(bench: Bench) -> dict[str, Capability]:
    """One batch with `adapter_names` against separate runs, sample by sample."""
    pair = attempt(lambda: _pair(bench))
    if not pair.done:
        answer = found("no", "declared", f"needs several adapters: {pair.note}")
    else:
        answer = _mixed(*pair.value[:2])
    return {"mixed_batches": answer}


def _mixed(host: Host, model: Any) -> Capability:
    first = logits(model, host)
    model.set_adapter(OTHER)
    second = logits(model, host)
    model.set_adapter("default")
    names = ["default", OTHER, "default", OTHER]
    outcome = attempt(lambda: logits(model, host, adapter_names=names))
    if not outcome.done:
        return found("no", outcome.level, outcome.note)
    expected = torch.stack([first[0], second[1], first[2], second[3]])
    off = order(deviation(outcome.value, expected))
    if off > EQUAL:
        ignored = deviation(outcome.value, first) < EQUAL
        what = "is silently ignored" if ignored else "gives other outputs than separate runs"
        return found("no", "verified", f"`adapter_names` {what}", measured={"deviation": off})
    with model.disable_adapter():
        base = logits(model, host)
    names[1] = "__base__"
    expected[1] = base[1]
    outcome = attempt(lambda: logits(model, host, adapter_names=names))
    if not outcome.done or deviation(outcome.value, expected) > EQUAL:
        note = "mixes adapters, but not with the bare base (`__base__`)"
        return found("partial", "verified", note, measured={"deviation": off})
    return found("yes", "verified", measured={"deviation": off})


def probe_weighted_combination(bench: Bench) -> dict[str, Capability]:
    """`add_weighted_adapter`, its weight differences compared with the weighted sum."""
    return {"weighted_combination": _weighted(bench)}


def _weighted(bench: Bench) -> Capability:
    pair = attempt(lambda: _pair(bench))
    if not pair.done:
        return found("no", "declared", f"needs several adapters: {pair.note}")
    _, model, _ = pair.value
    if not hasattr(model, "add_weighted_adapter"):
        return found("no", "declared", "has no `add_weighted_adapter`")
    shares = [0.7, 0.3]
    names = ["default", OTHER]
    plain = attempt(lambda: model.add_weighted_adapter(names, shares, "mix"))
    if not plain.done:
        return found("no", plain.level, plain.note)
    if "combination_type" not in inspect.signature(model.add_weighted_adapter).parameters:
        expected = _sum(model, names, shares)
        off = _distance(_difference(model, "mix"), expected)
        return _combined(off, {})
    exact: dict[str, float] = {}
    failed: dict[str, str] = {}
    expected = _sum(model, names, shares)
    for kind in COMBINATIONS:
        density = None if kind in {"svd", "linear", "cat"} else 0.7
        rank = 16 if kind.endswith("svd") else None  # twice the rank: nothing is truncated
        torch.manual_seed(0)
        call = partial(
            model.add_weighted_adapter,
            names,
            shares,
            f"by_{kind}",
            combination_type=kind,
            svd_rank=rank,
            density=density,
        )
        outcome = attempt(call)
        if not outcome.done:
            failed[kind] = outcome.note
        elif density is None:
            exact[kind] = _distance(_difference(model, f"by_{kind}"), expected)
    return _combined(min(exact.values(), default=1.0), failed)


def _combined(off: float, failed: dict[str, str]) -> Capability:
    if off > EQUAL:
        note = "the combined adapter is not the weighted sum of the two"
        return found("partial", "verified", note, measured={"deviation": order(off)})
    if failed:
        note = "; ".join(f"{kind} {said}" for kind, said in failed.items())
        return found(
            "partial", "verified", f"not every type: {note}", measured={"deviation": order(off)}
        )
    return found("yes", "verified", measured={"deviation": order(off)})


def _difference(model: Any, adapter: str) -> list[Any]:
    """What merging one adapter adds to the weight of every wrapped layer."""
    model.set_adapter(adapter)
    layers = [layer for layer in wrapped_layers(model) if hasattr(layer, "get_base_layer")]
    before = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    model.merge_adapter()
    after = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    model.unmerge_adapter()
    return [new - old for new, old in zip(after, before, strict=True)]


def _sum(model: Any, names: list[str], shares: list[float]) -> list[Any]:
    parts = [_difference(model, name) for name in names]
    return [
        sum(share * part for share, part in zip(shares, layer, strict=True))
        for layer in zip(*parts, strict=True)
    ]


def _distance(one: list[Any], other: list[Any]) -> float:
    """Largest deviation [1] over all layers."""
    return max(deviation(a, b) for a, b in zip(one, other, strict=True))


def probe_hot_swapping(bench: Bench) -> dict[str, Capability]:
    """`hotswap_adapter` in place against loading the new adapter afresh."""
    return {"hot_swapping": _swapped(bench)}


def _swapped(bench: Bench) -> Capability:
    folder = str(bench.folder / "swap")
    host = bench.language_host()
    saved = bench.language_model(host)
    randomise(saved, host, seed=7)
    stored = attempt(lambda: saved.save_pretrained(folder))
    if not stored.done:
        return found("no", "injected", f"cannot be saved: {stored.note}")
    host = bench.language_host()
    model = bench.language_model(host)
    randomise(model, host, seed=8)
    outcome = attempt(
        lambda: hotswap_adapter(model, folder, adapter_name="default", torch_device=bench.device)
    )
    if not outcome.done:
        return found("no", outcome.level, outcome.note)
    fresh = bench.language_host()
    expected = logits(PeftModel.from_pretrained(fresh.model, folder), fresh)
    off = order(deviation(logits(model, host), expected))
    if off > SAME:
        return found(
            "no", "verified", "swaps, but not to the new adapter", measured={"deviation": off}
        )
    return found("yes", "verified", measured={"deviation": off})


def probe_mixed_methods(bench: Bench) -> dict[str, Capability]:
    """`PeftMixedModel` with this method and another, both active."""
    outcome = attempt(lambda: _mixed_methods(bench))
    if outcome.done:
        return {"mixed_methods": outcome.value}
    return {"mixed_methods": found("no", outcome.level, outcome.note)}


def _mixed_methods(bench: Bench) -> Capability:
    host = bench.language_host()
    base = logits(host.model, host)
    torch.manual_seed(2)
    model = get_peft_model(host.model, bench.language_config(host), mixed=True)
    if randomise(model, host, seed=1, required=False) < EQUAL:
        return found("no", "injected", "has no effect inside `PeftMixedModel`")
    alone = logits(model, host)
    # LoHa mixes with LoRA, and LoRA with every other method that mixes at all
    second = LoHaConfig if bench.method == "lora" else LoraConfig
    model.add_adapter(OTHER, second(r=4, target_modules=list(host.targets)))
    model.set_adapter(OTHER)
    randomise(model, host, seed=5, adapter=OTHER)
    single = logits(model, host)
    model.set_adapter(["default", OTHER])
    both = logits(model, host)
    partner = second.__name__.removesuffix("Config")
    if min(deviation(both, x) for x in (alone, single, base)) < EQUAL:
        return found(
            "no",
            "verified",
            f"beside {partner}, only one of the two acts",
            measured={"difference": 0.0},
        )
    trained = train(model, host, {}, steps=2)
    if trained.problems:
        return found("partial", "injected", f"beside {partner}: {trained.problems[0]}")
    expected = logits(model, host)
    merged = attempt(lambda: logits(model.merge_and_unload(), host))
    if not merged.done:
        return found("yes", "trained", f"tried beside {partner}; merging both: {merged.note}")
    off = order(deviation(merged.value, expected))
    if off > EQUAL:
        note = f"trains beside {partner}, but merging both changes the outputs"
        return found("partial", "verified", note, measured={"merged": off})
    return found("yes", "verified", f"tried beside {partner}", measured={"merged": off})
