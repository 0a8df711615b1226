"""The options that say what a method must be and be able to do."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import typer

from peft_shop.catalog.features import SINGLES
from peft_shop.catalog.store import load
from peft_shop.cli.completion import method_names
from peft_shop.cli.options import CatalogFile, Several, option, parameters_of
from peft_shop.cli.values import names, partial, split, supported

__all__ = ["capabilities"]

_CAN: Final = "What it must be able to do (--no-NAME: must not)"
_KIND: Final = "Which methods"
Flag: TypeAlias = bool | None


def _can(name: str, text: str) -> Any:
    return typer.Option(f"--{name}/--no-{name}", help=text, rich_help_panel=_CAN)


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
    named = [
        parameter
        for parameter in parameters_of(block)
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    signature = inspect.Signature([*flags, *named])
    block.__signature__ = signature  # type: ignore[attr-defined] # functions have it
    return block


@_with_flags
def capabilities(
    *,
    quantization: Annotated[
        Several,
        option(
            "--quantization",
            text="It trains on bases quantized so: bnb_4bit, gptq, ... Commas mean all of these, "
            "'gptq|awq' one of these.",
            panel=_CAN,
            metavar="BACKEND",
        ),
    ] = None,
    layer_type: Annotated[
        Several,
        option(
            "--layer-type",
            text="It adapts these layers: linear, embedding, conv2d, ...",
            panel=_CAN,
            metavar="LAYER",
        ),
    ] = None,
    accept_partial: Annotated[
        Several,
        option(
            "--accept-partial",
            text="For this capability 'partial' is enough, such as merging or quantization.",
            panel=_CAN,
            metavar="FEATURE",
        ),
    ] = None,
    min_evidence: Annotated[
        str | None,
        option(
            "--min-evidence",
            text="Weakest evidence that counts for a capability: declared, injected, trained or "
            "verified.",
            panel=_CAN,
            metavar="LEVEL",
        ),
    ] = None,
    method: Annotated[
        Several,
        option(
            "--method",
            text="Only these methods.",
            panel=_KIND,
            metavar="METHOD",
            offers=method_names,
        ),
    ] = None,
    exclude: Annotated[
        Several,
        option(
            "--exclude",
            text="None of these methods.",
            panel=_KIND,
            metavar="METHOD",
            offers=method_names,
        ),
    ] = None,
    family: Annotated[
        Several,
        option(
            "--family",
            text="Family of methods: low_rank, orthogonal, prompt, ...",
            panel=_KIND,
            metavar="NAME",
        ),
    ] = None,
    category: Annotated[
        Several,
        option(
            "--category", text="adapter, prompt_learning or other.", panel=_KIND, metavar="NAME"
        ),
    ] = None,
    task_type: Annotated[
        Several,
        option(
            "--task-type",
            text="Task that it supports: CAUSAL_LM, SEQ_CLS, IMAGE, ...",
            panel=_KIND,
            metavar="TASK",
        ),
    ] = None,
    option: Annotated[
        Several,
        option(
            "--option",
            text="Option that its configuration has, such as rank_pattern.",
            panel=_KIND,
            metavar="NAME",
        ),
    ] = None,
    peft_version: Annotated[
        str | None,
        option(
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
