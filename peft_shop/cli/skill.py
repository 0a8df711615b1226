"""`peft-shop skill`: what an agent must know to use the program."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from peft_shop.cli.options import Force
from peft_shop.cli.output import say, write_file, write_out
from peft_shop.errors import InputError, PeftShopError

__all__ = ["skill", "skill_text"]

_NAME = "SKILL.md"


def skill_text() -> str:
    """The skill: when to use the program, commands with their outputs, units, codes, rules."""
    return (files("peft_shop.show") / _NAME).read_text(encoding="utf-8")


def skill(
    *,
    install: Annotated[
        Path | None,
        typer.Option(
            "--install",
            help="Folder of an agent's skills, into which peft-shop/SKILL.md is written.",
            metavar="DIR",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Print what an agent must know to use this program, or install it among its skills."""
    text = skill_text()
    if install is None:
        write_out(text)
        return
    if not install.is_dir():
        raise InputError(f"{install} is no folder; create it, or name the folder of your skills")
    folder = install / "peft-shop"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise PeftShopError(f"cannot write {folder}: {error.strerror or error}") from error
    path = folder / _NAME
    if path.is_file() and path.read_bytes() == text.encode():
        say(f"{path} is up to date")
        return
    write_file(path, text, force=force)
    say(f"wrote {path}")
