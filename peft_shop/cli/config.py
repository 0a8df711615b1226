"""`peft-shop config`: the peft configuration of a run."""

from typing import Annotated

import typer

from peft_shop.adapt.records import Retargeted, retargeted_recipe
from peft_shop.ask.lookup import choose_run
from peft_shop.catalog.store import load
from peft_shop.cli.adapting import adapted
from peft_shop.cli.model import Adapt, Model, TrustRemoteCode, inspected
from peft_shop.cli.options import Benchmark, CatalogFile, Destination, Force, RunName, takes
from peft_shop.cli.output import Output, output, say, write_code
from peft_shop.errors import InputError, QueryError
from peft_shop.model.inspection import Target
from peft_shop.preflight.remembered import preflight as try_out
from peft_shop.show.adaptations import change_sentence, preflight_sentences
from peft_shop.show.tables import json_text
from peft_shop.upstream.configs import config_dict, save_config

__all__ = ["config"]


def _try(target: Target | None, found: Retargeted | None) -> None:
    """Tell what a preflight finds.

    Raises:
        QueryError: there is no model to try it on.
        ConfigError: it is refused.
    """
    if target is None or found is None:
        raise QueryError("--preflight tries it on the model that you name: give --model too")
    for sentence in preflight_sentences(try_out(target, found.config)):
        say(sentence)


@takes(output)
def config(
    out: Output,
    name: RunName,
    *,
    destination: Destination = None,
    force: Force = False,
    benchmark: Benchmark = None,
    model: Model = None,
    adapt: Adapt = None,
    trust_remote_code: TrustRemoteCode = False,
    preflight: Annotated[
        bool,
        typer.Option(
            "--preflight",
            help="Try it on the model without its weights first, and tell what it touches.",
        ),
    ] = False,
    catalog: CatalogFile = None,
) -> None:
    """Print a run's peft configuration as JSON; with -o, write it into a folder as peft does.

    With --model it is valid on that model; what had to change is told on the standard error.
    """
    source = load(catalog)
    choice = choose_run(source, name, benchmark)
    run = choice.subject
    if choice.remark:
        say(choice.remark)
    recipe = run.recipe
    target = inspected(model, trust_remote_code=trust_remote_code)
    adaptation = adapted(source, run, target, adapt)
    if adaptation is not None:
        recipe = retargeted_recipe(recipe, adaptation)
        for change in adaptation.changes:
            say(change_sentence(change))
    if preflight:
        _try(target, adaptation)
    if destination is None:
        content = json_text(config_dict(recipe))
        write_code(out, content, "json", content)
    elif (destination / "adapter_config.json").exists() and not force:
        raise InputError(
            f"{destination} has an adapter_config.json already; choose another folder or add "
            "--force"
        )
    else:
        say(f"wrote {save_config(recipe, destination, overwrite=force)}")
