"""`peft-shop snippet`: the training script of a run."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_shop.ask.lookup import choose_run
from peft_shop.ask.model import read_training
from peft_shop.catalog.store import load
from peft_shop.cli.adapting import adapted
from peft_shop.cli.model import Adapt, Device, Fit, Model, Training, TrustRemoteCode, inspected
from peft_shop.cli.options import (
    Benchmark,
    CatalogFile,
    Destination,
    Force,
    RunName,
    option,
    takes,
)
from peft_shop.cli.output import (
    NOTHING_FOUND,
    Output,
    output,
    say,
    write_code,
    write_file,
)
from peft_shop.cli.values import settings
from peft_shop.errors import QueryError
from peft_shop.forecast.records import Settings
from peft_shop.scripts.script import snippet as script_of
from peft_shop.scripts.trainers.file import LANGUAGES
from peft_shop.serve.trainers import (
    PARTLY,
    demanded_trainer,
    resolve_trainer,
    resolve_trainer_demand,
)
from peft_shop.show.tables import json_text

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run
    from peft_shop.catalog.trainers import Trainer
    from peft_shop.forecast.records import Setup
    from peft_shop.model.structure import Structure

__all__ = ["snippet"]

_BATCH = ("batch_size", "accumulation")
"""What makes up an effective batch."""


@takes(output)
def snippet(
    out: Output,
    name: RunName,
    *,
    destination: Destination = None,
    force: Force = False,
    benchmark: Benchmark = None,
    model: Model = None,
    adapt: Adapt = None,
    trainer: Annotated[
        str | None,
        option(
            "--trainer",
            text="Write what this tool reads instead of the plain loop: trl, axolotl, "
            "llama-factory, unsloth, ms-swift, diffusers or kohya; trl==1.15.0 names your version.",
            panel="Which tool",
            metavar="TRAINER",
        ),
    ] = None,
    training: Training = None,
    device: Device = None,
    fit: Fit = None,
    trust_remote_code: TrustRemoteCode = False,
    catalog: CatalogFile = None,
) -> None:
    """Print a training script with the run's own configuration and hyper-parameters.

    With --training it runs as you say, on a quantized base for instance; the rest is as measured.
    With --model and --device it has the setup that fits, the one that recommend tells.

    With --trainer it is the script, configuration or command of that tool, with the same recipe in
    its words; what it cannot express is told above it, and the plain loop stays the reference.

    Exit code with --device: 0 it fits or may, 1 it has no setup that does.
    """
    source = load(catalog)
    choice = choose_run(source, name, benchmark)
    run = choice.subject
    target = inspected(model, trust_remote_code=trust_remote_code)
    adaptation = adapted(source, run, target, adapt)
    structure = None if target is None else target.structure
    step = settings("training", training)
    if choice.quantization is not None:  # the name of the method says so
        step.setdefault("quantization", choice.quantization)
    setup: Setup | Settings | None = _stated(step, structure)
    if device is not None and fit != "off":
        if target is None:
            raise QueryError("--device is about the model that you name: give --model too")
        asked = {
            "model": target,
            "device": device,
            "fit": fit,
            "adapt": settings("adapt", adapt) or None,
            "training": step or None,
            "trainer": None if trainer is None else _at_least_partly(source, trainer),
        }
        setup = _planned(source, run, asked)
    script = script_of(
        run,
        source.benchmark_by_id[run.benchmark],
        adaptation,
        structure,
        setup=setup,
        device=device,
        catalog=source,
        trainer=trainer,
    )
    if trainer is not None:
        _compare_versions(source, trainer)
    if choice.remark:
        say(choice.remark)
    if destination is not None:
        write_file(destination, script, force=force)
        say(f"wrote {destination}")
    else:
        whole = {"name": run.experiment, "benchmark": run.benchmark, "script": script}
        language = "python"
        if trainer is not None:
            tool = _tool(source, trainer)
            language = LANGUAGES[tool.file or "script"]
            whole |= {"trainer": tool.id, "language": language}
        write_code(out, script, language, json_text(whole))


def _tool(catalog: "Catalog", demand: str) -> "Trainer":
    return resolve_trainer(catalog, demanded_trainer(resolve_trainer_demand(catalog, demand))[0])


def _at_least_partly(catalog: "Catalog", demand: str) -> str:
    """The demand on a trainer of a plan: what is lost is told in the file."""
    usual = resolve_trainer_demand(catalog, demand)
    return usual if demanded_trainer(usual)[2] else f"{usual}:{PARTLY}"


def _compare_versions(catalog: "Catalog", demand: str) -> None:
    """Tells where the installed tool is not the one that the facts are about."""
    tool = _tool(catalog, demand)
    if tool.package is None:
        return
    try:
        installed = version(tool.package)
    except PackageNotFoundError:
        return
    if installed != tool.version and tool.version[:1].isdigit():
        say(
            f"careful: the facts are about {tool.title} {tool.version}, installed is {installed}: "
            "try a few steps first"
        )


def _stated(step: dict[str, str], model: "Structure | None") -> Settings | None:
    """The settings that were stated, and no others; `None` without any."""
    if not step:
        return None
    asked = read_training(step, model)
    names = set(asked.fixed)
    if any(name.strip().lower().replace("-", "_") == "effective_batch" for name in step):
        names |= set(_BATCH)
    return Settings.model_validate({name: getattr(asked.settings, name) for name in names})


def _planned(catalog: "Catalog", run: "Run", asked: dict[str, Any]) -> "Setup":
    """The setup that the question's answer has for the run.

    Raises:
        Exit: it has none; the reason is told.
    """
    from peft_shop.ask.recommend import recommend  # noqa: PLC0415 - only where it must fit

    current = bool(catalog.snapshots) and catalog.snapshots[-1].id in run.snapshots
    answer = recommend(
        run.benchmark,
        snapshot=None if current else "all",
        floor=0,
        include_flagged=True,
        catalog=catalog,
        **asked,
    )
    names = {run.experiment, run.id}
    candidate = next((one for one in answer.candidates if one.name in names), None)
    if candidate is not None and candidate.setup is not None:
        return candidate.setup
    dropped = next((one for one in answer.dropped if one.name in names), None)
    if candidate is not None:
        reasons = [*candidate.notes, "its memory is not known"]
    else:
        reasons = [failure.reason for failure in dropped.failures] if dropped else []
    because = "; ".join(reasons) or "the answer does not have it"
    say(f"no setup of {run.experiment} for {asked['device']}: {because}")
    raise typer.Exit(NOTHING_FOUND)
