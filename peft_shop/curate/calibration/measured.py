"""Forecasts beside measured training steps of language models with gradient checkpointing.

    python -m peft_shop.curate.calibration.measured data

reads `measured_memory.csv` there and writes `forecast_measured.json`, which documentation and
tests read. All steps: a Tesla T4, float16, LoRA on query, key, value and output, AdamW, no padding
mask; where the base is in 4 bit, it is so without double quantization and after
`prepare_model_for_kbit_training`. Needs torch; takes about two minutes.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

from peft_shop.files import write_all
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.records import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from peft_shop.forecast.records import Interval
    from peft_shop.model.inspection import Target

__all__ = [
    "MEASURED",
    "MeasuredStep",
    "ends_of",
    "errors_of",
    "inside_without_own_model",
    "read_steps",
    "summary",
    "target_of",
]

MEASURED: Final = "measured_memory.csv"
_FIGURES: Final = "forecast_measured.json"
_TARGETS: Final = ["q_proj", "k_proj", "v_proj", "o_proj"]
_LONGEST: Final = 8192
"""Tokens that the models are given positions for."""
_WAYS: Final = ("closed_form", "dry_run")


@dataclass(frozen=True)
class MeasuredStep:
    """One row.

    Attributes:
        model: its name.
        fields: of its configuration in transformers, with `model_type`.
        config: of the adapter.
        settings: the training step.
        reserved_bytes: what torch reserved at most [B].
    """

    model: str
    fields: Mapping[str, Any]
    config: Mapping[str, Any]
    settings: Settings
    reserved_bytes: int


def read_steps(folder: Path) -> list[MeasuredStep]:
    """The rows, in the file's order."""
    with (folder / MEASURED).open(encoding="utf-8", newline="") as file:
        return [_step(row) for row in csv.DictReader(file)]


def _step(row: Mapping[str, str]) -> MeasuredStep:
    fields = {
        "model_type": row["model_type"],
        "num_hidden_layers": int(row["layers"]),
        "hidden_size": int(row["hidden"]),
        "intermediate_size": int(row["intermediate"]),
        "num_attention_heads": int(row["heads"]),
        "num_key_value_heads": int(row["key_value_heads"]),
        "vocab_size": int(row["vocabulary"]),
        "tie_word_embeddings": row["tied"] == "true",
        "max_position_embeddings": _LONGEST,
    }
    if row["model_type"] == "llama":
        fields["head_dim"] = int(row["head_dim"])
    return MeasuredStep(
        model=row["model"],
        fields=fields,
        config={
            "peft_type": "LORA",
            "r": int(row["rank"]),
            "target_modules": _TARGETS,
            "task_type": "CAUSAL_LM",
        },
        settings=Settings.model_validate(
            {
                "batch_size": int(row["batch"]),
                "sequence_length": int(row["tokens"]),
                "dtype": "float16",
                "quantization": row["quantization"] or None,
                "double_quantization": False,
                "gradient_checkpointing": True,
                "attention": row["attention"],
                "padding": False,
                "accelerator": "Tesla T4",
            }
        ),
        reserved_bytes=int(row["reserved_bytes"]),
    )


def target_of(step: MeasuredStep, known: dict[str, Target]) -> Target:
    """The model of a step, made once."""
    from transformers import AutoConfig

    from peft_shop.model.inspection import inspect_model

    if step.model not in known:
        known[step.model] = inspect_model(AutoConfig.for_model(**step.fields))
    return known[step.model]


def errors_of(
    steps: Iterable[MeasuredStep], forecast: Callable[[MeasuredStep], Interval]
) -> list[dict[str, Any]]:
    """Each step with what `forecast` says of it; equal steps are forecast once."""
    known: dict[tuple[str, Settings], Interval] = {}
    errors = []
    for step in steps:
        key = (step.model, step.settings)
        if key not in known:
            known[key] = forecast(step)
        peak = known[key]
        errors.append(
            {
                "model": step.model,
                "batch": step.settings.batch_size,
                "tokens": step.settings.sequence_length,
                "quantization": step.settings.quantization,
                "attention": step.settings.attention,
                "recorded": step.reserved_bytes,
                "forecast": round(peak.value),
                "error": round(peak.value / step.reserved_bytes - 1, 5),
                "inside": peak.low <= step.reserved_bytes <= peak.high,
                "above": step.reserved_bytes > peak.high,
            }
        )
    return errors


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean error without and with sign (`bias`), the largest, and how many lie in the interval."""
    errors = [row["error"] for row in rows]
    return {
        "runs": len(rows),
        "mean": round(mean(map(abs, errors)), 5),
        "bias": round(mean(errors), 5),
        "maximum": max(map(abs, errors)),
        "inside": sum(row["inside"] for row in rows),
        "above": sum(row["above"] for row in rows),
        "coverage": round(sum(row["inside"] for row in rows) / len(rows), 4),
    }


def ends_of(rows: Sequence[Mapping[str, Any]], confidence: float = 0.9) -> tuple[float, float]:
    """Shares of the forecast within which another measured step is expected.

    Order statistics of the residuals as split conformal prediction takes them: of `n` rows those
    of rank `(n + 1) a / 2` rounded down and `(n + 1) (1 - a / 2)` rounded up.
    """
    residuals = sorted(row["recorded"] / row["forecast"] - 1 for row in rows)
    tail, count = (1 - confidence) / 2, len(residuals)
    low = max(1, math.floor((count + 1) * tail))
    high = min(count, math.ceil((count + 1) * (1 - tail)))
    return residuals[low - 1], residuals[high - 1]


def inside_without_own_model(rows: Sequence[Mapping[str, Any]]) -> int:
    """Rows that lie within the ends of the other models' rows [count]."""
    count = 0
    for row in rows:
        low, high = ends_of([one for one in rows if one["model"] != row["model"]])
        count += low <= row["recorded"] / row["forecast"] - 1 <= high
    return count


def figures_of(steps: Sequence[MeasuredStep]) -> dict[str, Any]:
    """Figures of both ways, with those of each attention kernel."""
    from peft_shop.forecast.dry_run.forecasting import dry_run

    targets: dict[str, Target] = {}

    def quick(step: MeasuredStep) -> Interval:
        structure = target_of(step, targets).structure
        return closed_form(structure, step.config, step.settings).peak_memory

    def traced(step: MeasuredStep) -> Interval:
        return dry_run(target_of(step, targets), step.config, step.settings).peak_memory

    found: dict[str, Any] = {}
    for way, forecast in zip(_WAYS, (quick, traced), strict=True):
        rows = errors_of(steps, forecast)
        found[way] = {
            "all": summary(rows),
            **{
                kernel: summary([row for row in rows if row["attention"] == kernel])
                for kernel in ("sdpa", "eager")
            },
            "ends": [round(end, 5) for end in ends_of(rows)],
            "inside_without_own_model": inside_without_own_model(rows),
            "rows": rows,
        }
    return found


def main(folder: Path) -> int:
    """Exit code."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    figures = figures_of(read_steps(folder))
    body = (json.dumps(figures, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    for path in write_all({folder / _FIGURES: body}):
        print(f"written: {path}")
    for way in _WAYS:
        print(way, figures[way]["all"])
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "data")))
