"""The options of a question, written once for every command that asks one."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from peft_shop.ask.keywords import KEYWORDS
from peft_shop.catalog.features import SINGLES
from peft_shop.catalog.store import load
from peft_shop.cli.model import Adapt, Device, Fit, Model, Training, TrustRemoteCode, inspected
from peft_shop.cli.values import limits, names, partial, ranking, settings, split, supported
from peft_shop.errors import UnknownNameError

__all__ = [
    "Benchmark",
    "CatalogFile",
    "Destination",
    "Force",
    "RunName",
    "Snapshot",
    "capabilities",
    "question",
    "takes",
]

_ASK: Final = "What to optimise"
_LIMITS: Final = "Limits"
_MODEL: Final = "Which model"
_CAN: Final = "What it must be able to do (--no-NAME: must not)"
_KIND: Final = "Which methods"
_EVIDENCE: Final = "Which evidence"


def takes(*blocks: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the options of `blocks` become those of a command, before its own.

    The command's first parameters receive what the blocks make of their options.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        shared = [list(_parameters(block)) for block in blocks]
        own = list(_parameters(command))[len(blocks) :]

        def run(**given: Any) -> Any:
            made = [
                block(**{one.name: given.pop(one.name) for one in parameters})
                for block, parameters in zip(blocks, shared, strict=True)
            ]
            return command(*made, **given)

        every = [*own, *(one for parameters in shared for one in parameters)]
        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        run.__annotations__ = {one.name: one.annotation for one in every}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # functions have it
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in every]
        )
        return run

    return decorate


def _parameters(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    return tuple(inspect.signature(function).parameters.values())


def _option(*names: str, text: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar)


def _can(name: str, text: str) -> Any:
    return typer.Option(f"--{name}/--no-{name}", help=text, rich_help_panel=_CAN)


Several: TypeAlias = list[str] | None
Benchmark: TypeAlias = Annotated[
    str | None,
    _option(
        "--benchmark",
        "-b",
        text="What was measured: metamathqa (text, the default) or image-gen.",
        panel=_ASK,
        metavar="NAME",
    ),
]
Snapshot: TypeAlias = Annotated[
    str | None,
    _option(
        "--snapshot",
        text="State of the runs on a date, such as 2026-06-10; 'all' for every run. "
        "Default: the newest.",
        panel=_EVIDENCE,
        metavar="DATE",
    ),
]
CatalogFile: TypeAlias = Annotated[
    Path | None,
    _option(
        "--catalog",
        text="Catalog file to ask instead of the one that comes with peft-shop.",
        panel=_EVIDENCE,
        metavar="FILE",
    ),
]
Destination: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to write it instead of showing it."),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
RunName: TypeAlias = Annotated[
    str,
    typer.Argument(help="A run, or a method that has one run only.", metavar="NAME"),
]
Flag: TypeAlias = bool | None


def _with_flags(block: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the `**flags` of a block become an option for every capability of its own."""
    flags = [
        inspect.Parameter(
            single.id,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Flag, _can(single.id.replace("_", "-"), single.statement)],
        )
        for single in SINGLES
    ]
    named = [one for one in _parameters(block) if one.kind is not inspect.Parameter.VAR_KEYWORD]
    signature = inspect.Signature([*flags, *named])
    block.__signature__ = signature  # type: ignore[attr-defined] # functions have it
    return block


@_with_flags
def capabilities(
    *,
    quantization: Annotated[
        Several,
        _option(
            "--quantization",
            text="It trains on bases quantized so: bnb_4bit, gptq, ... Commas mean all of these, "
            "'gptq|awq' one of these.",
            panel=_CAN,
            metavar="BACKEND",
        ),
    ] = None,
    layer_type: Annotated[
        Several,
        _option(
            "--layer-type",
            text="It adapts these layers: linear, embedding, conv2d, ...",
            panel=_CAN,
            metavar="LAYER",
        ),
    ] = None,
    accept_partial: Annotated[
        Several,
        _option(
            "--accept-partial",
            text="For this capability 'partial' is enough, such as merging or quantization.",
            panel=_CAN,
            metavar="FEATURE",
        ),
    ] = None,
    min_evidence: Annotated[
        str | None,
        _option(
            "--min-evidence",
            text="Weakest evidence that counts for a capability: declared, injected, trained or "
            "verified.",
            panel=_CAN,
            metavar="LEVEL",
        ),
    ] = None,
    method: Annotated[
        Several,
        _option("--method", text="Only these methods.", panel=_KIND, metavar="METHOD"),
    ] = None,
    exclude: Annotated[
        Several,
        _option("--exclude", text="None of these methods.", panel=_KIND, metavar="METHOD"),
    ] = None,
    family: Annotated[
        Several,
        _option(
            "--family",
            text="Family of methods: low_rank, orthogonal, prompt, ...",
            panel=_KIND,
            metavar="NAME",
        ),
    ] = None,
    category: Annotated[
        Several,
        _option(
            "--category", text="adapter, prompt_learning or other.", panel=_KIND, metavar="NAME"
        ),
    ] = None,
    task_type: Annotated[
        Several,
        _option(
            "--task-type",
            text="Task that it supports: CAUSAL_LM, SEQ_CLS, IMAGE, ...",
            panel=_KIND,
            metavar="TASK",
        ),
    ] = None,
    option: Annotated[
        Several,
        _option(
            "--option",
            text="Option that its configuration has, such as rank_pattern.",
            panel=_KIND,
            metavar="NAME",
        ),
    ] = None,
    peft_version: Annotated[
        str | None,
        _option(
            "--peft-version",
            text="Version of peft that it must work with. Default: the installed one; 'any' for "
            "no restriction.",
            panel=_KIND,
            metavar="VERSION",
        ),
    ] = None,
    catalog: CatalogFile = None,
    **flags: bool | None,
) -> dict[str, Any]:
    """Arguments of `recommend` that say what a method must be and be able to do.

    Raises:
        InputError: an option that cannot be understood.
        CatalogError: the catalog file is broken.
    """
    return {
        **flags,
        **partial(flags, accept_partial),
        "quantization": supported("quantization", quantization, accept_partial),
        "layer_types": supported("layer-type", layer_type, accept_partial),
        "family": names("family", family),
        "category": names("category", category),
        "task_types": names("task-type", task_type),
        "options": names("option", option),
        "methods": split(method) or None,
        "exclude": split(exclude) or None,
        "min_evidence": min_evidence,
        "peft_version": peft_version,
        "catalog": load(catalog),
    }


@takes(capabilities)
def question(
    asked: dict[str, Any],
    *,
    benchmark: Benchmark = None,
    model: Model = None,
    adapt: Adapt = None,
    training: Training = None,
    device: Device = None,
    max_memory: Annotated[
        str | None,
        _option(
            "--max-memory",
            text="Greatest forecast of peak memory on that model, instead of a device.",
            panel=_MODEL,
            metavar="SIZE",
        ),
    ] = None,
    fit: Fit = None,
    within: Annotated[
        str | None,
        _option(
            "--within",
            text="Time for dry runs of what no closed form tells, such as 60s: the best candidates "
            "first. Default: a minute for a model of which nothing is known otherwise.",
            panel=_MODEL,
            metavar="TIME",
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    objective: Annotated[
        Several,
        _option(
            "--objective",
            "-o",
            text="Metrics to optimise together. Default: the benchmark's score and peak_memory.",
            panel=_ASK,
            metavar="METRIC",
        ),
    ] = None,
    rank_by: Annotated[
        str | None,
        _option(
            "--rank-by",
            text="Order of the front: headline (the score, default), a metric, knee (nearest to "
            "the ideal point), cheapest-tie, or weights such as test_accuracy=2,peak_memory=1.",
            panel=_ASK,
            metavar="ORDER",
        ),
    ] = None,
    serve: Annotated[
        Several,
        _option(
            "--serve",
            text="It reaches this engine as it is, converted to LoRA or merged: vllm, llama.cpp, "
            "...; vllm:native demands one kind of way. Commas and bars as above.",
            panel=_CAN,
            metavar="ENGINE",
        ),
    ] = None,
    maximum: Annotated[
        Several,
        _option(
            "--max",
            text="Greatest value of a metric, such as peak_memory=24GiB or train_time=20min.",
            panel=_LIMITS,
            metavar="METRIC=VALUE",
        ),
    ] = None,
    minimum: Annotated[
        Several,
        _option(
            "--min",
            text="Least value of a metric, such as test_accuracy=45%.",
            panel=_LIMITS,
            metavar="METRIC=VALUE",
        ),
    ] = None,
    floor: Annotated[
        str | None,
        _option(
            "--floor",
            text="Least score, so that runs that learned nothing stay out; 0 for none. Default: "
            "the benchmark's.",
            panel=_LIMITS,
            metavar="SCORE",
        ),
    ] = None,
    snapshot: Snapshot = None,
    era: Annotated[
        str | None,
        _option(
            "--era",
            text="Runs scored the same way. Default: the newest of the snapshot; 'any' mixes "
            "them, 'shifted' moves older scores by the measured shift.",
            panel=_EVIDENCE,
            metavar="NAME",
        ),
    ] = None,
    pooled: Annotated[
        bool,
        _option(
            "--pooled",
            text="Take the mean of all comparable runs of a recipe, not only the newest run.",
            panel=_EVIDENCE,
        ),
    ] = False,
    accelerator: Annotated[
        str | None,
        _option(
            "--accelerator",
            text="Hardware whose memory and time count. Default: that of most runs.",
            panel=_EVIDENCE,
            metavar="NAME",
        ),
    ] = None,
    include_flagged: Annotated[
        bool,
        _option(
            "--include-flagged",
            text="Also rank runs that are known to be broken or mismeasured.",
            panel=_EVIDENCE,
        ),
    ] = False,
    confidence: Annotated[
        float,
        _option(
            "--confidence",
            text="How sure a lead must be before the one behind is no tie, from 0.5 to below 1.",
            panel=_EVIDENCE,
            metavar="SHARE",
        ),
    ] = 0.95,
) -> dict[str, Any]:
    """Arguments of `recommend`.

    Raises:
        InputError: an option that cannot be understood.
        CatalogError: the catalog file is broken.
    """
    bounds = {**limits("max", maximum), **limits("min", minimum)}
    for keyword in bounds:
        if keyword in KEYWORDS:  # `--max memory=24GB` would be taken for an argument
            side, _, metric = keyword.partition("_")
            valid = asked["catalog"].metric_by_id
            raise UnknownNameError("metric", metric, valid, keyword=f"--{side} {metric}")
    return {
        **asked,
        **bounds,
        "benchmark": benchmark,
        "model": inspected(model, trust_remote_code=trust_remote_code),
        "adapt": settings("adapt", adapt) or None,
        "training": settings("training", training) or None,
        "device": device,
        "max_memory": max_memory,
        "fit": fit,
        "within": within,
        "serve": names("serve", serve),
        "objectives": split(objective) or None,
        "rank_by": ranking(rank_by),
        "floor": floor,
        "snapshot": snapshot,
        "era": era,
        "evidence": "pooled" if pooled else "snapshot",
        "accelerator": accelerator,
        "include_flagged": include_flagged,
        "confidence": confidence,
    }
