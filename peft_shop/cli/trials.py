"""What `peft-shop trial` does: plan, run, run-one, status, export."""

import json
from pathlib import Path
from typing import Annotated, Final, TypeAlias

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
from peft_shop.errors import QueryError
from peft_shop.show.progress import progress_bars, waiting
from peft_shop.show.trials import plan_document, status_document
from peft_shop.trial.engines import slots_of
from peft_shop.trial.proposing import TrialPlan
from peft_shop.trial.trial import Trial

__all__ = ["Folder", "export", "plan", "run", "run_one", "show_plan", "status"]

_EVERY: Final = 30.0
"""Between two lines of progress where there is no terminal [s]."""
Folder: TypeAlias = Annotated[
    Path, typer.Argument(help="The trial's folder.", metavar="DIR", show_default=False)
]
AllowCode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Run the score function of a folder that came from elsewhere."
    ),
]
KeepAdapters: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--keep",
        help="Adapters that stay, in runs/ID/adapter: best of each candidate's seeds, by "
        "validation loss, or all. Default: none.",
        metavar="best|all",
    ),
]
Within: TypeAlias = Annotated[
    str | None,
    typer.Option("--within", help="Time that it may take, such as 6h.", metavar="TIME"),
]


@takes(output)
def plan(
    out: Output,
    folder: Folder,
    *,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Train a few steps first, to tell the time.")
    ] = False,
    within: Within = None,
    allow_code: AllowCode = False,
) -> None:
    """Show what a trial will do: candidates, rates, runs, memory and time.

    Exit code with --within: 0 it fits, 1 it does not, 3 nobody can tell yet.
    """
    trial = Trial(folder)
    if calibrate:
        with waiting("training a few steps"):
            trial.calibrate(allow_code=allow_code)
    with waiting("reading the model and the data"):
        plan = trial.plan(within=within)
    show_plan(out, plan)
    if within is None:
        return
    if plan.fits is None:
        raise typer.Exit(TOO_CLOSE)
    if not plan.fits:
        say(plan.advice(within))
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
            help="Runs at the same time. Default: 1 on this machine, where more on one accelerator "
            "need --share; in a cluster as many as it takes.",
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="Let several --slots meet on one accelerator, and do without memory and time.",
        ),
    ] = False,
    stage: Annotated[
        str,
        typer.Option(
            "--stage", help="The last one that is done: base, rates or seeds.", metavar="STAGE"
        ),
    ] = "seeds",
    within: Within = None,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            help="Start even where the forecast says that it does not fit --within, and do what "
            "there is time for.",
        ),
    ] = False,
    keep: KeepAdapters = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            help="After which one run is ended. Default: three times its forecast, at least 10 "
            "minutes, where a plan was calibrated; else never.",
            metavar="TIME",
        ),
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Do what is left of a trial; it can be interrupted and run again at any time.

    Exit code: 0 every run (of --stage and those before) has figures, 1 some have none or are still
    to be done, or the trial does not fit --within and nothing was started.
    """
    trial = Trial(folder)
    if within is not None:
        together = slots_of(engine, slots)
        # a stage before the last is no whole trial: there is nothing to propose for it
        _hold_to_time(trial, within, slots=together, yes=yes or stage != "seeds")
    with waiting("reading the model and the data"):
        trial.freeze()
    with progress_bars("runs", "steps", every=_EVERY) as (tell, tell_step):
        reached = trial.run(
            engine=engine,  # type: ignore[arg-type]  # checked there
            address=address,
            slots=slots,
            stage=stage,  # type: ignore[arg-type]  # checked there
            within=within,
            keep=keep,  # type: ignore[arg-type]  # as above
            share=share,
            timeout=timeout,
            tell=tell,
            tell_step=tell_step,
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
    keep: KeepAdapters = None,
    allow_code: AllowCode = False,
) -> None:
    """Do one run of a trial, as a scheduler's array job does.

    It writes its own files only; one that has an outcome is left as it is. Exit code: 0 it has
    figures, 1 it has none, or the stage has no run of that number.
    """
    if (name is None) == (index is None):
        raise QueryError("name the run, or give its number with --index")
    result = Trial(folder).run_one(
        name,
        index=index,
        stage=stage,
        keep=keep,  # type: ignore[arg-type]  # checked there
        allow_code=allow_code,
    )
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


def show_plan(out: Output, plan: TrialPlan) -> None:
    """Shows what a trial will do."""
    whole = plan.model_dump(mode="json")
    if plan.proposal is None:
        del whole["proposal"]
    out.show(
        plan_document(plan.protocol, plan.estimate),
        json=lambda: json.dumps(whole, indent=2, ensure_ascii=False) + "\n",
    )


def _hold_to_time(trial: Trial, within: str, *, slots: int | None, yes: bool) -> None:
    """Says beforehand what would not be done in time, and stops there unless `yes`.

    Raises:
        Exit: the forecast says that it does not fit.
    """
    with waiting("reading the model and the data"):
        plan = trial.plan(within=within, slots=slots)
    if plan.fits:
        return
    goes_on = yes or plan.fits is None
    end = f"no run is started after {within}"
    if not goes_on:
        end = f"nothing was started: --yes does what there is time for in {within}"
    say(f"{plan.advice(within)}; {end}")
    if not goes_on:
        raise typer.Exit(NOTHING_FOUND)
