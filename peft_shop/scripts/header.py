"""Docstring of a script: what was measured, how this script runs, and what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.forecast.records import Setup
from peft_shop.scripts.data import CHAT, LABELS, TRAIN_FILE
from peft_shop.scripts.source import comment, wrapped
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.adapt.records import Retargeted
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Recipe, Run
    from peft_shop.forecast.records import Settings
    from peft_shop.scripts.step import Step

__all__ = ["about", "docstring", "packages"]

_VERSIONS: Final = {"peft", "torch", "transformers", "diffusers"}
_HANDLED: Final = {
    "generation_batch_size",
    CHAT,
    LABELS,
    TRAIN_FILE,
    "attn_implementation",
    "init_kv_cache_prefix",
    "max_sequence_length",
    "text_encoder_out_layers",
}
"""Options of a benchmark that scripts have."""
_BASES: Final = {"bnb_4bit": "base in 4 bit (nf4)", "bnb_8bit": "base in 8 bit"}
_FITS: Final = {"yes": "fits surely", "maybe": "too close to call"}


def about(
    run: Run,
    recipe: Recipe,
    benchmark: Benchmark,
    step: Step,
    *,
    retargeted: Retargeted | None = None,
    setup: Setup | Settings | None = None,
    device: str | None = None,
) -> list[str]:
    """Lines that name the run, what was measured, what differs and the setup."""
    score = run.metrics.get(benchmark.headline)
    memory = run.metrics.get("peak_memory_bytes")
    versions = [
        f"{name} {version}"
        for name, version in run.provenance.packages.items()
        if name in _VERSIONS
    ]
    label = benchmark.headline.replace("_", " ")
    shown = "not recorded" if score is None else f"{score:.4g}"
    return [
        (
            f"Train all weights of {recipe.training.model_id}."
            if recipe.peft_type is None
            else f"Train an adapter of {recipe.training.model_id} with peft ({recipe.peft_type})."
        ),
        "",
        f"Measured run: {run.experiment} of {benchmark.title}, {run.created_at[:10]}",
        f"  {label}: {shown}",
        f"  peak memory: {'not recorded' if memory is None else format_quantity(memory, 'bytes')}",
        *_changes(retargeted),
        f"  hardware: {run.provenance.accelerator}",
        f"  versions: {', '.join(versions) or 'not recorded'}",
        *(f"  caution, {flag.code}: {flag.reason}" for flag in run.flags),
        *(f"  not in this script: {setting}" for setting in _left_out(recipe, benchmark)),
        *(f"  caution: {caveat}" for caveat in benchmark.caveats),
        "These figures belong to that model, data and hardware; on others they will differ.",
        "",
        *_setup(recipe, benchmark, step, setup, device),
    ]


def docstring(lines: Iterable[str]) -> str:
    """Lines as the docstring of a script, in quotes."""
    # the characters that comment lets through cannot end it
    return '"""' + "\n".join(wrapped(comment(line)) for line in lines) + '\n"""\n'


def _changes(retargeted: Retargeted | None) -> list[str]:
    if retargeted is None or not retargeted.changes:
        return []
    fields = ", ".join(change.field for change in retargeted.changes)
    return [f"  changed for this model: {fields}"]


def _left_out(recipe: Recipe, benchmark: Benchmark) -> list[str]:
    training = recipe.training
    settings = [
        setting
        for setting, used in (
            ("torch.compile", training.compile),
            ("automatic mixed precision", training.mixed_precision),
        )
        if used
    ]
    return settings + [
        f"{key} = {value!r}"
        for key, value in sorted(training.options.items())
        if key not in _HANDLED and key not in benchmark.settings
    ]


def _setup(
    recipe: Recipe,
    benchmark: Benchmark,
    step: Step,
    setup: Setup | Settings | None,
    device: str | None,
) -> list[str]:
    if setup is None and step.backend is None and not step.notes:
        return []
    training = recipe.training
    image = benchmark.modality == "image"
    length = "pixels" if image else "tokens"
    place = f" for {device}" if device else ""
    measured = [f"batch {training.batch_size}", f"{training.max_length} {length}"]
    if training.gradient_checkpointing:
        measured.append("gradient checkpointing")
    chosen = ", ".join(_described(step, "images" if image else "sequences", length))
    lines = [f"setup{place}: {chosen}; measured with: {', '.join(measured)}"]
    if isinstance(setup, Setup):
        peak = (setup.peak.value, setup.peak.low, setup.peak.high)
        value, low, high = (format_quantity(size, "bytes") for size in peak)
        lines.append(
            f"  forecast of its peak memory: {value} ({low} to {high}), {_FITS[setup.fits]}"
        )
    return [*lines, *(f"  {note}" for note in step.notes), ""]


def _described(step: Step, things: str, length: str) -> list[str]:
    """The step in words, its type first."""
    batches = f"{step.batch_size} x {step.accumulation}" if step.accumulation > 1 else ""
    words = [
        step.dtype,
        f"{batches or step.batch_size} {things} of {step.max_length} {length} a step",
    ]
    if step.backend is not None:
        words.insert(0, _BASES[step.backend] if step.quantize else f"{step.backend} base as it is")
        words.append("prepared for k-bit training" if step.prepare else "not prepared")
    if step.checkpointing:
        words.append("gradient checkpointing")
    if step.chunked:
        words.append("loss in chunks")
    if step.attention is not None:
        words.append(f"{step.attention} attention")
    words.append(f"{step.optimizer} in 8 bit" if step.eight_bit else step.optimizer)
    return words


def packages(recipe: Recipe, benchmark: Benchmark, step: Step, method: Method | None) -> list[str]:
    """What must be installed for a script, as pip takes it."""
    needed = ["peft", "torch", "transformers"]
    needed += [] if TRAIN_FILE in recipe.training.options else ["datasets"]
    needed += ["'diffusers>=0.40'", "pillow"] if benchmark.modality == "image" else []
    needed += () if method is None else method.requires
    needed += [] if step.backend is None else ["accelerate"]
    needed += ["flash-attn"] if step.attention == "flash_attention_2" else []
    bits_and_bytes = step.eight_bit or (step.backend or "").startswith("bnb_")
    return [*needed, *(["bitsandbytes"] if bits_and_bytes else [])]
