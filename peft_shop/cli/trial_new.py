"""`peft-shop trial new`: what is asked of a trial, in options."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peft_shop.cli.options import takes
from peft_shop.cli.output import Output, output, say
from peft_shop.cli.trials import Folder, show_plan
from peft_shop.cli.values import split
from peft_shop.errors import PeftShopError
from peft_shop.trial.trial import Trial

__all__ = ["new"]

_DATA: Final = "Data"
_EQUAL: Final = "Equal for all"


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
    try:
        show_plan(out, trial.plan())
    except PeftShopError:
        # nothing is left behind, so that the same command works once it is put right
        trial.discard()
        raise
    say(f"made {folder}; `peft-shop trial run {folder}` starts it")
