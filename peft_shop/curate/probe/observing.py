"""One method from end to end: every room's features, environment, options."""

from __future__ import annotations

import logging
import platform
import tempfile
import warnings
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import torch
import transformers

from peft_shop.catalog.features import FEATURE_IDS, Category, LayerType, QuantizationBackend
from peft_shop.catalog.methods import Environment, Observation, VariantObservation
from peft_shop.curate.probe.adapters import (
    probe_hot_swapping,
    probe_mixed_batches,
    probe_mixed_methods,
    probe_multiple_adapters,
    probe_weighted_combination,
)
from peft_shop.curate.probe.bases import BACKENDS
from peft_shop.curate.probe.bench import Bench
from peft_shop.curate.probe.compiling import probe_compile
from peft_shop.curate.probe.cost import INFERENCE, INITIALISATION, inference, initialisation
from peft_shop.curate.probe.fidelity import EXTRACTABLE, probe_fidelity
from peft_shop.curate.probe.judgement import found
from peft_shop.curate.probe.layers import probe_layers
from peft_shop.curate.probe.merging import probe_conversion, probe_merging
from peft_shop.curate.probe.options import effective_options
from peft_shop.curate.probe.persistence import (
    probe_deterministic,
    probe_disable_adapter,
    probe_gradient_checkpointing,
    probe_identity_at_start,
    probe_modules_to_save,
    probe_save_and_reload,
    probe_token_indices,
)
from peft_shop.curate.probe.quantization import ENVIRONMENT, probe_quantization
from peft_shop.curate.probe.varying import on_hosts, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.methods import Capability, Fidelity
    from peft_shop.curate.probe.setups import Setup

__all__ = ["DEAR", "ROOMS", "environment", "observe"]

OPTIONS: Final = (
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "init_weights",
    "layers_to_transform",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
)
"""Configuration fields that several methods share and that matter when choosing."""

ROOMS: Final[tuple[tuple[frozenset[str], Callable[[Bench], dict[str, Capability]]], ...]] = (
    (frozenset({"merging"}), probe_merging),
    (frozenset({"convertible_to_lora"}), probe_conversion),
    (frozenset({"multiple_adapters"}), probe_multiple_adapters),
    (frozenset({"mixed_batches"}), probe_mixed_batches),
    (frozenset({"weighted_combination"}), probe_weighted_combination),
    (frozenset({"hot_swapping"}), probe_hot_swapping),
    (frozenset({"mixed_methods"}), probe_mixed_methods),
    (frozenset({"modules_to_save"}), probe_modules_to_save),
    (frozenset({"trainable_token_indices"}), probe_token_indices),
    (frozenset({"save_and_reload"}), probe_save_and_reload),
    (frozenset({"disable_adapter"}), probe_disable_adapter),
    (frozenset({"identity_at_start"}), probe_identity_at_start),
    (frozenset({"gradient_checkpointing"}), probe_gradient_checkpointing),
    (frozenset({"deterministic"}), probe_deterministic),
)
"""Which function fills which features, asked of every host."""
OWN_HOSTS: Final[tuple[tuple[frozenset[str], Callable[[Bench], dict[str, Capability]]], ...]] = (
    (frozenset(f"layer_types.{layer}" for layer in get_args(LayerType)), probe_layers),
    (frozenset({EXTRACTABLE}), probe_fidelity),
    (frozenset({"torch_compile"}), probe_compile),
    (
        frozenset(f"quantization.{name}" for name in get_args(QuantizationBackend)),
        probe_quantization,
    ),
)
"""The same for functions that choose their hosts themselves."""

CLOSE: Final = 0.05
"""Difference of errors [1] below which a variant is as its method."""

DEAR: Final = frozenset({"torch_compile"})
"""Features tried only when they are named: seconds a method, where all others take one second."""


def observe(
    method: str,
    setup: Setup,
    features: tuple[str, ...] | None,
    device: str,
    earlier: Observation | None,
) -> Observation:
    """What the probe sees of one method.

    Args:
        method: identifier.
        setup: what the method needs.
        features: only these are tried; all when `None`.
        device: where the models live.
        earlier: facts to keep for features that are not tried.

    Raises:
        ProbeError: the set-up is wrong.
    """
    torch.set_num_threads(1)  # the same order of additions on every machine
    wanted = frozenset(FEATURE_IDS) - DEAR if features is None else frozenset(features)
    capabilities = dict(earlier.capabilities) if earlier is not None else {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            bench = Bench(method, setup, Path(folder), device)
            for name, answer in _answers(bench, wanted).items():
                if not _weaker(answer, capabilities.get(name)):
                    capabilities[name] = answer
            words = earlier.initialisation if earlier is not None else None
            if INITIALISATION in wanted:
                words = initialisation(bench)
            passing = earlier.inference if earlier is not None else None
            if features is None or INFERENCE in wanted:
                passing = inference(bench)
            fidelity = earlier.fidelity if earlier is not None else None
            if EXTRACTABLE in wanted:
                fidelity = bench.fidelity
            options = effective_options(bench, OPTIONS)
            variants = {
                variant: _variant(
                    Bench(method, setup, Path(folder) / variant, device, overrides),
                    wanted,
                    capabilities,
                    fidelity,
                    earlier.variants.get(variant) if earlier is not None else None,
                )
                for variant, overrides in sorted(setup.variants.items())
            }
        finally:
            logging.disable(logging.NOTSET)
    unknown = found("unknown", "declared", "not tried yet: run the probe on this feature")
    used = {capability.environment for capability in capabilities.values()}
    for observation in variants.values():
        used |= {capability.environment for capability in observation.capabilities.values()}
    category: Category = "adapter"
    if bench.prompt:
        category = "prompt_learning"
    elif not bench.is_tuner:
        category = "other"
    return Observation(
        method=method,
        config_class=bench.config_class.__name__,
        category=category,
        environments=_environments(setup, device, earlier, used),
        capabilities={name: capabilities.get(name, unknown) for name in FEATURE_IDS},
        options=options,
        requires=setup.requires,
        variants=variants,
        initialisation=words,
        inference=passing,
        fidelity=fidelity,
    )


def _answers(bench: Bench, wanted: frozenset[str]) -> dict[str, Capability]:
    """What every room that fills a wanted feature says of it."""
    bench.folder.mkdir(exist_ok=True)
    answered: dict[str, Capability] = {}
    for rooms, ask in ((ROOMS, on_hosts), (OWN_HOSTS, said)):
        for names, room in rooms:
            if names & wanted:
                answers = ask(bench, names, room)
                answered |= {name: answer for name, answer in answers.items() if name in wanted}
    if bench.device != "cpu":
        there = {"environment": bench.device}
        return {
            name: answer.model_copy(update=there) if answer.environment == "cpu" else answer
            for name, answer in answered.items()
        }
    return answered


def _variant(
    bench: Bench,
    wanted: frozenset[str],
    own: dict[str, Capability],
    fidelity: Fidelity | None,
    earlier: VariantObservation | None,
) -> VariantObservation:
    """Features whose support under a variant is not that of its method, and so its fidelity."""
    differing = dict(earlier.capabilities) if earlier is not None else {}
    for name, answer in _answers(bench, wanted).items():
        if _weaker(answer, own.get(name)) or _weaker(answer, differing.get(name)):
            continue  # nothing was tried here: what was known stays
        differing.pop(name, None)
        known = own[name]
        if (answer.support, answer.conditions) != (known.support, known.conditions):
            differing[name] = answer
    found_now = earlier.fidelity if earlier is not None else None
    if EXTRACTABLE in wanted:
        found_now = bench.fidelity
    if _alike(found_now, fidelity):
        found_now = None
    return VariantObservation(capabilities=differing, fidelity=found_now)


def _alike(fidelity: Fidelity | None, other: Fidelity | None) -> bool:
    """Whether two fidelities tell the same, errors give or take `CLOSE`."""
    if fidelity is None or other is None:
        return fidelity is other
    apart: dict[str, object] = {"errors": (), "grid": ()}
    return fidelity.model_copy(update=apart) == other.model_copy(update=apart) and all(
        abs(a - b) <= CLOSE for a, b in zip_longest(fidelity.errors, other.errors, fillvalue=0.0)
    )


def _weaker(new: Capability, old: Capability | None) -> bool:
    """Whether `new` is read from code only because a package is missing here."""
    return new.level == "declared" and old is not None and old.environment == ENVIRONMENT


def environment(setup: Setup, device: str) -> Environment:
    """Versions under which this process observes."""
    return Environment(
        peft=metadata.version("peft"),
        python=".".join(platform.python_version_tuple()[:2]),
        torch=torch.__version__.partition("+")[0],
        transformers=transformers.__version__,
        device=device,
        packages={name: metadata.version(name) for name in setup.requires},
    )


def _environments(
    setup: Setup, device: str, earlier: Observation | None, used: set[str]
) -> dict[str, Environment]:
    """Every environment that a capability names."""
    now = environment(setup, device)
    found = dict(earlier.environments) if earlier is not None else {}
    found[device] = now
    installed = {
        backend.package: backend.version for backend in BACKENDS.values() if backend.available
    }
    if installed:
        packages = {**now.packages, **installed}
        found[ENVIRONMENT] = now.model_copy(update={"packages": packages})
    return {key: found[key] for key in sorted(used | {device}) if key in found}
