"""The options of a question, written once for every command that asks one."""

from typing import Annotated, Any, Final

from peft_shop.ask.keywords import KEYWORDS
from peft_shop.ask.links import read_url
from peft_shop.cli.capabilities import capabilities
from peft_shop.cli.completion import engine_names
from peft_shop.cli.model import Adapt, Device, Fit, Model, Training, TrustRemoteCode, inspected
from peft_shop.cli.options import Benchmark, Several, Snapshot, option, takes
from peft_shop.cli.values import limits, names, ranking, settings, split
from peft_shop.errors import UnknownNameError

__all__ = ["question"]

_ASK: Final = "What to optimise"
_LIMITS: Final = "Limits"
_MODEL: Final = "Which model"
_CAN: Final = "What it must be able to do (--no-NAME: must not)"
_EVIDENCE: Final = "Which evidence"
_USUAL: Final = {"evidence": "snapshot", "include_flagged": False, "confidence": 0.95}
"""Arguments that are there where nothing is asked, besides `None`."""


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
        option(
            "--max-memory",
            text="Greatest forecast of peak memory on that model, instead of a device.",
            panel=_MODEL,
            metavar="SIZE",
        ),
    ] = None,
    fit: Fit = None,
    within: Annotated[
        str | None,
        option(
            "--within",
            text="Time for dry runs of what no closed form tells, such as 60s: the best candidates "
            "first. Default: a minute for a model of which nothing is known otherwise.",
            panel=_MODEL,
            metavar="TIME",
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    url: Annotated[
        str | None,
        option(
            "--url",
            text="The question of a link to the web page; other options replace what it says.",
            panel=_ASK,
            metavar="URL",
        ),
    ] = None,
    objective: Annotated[
        Several,
        option(
            "--objective",
            "-o",
            text="Metrics to optimise together. Default: the benchmark's score and peak_memory.",
            panel=_ASK,
            metavar="METRIC",
        ),
    ] = None,
    rank_by: Annotated[
        str | None,
        option(
            "--rank-by",
            text="Order of the front: headline (the score, default), a metric, knee (nearest to "
            "the ideal point), cheapest-tie, or weights such as test_accuracy=2,peak_memory=1.",
            panel=_ASK,
            metavar="ORDER",
        ),
    ] = None,
    serve: Annotated[
        Several,
        option(
            "--serve",
            text="It reaches this engine as it is, converted to LoRA or merged: vllm, llama.cpp, "
            "...; vllm:native demands one kind of way. Commas and bars as above.",
            panel=_CAN,
            metavar="ENGINE",
            offers=engine_names,
        ),
    ] = None,
    trainer: Annotated[
        Several,
        option(
            "--trainer",
            text="This tool takes all of it: trl, axolotl, unsloth, ...; axolotl:partly also keeps "
            "what loses an option there, trl==1.15.0 names your version. Commas and bars as above.",
            panel=_CAN,
            metavar="TRAINER",
        ),
    ] = None,
    maximum: Annotated[
        Several,
        option(
            "--max",
            text="Greatest value of a metric, such as peak_memory=24GiB or train_time=20min.",
            panel=_LIMITS,
            metavar="METRIC=VALUE",
        ),
    ] = None,
    minimum: Annotated[
        Several,
        option(
            "--min",
            text="Least value of a metric, such as test_accuracy=45%.",
            panel=_LIMITS,
            metavar="METRIC=VALUE",
        ),
    ] = None,
    floor: Annotated[
        str | None,
        option(
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
        option(
            "--era",
            text="Runs scored the same way. Default: the newest of the snapshot; 'any' mixes "
            "them, 'shifted' moves older scores by the measured shift.",
            panel=_EVIDENCE,
            metavar="NAME",
        ),
    ] = None,
    pooled: Annotated[
        bool,
        option(
            "--pooled",
            text="Take the mean of all comparable runs of a recipe, not only the newest run.",
            panel=_EVIDENCE,
        ),
    ] = False,
    accelerator: Annotated[
        str | None,
        option(
            "--accelerator",
            text="Hardware whose memory and time count. Default: that of most runs.",
            panel=_EVIDENCE,
            metavar="NAME",
        ),
    ] = None,
    include_flagged: Annotated[
        bool,
        option(
            "--include-flagged",
            text="Also rank runs that are known to be broken or mismeasured.",
            panel=_EVIDENCE,
        ),
    ] = False,
    confidence: Annotated[
        float,
        option(
            "--confidence",
            text="How sure a lead must be before the one behind is no tie, from 0.5 to below 1.",
            panel=_EVIDENCE,
            metavar="SHARE",
        ),
    ] = 0.95,
    certainty: Annotated[
        str | None,
        option(
            "--certainty",
            text="What ± and probabilities are about: 'rerun' (would it happen again on these test "
            "questions) or 'questions' (would it hold on others like them). Default: questions, "
            "where their number is known.",
            panel=_EVIDENCE,
            metavar="KIND",
        ),
    ] = None,
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
    linked = {} if url is None else read_url(url)
    model = model or linked.get("model")
    stated = {
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
        "trainer": names("trainer", trainer),
        "objectives": split(objective) or None,
        "rank_by": ranking(rank_by),
        "floor": floor,
        "snapshot": snapshot,
        "era": era,
        "evidence": "pooled" if pooled else "snapshot",
        "accelerator": accelerator,
        "include_flagged": include_flagged,
        "confidence": confidence,
        "certainty": certainty,
    }
    unasked = {name for name, value in stated.items() if value == _USUAL.get(name)}
    return stated | {name: v for name, v in linked.items() if name in unasked or name not in stated}
