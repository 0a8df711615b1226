"""What `peft-shop trial` does: new, plan, run, run-one, status, export."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from peft_shop.cli.options import Destination, Force, takes
from peft_shop.cli.output import (
    NOTHING_FOUND,
    TOO_CLOSE,
    Output,
    output,
    say,
    write_file,
    write_out,
)
from peft_shop.cli.values import split
from peft_shop.errors import QueryError
from peft_shop.show.progress import progress_bar, waiting
from peft_shop.show.trials import plan_document, status_document
from peft_shop.trial.costing import calibrate as measure
from peft_shop.trial.costing import calibration_of, estimate
from peft_shop.trial.trial import Trial
from peft_shop.units import read_quantity

__all__ = ["export", "new", "plan", "run", "run_one", "status"]

_DATA: Final = "Data"
_EQUAL: Final = "Equal for all"
Folder: TypeAlias = Annotated[
    Path, typer.Argument(help="The trial's folder.", metavar="DIR", show_default=False)
]
AllowCode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Run the score function of a folder that came from elsewhere."
    ),
]
Within: TypeAlias = Annotated[
    str | None,
    typer.Option("--within", help="Time that it may take, such as 6h.", metavar="TIME"),
]


def _file(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_DATA, metavar="FILE")


def _number(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_EQUAL, metavar="N")


class TrialTask(StrEnum):
    """What models learn."""

    CAUSAL_LM = "causal_lm"
    SEQ_CLS = "seq_cls"


class BaseDtype(StrEnum):
    """Data types of a base."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@takes(output)
def new(
    out: Output,
    folder: Folder,
    *,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder of the base model.", metavar="MODEL")
    ],
    train: Annotated[Path, _file("--train", "Examples: .jsonl, .json, .csv, .txt, .parquet.")],
    valid: Annotated[
        Path | None, _file("--valid", "Examples that choose the rate; else a tenth of --train.")
    ] = None,
    test: Annotated[
        Path | None, _file("--test", "Examples that are scored at the end; else a tenth.")
    ] = None,
    general: Annotated[
        Path | None, _file("--general", "Other text, to see what is forgotten.")
    ] = None,
    task: Annotated[
        TrialTask,
        typer.Option(
            "--task",
            help="causal_lm: go on with a text; seq_cls: name its class, by a new head.",
            rich_help_panel=_DATA,
            metavar="TASK",
        ),
    ] = TrialTask.CAUSAL_LM,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Of test examples: loss, exact_match, choice, accuracy, or FILE.py:FUNCTION. "
            "Default: loss; of classes accuracy.",
            rich_help_panel=_DATA,
            metavar="SCORE",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            help="Of a generated answer. Default: 64.",
            rich_help_panel=_DATA,
            metavar="N",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            help="A string that a generated answer ends before; several times for several.",
            rich_help_panel=_DATA,
            metavar="TEXT",
        ),
    ] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidates",
            help="How many of the published order for this model, or names of methods and runs. "
            "Default: 6.",
            metavar="N|NAMES",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="What they must fit on, such as 'RTX 4090'.", metavar="NAME|SIZE"
        ),
    ] = None,
    full_finetuning: Annotated[
        bool, typer.Option("--full-finetuning", help="Train all weights too, as a yardstick.")
    ] = False,
    steps: Annotated[int | None, _number("--steps", "Optimizer steps. Default: 500.")] = None,
    batch_size: Annotated[
        int | None, _number("--batch-size", "Examples of one step. Default: 8.")
    ] = None,
    accumulation: Annotated[
        int | None,
        _number("--accumulation", "Parts of a step. Default: 1, or as --device needs."),
    ] = None,
    max_length: Annotated[
        int | None, _number("--max-length", "Tokens of an example. Default: 512.")
    ] = None,
    rates: Annotated[
        int | None, _number("--rates", "Learning rates for each candidate. Default: 3.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            help="Seeds at the chosen rate; auto: 3, and up to 12 for those that stay tied. "
            "Default: 3.",
            rich_help_panel=_EQUAL,
            metavar="N|auto",
        ),
    ] = None,
    halving: Annotated[
        bool,
        typer.Option(
            "--halving",
            help="Stop runs of the rates that are significantly worse than plain LoRA at half the "
            "steps.",
            rich_help_panel=_EQUAL,
        ),
    ] = False,
    dtype: Annotated[
        BaseDtype,
        typer.Option(
            "--dtype",
            help="Of the base: auto (bfloat16 on an accelerator, else float32), float32, bfloat16 "
            "or float16.",
            rich_help_panel=_EQUAL,
            metavar="TYPE",
        ),
    ] = BaseDtype.AUTO,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Run blocks again in the backward pass: less memory, more time. Default: where a "
            "candidate needs it to fit --device.",
            rich_help_panel=_EQUAL,
        ),
    ] = None,
) -> None:
    """Make a trial: a folder that says what is to be compared. Nothing is started.

    trial.toml in it may be edited until the first run; --full-finetuning and the rest are there.
    """
    settings = {
        "valid": valid,
        "test": test,
        "general": general,
        "device": device,
        "full_finetuning": full_finetuning,
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "max_length": max_length,
        "rates": rates,
        "seeds": int(seeds) if seeds is not None and seeds.isdecimal() else seeds,
        "halving": halving,
        "dtype": dtype.value,
        "gradient_checkpointing": gradient_checkpointing,
        "task": task.value,
        "score": score,
        "max_new_tokens": max_new_tokens,
        "stop": tuple(stop) if stop else None,
    }
    names = split(candidates)
    chosen: int | tuple[str, ...] = tuple(names) if names else 6
    if len(names) == 1 and names[0].isdecimal():
        chosen = int(names[0])
    trial = Trial.create(folder, model=model, train=train, candidates=chosen, **settings)
    _show_plan(out, trial)
    say(f"made {folder}; `peft-shop trial run {folder}` starts it")


@takes(output)
def plan(
    out: Output,
    folder: Folder,
    *,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Train a few steps first, to tell the time.")
    ] = False,
    within: Within = None,
) -> None:
    """Show what a trial will do: candidates, rates, runs, memory and time.

    Exit code with --within: 0 it fits, 1 it does not, 3 nobody can tell yet.
    """
    trial = Trial(folder)
    limit = None if within is None else read_quantity(within, "seconds", name="within")
    if calibrate:
        with waiting("training a few steps"):
            measure(trial.folder, trial.freeze())
    left = _show_plan(out, trial)
    if limit is None:
        return
    if left.low is None or left.high is None or left.low <= limit < left.high:
        raise typer.Exit(TOO_CLOSE)
    if left.high > limit:
        say(
            f"this does not fit into {within}: try fewer --rates, then --seeds, --steps, "
            "--candidates, in that order"
        )
        raise typer.Exit(NOTHING_FOUND)


@takes(output)
def run(
    out: Output,
    folder: Folder,
    *,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="local: this machine; ray: a Ray cluster.",
            metavar="local|ray",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Of the Ray cluster, such as auto; without one Ray starts on this machine.",
            metavar="ADDRESS",
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            "--slots",
            help="Runs at the same time. Default: 1 on this machine, where more share it and times "
            "are no evidence then; in a cluster as many as it takes.",
        ),
    ] = None,
    stage: Annotated[
        str,
        typer.Option(
            "--stage", help="The last one that is done: base, rates or seeds.", metavar="STAGE"
        ),
    ] = "seeds",
    within: Within = None,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", help="After which one run is ended.", metavar="TIME"),
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Do what is left of a trial; it can be interrupted and run again at any time.

    Exit code: 0 every run (of --stage and those before) has figures, 1 some have none or are still
    to be done.
    """
    trial = Trial(folder)
    with waiting("reading the model and the data"):
        trial.freeze()
    with progress_bar("runs") as tell:
        reached = trial.run(
            engine=engine,  # type: ignore[arg-type]  # checked there
            address=address,
            slots=slots,
            stage=stage,  # type: ignore[arg-type]  # checked there
            within=within,
            timeout=timeout,
            tell=tell,
            allow_code=allow_code,
        )
    out.show(status_document(reached, trial.estimate()), json=reached.model_dump_json)
    if reached.failed or not trial.complete_until(stage):  # type: ignore[arg-type]  # as above
        raise typer.Exit(NOTHING_FOUND)
    if reached.complete:
        say(f"now: peft-shop recommend --catalog {folder}")


def run_one(
    folder: Folder,
    name: Annotated[
        str | None, typer.Argument(help="The run's name, as status --json has it.", metavar="RUN")
    ] = None,
    *,
    index: Annotated[
        int | None,
        typer.Option("--index", help="Its number in the stage, from 0 on.", metavar="N"),
    ] = None,
    stage: Annotated[
        str, typer.Option("--stage", help="base, rates or seeds.", metavar="STAGE")
    ] = "rates",
    allow_code: AllowCode = False,
) -> None:
    """Do one run of a trial, as a scheduler's array job does.

    It writes its own files only; one that has an outcome is left as it is. Exit code: 0 it has
    figures, 1 it has none, or the stage has no run of that number.
    """
    if (name is None) == (index is None):
        raise QueryError("name the run, or give its number with --index")
    result = Trial(folder).run_one(name, index=index, stage=stage, allow_code=allow_code)
    if result is None:
        say(f"stage {stage} has no run {index}")
        raise typer.Exit(NOTHING_FOUND)
    say(f"{result.id}: {result.outcome}" + (f": {result.detail}" if result.detail else ""))
    if result.measured is None:
        raise typer.Exit(NOTHING_FOUND)


@takes(output)
def status(out: Output, folder: Folder) -> None:
    """Tell how far a trial is, and what failed and why."""
    trial = Trial(folder)
    reached = trial.status()
    if reached.done:
        trial.refresh()
    document = status_document(reached, trial.estimate())
    out.show(document, json=lambda: reached.model_dump_json(indent=2) + "\n")


def export(folder: Folder, *, destination: Destination = None, force: Force = False) -> None:
    """Write a trial as a catalog file without paths, to be given away."""
    content = Trial(folder).exported().decode()
    if destination is None:
        write_out(content)
    else:
        write_file(destination, content, force=force)
        say(f"wrote {destination}")


def _show_plan(out: Output, trial: Trial) -> Any:
    with waiting("reading the model and the data"):
        protocol = trial.protocol
    left = estimate(protocol, trial.results(protocol), calibration_of(trial.folder, protocol))
    whole = {
        "protocol": protocol.model_dump(mode="json"),
        "estimate": left.model_dump(mode="json"),
    }
    out.show(
        plan_document(protocol, left),
        json=lambda: json.dumps(whole, indent=2, ensure_ascii=False) + "\n",
    )
    return left
