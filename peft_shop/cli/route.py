"""`peft-shop route`: how a method, a run or a saved adapter reaches the engines."""

import json
from typing import Annotated, Any, TypeAlias

import typer

from peft_shop.ask.lookup import resolve_adapter
from peft_shop.catalog.store import load
from peft_shop.cli.completion import engine_names, run_or_method_names
from peft_shop.cli.model import TrustRemoteCode, inspected
from peft_shop.cli.options import Benchmark, CatalogFile, takes
from peft_shop.cli.output import NOTHING_FOUND, Output, output
from peft_shop.cli.values import split
from peft_shop.serve.bases import base_of_structure
from peft_shop.serve.routes import resolve_engine
from peft_shop.serve.routes import route as route_to
from peft_shop.show.naming import briefly
from peft_shop.show.routes import route_document, route_records, routes_document

__all__ = ["route"]

BaseModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="The base that the adapter is for: a local folder or a hub id, of which only "
        "configuration files are read. Default: what the adapter's folder says of it.",
        rich_help_panel="Which model",
        metavar="MODEL",
    ),
]


@takes(output)
def route(
    out: Output,
    subject: Annotated[
        str,
        typer.Argument(
            help="A method or variant such as lora or dora, a run, or the folder of a saved "
            "adapter, of which only adapter_config.json and names of tensors are read.",
            metavar="METHOD|RUN|ADAPTER_DIR",
            autocompletion=run_or_method_names,
        ),
    ],
    *,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            "-e",
            help="Only these engines, such as vllm; one alone is shown with the facts behind it.",
            metavar="ENGINE",
            autocompletion=engine_names,
        ),
    ] = None,
    model: BaseModel = None,
    trust_remote_code: TrustRemoteCode = False,
    benchmark: Benchmark = None,
    catalog: CatalogFile = None,
) -> None:
    """Tell how an adapter reaches serving engines: as it is, converted to LoRA, merged, or not.

    Each route says what to do, what goes wrong otherwise, and which facts it rests on. The base
    decides with: the one that --model names, or what an adapter's folder says of it.
    """
    source = load(catalog)
    adapter = resolve_adapter(source, subject, benchmark)
    target = inspected(model, trust_remote_code=trust_remote_code)
    if target is not None:
        adapter = adapter.on(base_of_structure(target.structure))
    wanted = split(engine) or [one.id for one in source.engines]
    names = dict.fromkeys(resolve_engine(source, name).id for name in wanted)
    routes = [route_to(source, adapter, name) for name in names]
    document = (
        route_document(source, adapter, routes[0])
        if engine and len(routes) == 1
        else routes_document(adapter, routes, {one.id: one.title for one in source.engines})
    )

    def whole() -> str:
        plain: list[Any] = [one.model_dump(mode="json") for one in routes]
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    out.show(briefly(source, document), rows=lambda: route_records(routes), json=whole)
    if not any(one.best for one in routes):
        raise typer.Exit(NOTHING_FOUND)
