"""The runs on file as cases for a forecast: their settings, and which are not comparable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.forecast.records import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run
    from peft_shop.model.structure import Structure

__all__ = ["FITTED", "HOLD_OUT", "Case", "cases_of"]

FITTED: Final = "2026-08-14"
"""Newest snapshot whose runs the constants are fitted to."""
HOLD_OUT: Final = "2026-09-16"
"""Snapshot whose new runs no constant is fitted to."""
LONGEST_BATCH: Final = 701
"""Tokens of the longest padded batch of MetaMathQA's training; inferred from the runs' memory."""
_PROMPT_TOKENS: Final = 512
"""Tokens of the text prompt in image generation: the suite's `max_sequence_length`."""
_OPTIMIZERS: Final = {"lora-fa": "lora_fa", "riemannian": "riemannian"}


@dataclass(frozen=True)
class Case:
    """One run beside what a forecast of it needs.

    Attributes:
        run: the record.
        config: its configuration as JSON; `None` for full fine-tuning.
        settings: of its training step.
        structure: of its model.
        held_out: whether it is one of the hold-out.
        excluded: why the constants are not fitted to its memory; empty where they are.
    """

    run: Run
    config: Mapping[str, Any] | None
    settings: Settings
    structure: Structure
    held_out: bool
    excluded: str

    @property
    def recorded(self) -> int:
        """Recorded peak memory [B]."""
        return int(self.run.metrics["peak_memory_bytes"])


def cases_of(catalog: Catalog, structures: Mapping[str, Structure]) -> list[Case]:
    """Every run that is current in the newest snapshot, in the catalog's order."""
    return [
        Case(
            run=run,
            config=_config(run),
            settings=_settings(run),
            structure=structures[run.benchmark],
            held_out=run.snapshots == (HOLD_OUT,),
            excluded=_excluded(run),
        )
        for run in _current(catalog.runs)
        if run.benchmark in structures
    ]


def _current(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if HOLD_OUT in run.snapshots]


def _config(run: Run) -> dict[str, Any] | None:
    if run.recipe.peft_type is None:
        return None
    return {"peft_type": run.recipe.peft_type, **run.recipe.resolved, **run.recipe.config}


def _settings(run: Run) -> Settings:
    training = run.recipe.training
    image = run.benchmark == "image_gen"
    return Settings(
        batch_size=training.batch_size,
        sequence_length=_PROMPT_TOKENS if image else LONGEST_BATCH,
        image_size=training.max_length if image else 512,
        dtype=training.dtype,
        optimizer=_OPTIMIZERS.get(training.optimizer, "adamw"),
        gradient_checkpointing=training.gradient_checkpointing,
        autocast_adapter_dtype=training.autocast_adapter_dtype,
        # the image suite adds the adapter on the CPU and moves the whole
        moved_after_injection=image,
        accelerator=run.provenance.accelerator,
    )


def _excluded(run: Run) -> str:
    """Why the run's memory says nothing about the installed peft."""
    if run.method == FULL_FINETUNING:
        return "full fine-tuning has no adapter: shown, not fitted"
    if any("peak_memory_bytes" in flag.metrics or not flag.metrics for flag in run.flags):
        return "flagged: " + "; ".join(flag.code for flag in run.flags)
    if run.method == "adalora":
        return (
            "peft 0.21.2 trains the rank counter and keeps outputs for it; the run's peft did not"
        )
    if run.method == "osf" and run.benchmark == "metamathqa":
        return "stale: recorded before peft stored the singular directions as it does now"
    return ""
