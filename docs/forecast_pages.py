"""Reference page made from `data/forecast_accuracy.json`: how good forecasts are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from code_pages import GENERATED, table

from peft_shop.forecast.devices import devices
from peft_shop.forecast.quick.closed_forms import EQUATIONS
from peft_shop.forecast.quick.methods.registry import WITHOUT_CLOSED_FORM
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = Path(__file__).resolve().parents[1] / "data"
FIGURES = DATA / "forecast_accuracy.json"
DRY_RUNS = DATA / "forecast_dry_run.json"
MEASURED = DATA / "forecast_measured.json"
FIELDS = {
    "trainable_parameters": "trainable parameters",
    "total_parameters": "total parameters",
    "checkpoint_bytes": "checkpoint [B]",
}
PARTS = {
    "in_sample": "fitted runs, constants fitted to all of them",
    "method_left_out": "the same runs, each forecast without the runs of its method",
    "hold_out": "hold-out: newer runs, to which no constant was fitted",
}
SUITES = {
    "metamathqa": "MetaMathQA (language model, no gradient checkpointing)",
    "image_gen": "image_gen (diffusion transformer, gradient checkpointing)",
}
RULES = {
    "constant": "the median peak of the other methods' runs",
    "four_times_model": "four times the model in its dtype",
    "weights_and_16": "weights and 16 bytes per trained parameter",
    "four_times_model_full": "four times the model, for full fine-tuning",
    "accelerate_full": "`accelerate estimate-memory`, for full fine-tuning",
}


def forecast() -> str:
    """`reference/forecast.md`."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    parts = [
        "# How good forecasts are",
        GENERATED,
        (
            "Errors are forecast over record, less one, without sign in the tables of figures. "
            "`python -m peft_shop.curate.calibration.command` fits, measures and writes all of "
            "this; a test fails when a change makes any of it worse."
        ),
        "## Counts and checkpoints",
        (
            "By injection into a model without weights, under peft "
            f"{figures['peft_version']}, and by closed forms from the shapes of the layers, "
            "which need neither torch nor peft. Both are compared with every run of the newest "
            "snapshot."
        ),
        table(("figure", "runs", "exact by injection", "exact by closed form"), _exact(figures)),
        "What is missed, and why:",
        table(("suite", "run", "figure", "way", "off by", "because"), _misses(figures)),
        *_dry_runs(json.loads(DRY_RUNS.read_text(encoding="utf-8"))),
        "## Peak memory by closed form",
        (
            "The parts come from the shapes: what each method keeps for its backward pass was "
            "read off the installed peft with autograd's hooks, and tests repeat that. All runs "
            "were in view when the formulas were written, the hold-out's as well. Two "
            "constants a suite are fitted: a factor on activations, and bytes per trained byte "
            f"for gradients and temporaries. The longest batch of MetaMathQA, "
            f"{figures['longest_batch_tokens']} tokens, is inferred from the runs as well."
        ),
    ]
    for suite, title in SUITES.items():
        parts += _suite(title, figures["memory"][suite])
    parts += _measured(json.loads(MEASURED.read_text(encoding="utf-8")))
    parts += [
        "## Parts of the peak",
        table(("part", "how it is reckoned"), ((f"`{k}`", v) for k, v in EQUATIONS.items())),
        (
            "h is the width of the residual stream, q and kv the widths of queries and keys, i "
            "the width of the MLP, V the vocabulary, B the batch, S the tokens of a sequence."
        ),
        "## No closed form",
        table(("method", "why"), ((f"`{k}`", v) for k, v in sorted(WITHOUT_CLOSED_FORM.items()))),
        (
            "Nor for mixtures of experts, state-space blocks, convolutional image models, "
            "`bias=`, `trainable_token_indices` and `target_parameters`: a dry run answers there."
        ),
        "## Devices",
        (
            "Names that `device` understands, from `data/devices.toml`, which has the sources. A "
            "size such as `24GiB` does as well, and a count in front, as in `2xA100-80GB`, stands "
            "for memory per device. Up to 0.6 GiB of it is taken for the context of the process."
        ),
        table(
            ("device", "memory"),
            ((one.name, format_quantity(one.memory_bytes, "bytes")) for one in devices()),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _dry_runs(figures: Mapping[str, Any]) -> list[str]:
    """What the dry run forecast of every run: memory and step time, and its widest misses."""
    rows, widest, left_out = [], [], []
    for suite, found in figures["suites"].items():
        for what in ("memory", "time"):
            own = found[what]
            for part in ("method_left_out", "hold_out"):
                one = own[part]
                rows.append(
                    (
                        SUITES[suite].partition(" ")[0],
                        {"memory": "peak memory", "time": "step time"}[what],
                        part.replace("_", " "),
                        str(one["runs"]),
                        _share(one.get("mean")),
                        _share(one.get("median")),
                        _share(one.get("maximum")),
                        _share(one.get("coverage")),
                    )
                )
            fitted = [one for one in own["runs"] if not one.get("excluded")]
            worst = sorted(fitted, key=lambda one: (-abs(one["error"]), one["experiment"]))[:4]
            widest += [
                (
                    suite,
                    {"memory": "peak memory", "time": "step time"}[what],
                    f"`{one['experiment']}`",
                    f"{one['error']:+.1%}",
                )
                for one in worst
            ]
        left_out += [
            (suite, f"`{one['experiment']}`", f"{one['error']:+.1%}", one["excluded"])
            for one in found["memory"]["excluded"]
        ]
        left_out += [
            (suite, f"`{name}`", "-", f"not forecast: {reason}")
            for name, reason in sorted(found["memory"]["refused"].items())
        ]
    return [
        "## Peak memory and step time by dry run",
        (
            "One training step of the model's own code runs on the meta device under peft "
            f"{figures['peft_version']} and torch {figures['torch_version']}; a model of torch's "
            "caching allocator serves what it allocates. Nothing is fitted for memory but the "
            "longest batch of MetaMathQA; five costs a suite (floating-point work in two "
            "precisions, traffic, kernels, values read back) are fitted for time, each run "
            "without the runs of its method. `python -m "
            "peft_shop.curate.calibration.dry_run_accuracy data` does all of it."
        ),
        table(
            (
                "suite",
                "figure",
                "runs compared",
                "runs",
                "mean",
                "median",
                "largest",
                "inside 90 %",
            ),
            rows,
        ),
        "The widest misses:",
        table(("suite", "figure", "run", "off by"), widest),
        "Shown, and not part of the figures of memory:",
        table(("suite", "run", "off by", "because"), left_out),
    ]


def _measured(figures: Mapping[str, Any]) -> list[str]:
    """Both ways beside measured steps of language models with gradient checkpointing."""
    ways = {"closed_form": "closed form (`--quick`)", "dry_run": "dry run"}
    rows = [
        (
            title,
            {"all": "all", "sdpa": "sdpa", "eager": "eager"}[part],
            str(own["runs"]),
            _share(own["mean"]),
            f"{own['bias']:+.2%}",
            _share(own["maximum"]),
            f"{own['inside']} of {own['runs']}",
            str(own["above"]),
        )
        for way, title in ways.items()
        for part, own in figures[way].items()
        if part in {"all", "sdpa", "eager"}
    ]
    held = " and ".join(
        f"{figures[way]['inside_without_own_model']} of {figures[way]['all']['runs']} ({title})"
        for way, title in ways.items()
    )
    return [
        "## Language models with gradient checkpointing",
        (
            "Measured steps on a Tesla T4 in float16, half of them on a 4-bit base after "
            "`prepare_model_for_kbit_training`; `data/measured_memory.csv` has them with their "
            "source. The closed form's factors for reserved memory (1.16; for eager attention a "
            "quarter of the smaller of loss and block on top) were fitted to these steps; the dry "
            "run has no fitted number. On that card an interval is meant to hold nine of ten "
            "steps: its ends are order statistics of these errors, as split conformal prediction "
            f"takes them; with ends from the steps of the other models alone, {held} lie inside. "
            "On every other card ends are the extremes of measured steps and 5 points, which "
            "nobody has checked there: they are wide on purpose and hold all 40 steps of the "
            "measured card. Eager attention never counts as fitting surely. "
            "`python -m peft_shop.curate.calibration.measured data` measures again."
        ),
        table(
            (
                "way",
                "attention",
                "steps",
                "mean",
                "bias",
                "largest",
                "inside the interval",
                "above it",
            ),
            rows,
        ),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _exact(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            title,
            str(figures["exact"][field]["runs"]),
            str(figures["injection"][field]["exact"]),
            str(figures["exact"][field]["exact"]),
        )
        for field, title in FIELDS.items()
    ]


def _misses(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found = []
    for way, key in (("injection", "injection"), ("closed form", "exact")):
        for field, title in FIELDS.items():
            for miss in figures[key][field]["misses"]:
                off = miss["forecast"]
                found.append(
                    (
                        miss["benchmark"],
                        f"`{miss['experiment']}`",
                        title,
                        way,
                        "none" if off is None else f"{off - miss['recorded']:+,}",
                        miss["because"],
                    )
                )
    return found


def _suite(title: str, memory: Mapping[str, Any]) -> list[str]:
    fitted = memory["constants"]
    residuals = memory["residuals"]
    rows = [
        (
            words,
            str(memory[part]["runs"]),
            _share(memory[part]["mean"]),
            _share(memory[part]["median"]),
            _share(memory[part]["maximum"]),
            _share(memory[part].get("coverage")),
        )
        for part, words in PARTS.items()
    ]
    naive = [
        (
            RULES[rule["rule"]],
            str(rule["runs"]),
            _share(rule["mean"]),
            _share(rule["median"]),
            _share(rule["maximum"]),
            "-",
        )
        for rule in memory["naive"]
    ]
    kept = [one for one in memory["runs"] if not one["excluded"]]
    worst = sorted(kept, key=lambda one: -abs(one["error"]))[:8]
    full = [one for one in memory["runs"] if one["method"] == "full_finetuning"]
    return [
        f"### {title}",
        (
            f"Fitted: activations x {fitted['activations']:g}, trained bytes x "
            f"{fitted['trained']:g}. The interval of a method that was measured here is "
            f"{residuals['low']:+.1%} to {residuals['high']:+.1%}: the 5 % and 95 % quantiles of "
            "record over forecast."
        ),
        table(
            ("compared", "runs", "mean", "median", "largest", "inside the 90 % interval"),
            [*rows, *naive],
        ),
        *(
            f"Where {RULES[rule['rule']]} comes nearer than the forecast: "
            + ", ".join(f"`{name}`" for name in rule["nearer"])
            + "."
            for rule in memory["naive"]
            if rule["nearer"]
        ),
        "Largest errors, signed: "
        + "; ".join(f"`{one['experiment']}` {one['error']:+.1%}" for one in worst)
        + ".",
        "Shown, not fitted:",
        table(
            ("run", "error", "because"),
            (
                (f"`{one['experiment']}`", f"{one['error']:+.1%}", one["excluded"])
                for one in memory["excluded"]
            ),
        ),
        *(
            f"Full fine-tuning is forecast {one['error']:+.1%} off its record; "
            f"`accelerate estimate-memory`, which knows no activations, "
            f"{_accelerate(memory):.1%}."
            for one in full
        ),
        "No closed form: " + "; ".join(f"`{one['run']}`" for one in memory["no_closed_form"]) + ".",
    ]


def _accelerate(memory: Mapping[str, Any]) -> float:
    return next(one["mean"] for one in memory["naive"] if one["rule"] == "accelerate_full")
