"""`peft-shop trial ...`: candidates measured on one's own model and data."""

from typing import ClassVar

import typer

from peft_shop.cli.commands import CommandEntry, Group

__all__ = ["app"]


class TrialGroup(Group):
    """Commands about trials, in the order of their use."""

    table: ClassVar = {
        "new": CommandEntry(
            "peft_shop.cli.trial_new:new",
            "Make a trial: a folder that says what is to be compared. Nothing is started.",
        ),
        "plan": CommandEntry(
            "peft_shop.cli.trials:plan",
            "Show what a trial will do: candidates, rates, runs, memory and time.",
        ),
        "run": CommandEntry(
            "peft_shop.cli.trials:run",
            "Do what is left of a trial; it can be interrupted and run again at any time.",
        ),
        "run-one": CommandEntry(
            "peft_shop.cli.trials:run_one",
            "Do one run of a trial, as a scheduler's array job does.",
        ),
        "status": CommandEntry(
            "peft_shop.cli.trials:status", "Tell how far a trial is, and what failed and why."
        ),
        "export": CommandEntry(
            "peft_shop.cli.trials:export",
            "Write a trial as a catalog file without paths, to be given away.",
        ),
    }


app = typer.Typer(
    cls=TrialGroup,
    help="Measure candidates on your own model and data, under equal conditions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
"""The group of commands about trials."""
