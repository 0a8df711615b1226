"""The options that name the user's model, written once for every command that takes one."""

from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from peft_shop.cli.completion import device_names
from peft_shop.show.progress import waiting

if TYPE_CHECKING:
    from peft_shop.model.inspection import Target

__all__ = ["Adapt", "Device", "Fit", "Model", "Training", "TrustRemoteCode", "inspected"]

_PANEL: Final = "Which model"

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="The model to train: a local folder or a hub id, of which only configuration files "
        "are read. Configurations come out valid on it; what cannot work on it is left out.",
        rich_help_panel=_PANEL,
        metavar="MODEL",
    ),
]
Adapt: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--adapt",
        help="What to do on that model otherwise than measured, such as total_steps=2000 or "
        "roles=mlp_down. Can be repeated.",
        rich_help_panel=_PANEL,
        metavar="OPTION=VALUE",
    ),
]
Training: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--training",
        help="The step that you will run on that model, such as batch_size=8 or "
        "sequence_length=1024. Can be repeated.",
        rich_help_panel=_PANEL,
        metavar="SETTING=VALUE",
    ),
]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--device",
        "--device-memory",
        help="What it must fit on: 'RTX 4090', L40S, 2xA100-80GB (one of them counts) or 24GiB.",
        rich_help_panel=_PANEL,
        metavar="NAME|SIZE",
        autocompletion=device_names,
    ),
]
Fit: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="auto: the cheapest training setup that fits, what --training states kept; off: the "
        "settings as they are.",
        rich_help_panel=_PANEL,
        metavar="auto|off",
    ),
]
TrustRemoteCode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the code that comes with the model. Only for models that you trust.",
        rich_help_panel=_PANEL,
    ),
]


def inspected(model: str | None, *, trust_remote_code: bool = False) -> "Target | None":
    """The model that an option names, inspected; `None` where it names none.

    Raises:
        ModelError: it cannot be inspected.
        MissingExtraError: that needs a package that is not installed.
    """
    if model is None:
        return None
    from peft_shop.model.inspection import inspect_model  # noqa: PLC0415 - torch only for a model

    with waiting(f"Looking at {model}"):
        return inspect_model(model, trust_remote_code=trust_remote_code)
