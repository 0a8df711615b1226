"""`peft-shop snippet`: the training script of a run."""

from typing import TYPE_CHECKING

from peft_shop.ask.lookup import choose_run
from peft_shop.ask.model import read_settings
from peft_shop.catalog.store import load
from peft_shop.cli.adapting import adapted
from peft_shop.cli.model import Adapt, Model, Training, TrustRemoteCode, inspected
from peft_shop.cli.options import Benchmark, CatalogFile, Destination, Force, RunName, takes
from peft_shop.cli.output import Output, output, say, write_code, write_file
from peft_shop.cli.values import settings
from peft_shop.scripts.script import snippet as script_of
from peft_shop.show.tables import json_text

if TYPE_CHECKING:
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["snippet"]


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
    training: Training = None,
    trust_remote_code: TrustRemoteCode = False,
    catalog: CatalogFile = None,
) -> None:
    """Print a training script with the run's own configuration and hyper-parameters.

    With --training it runs as you say, on a quantized base for instance; the rest is as measured.
    """
    source = load(catalog)
    choice = choose_run(source, name, benchmark)
    run = choice.subject
    target = inspected(model, trust_remote_code=trust_remote_code)
    found = adapted(source, run, target, adapt)
    structure = None if target is None else target.structure
    script = script_of(
        run,
        source.benchmark_by_id[run.benchmark],
        found,
        structure,
        setup=_stated(training, structure, choice.quantization),
        catalog=source,
    )
    if choice.remark:
        say(choice.remark)
    if destination is not None:
        write_file(destination, script, force=force)
        say(f"wrote {destination}")
    else:
        whole = {"name": run.experiment, "benchmark": run.benchmark, "script": script}
        write_code(out, script, "python", json_text(whole))


def _stated(
    training: list[str] | None, model: "Structure | None", quantization: str | None
) -> "Settings | None":
    """The settings that were stated, and no others; `None` without any."""
    given = settings("training", training)
    if quantization is not None:  # the name of the method says so
        given.setdefault("quantization", quantization)
    if not given:
        return None
    whole = read_settings(given, model)
    names = {name.strip().lower().replace("-", "_") for name in given}
    return type(whole).model_validate({name: getattr(whole, name) for name in names})
