"""What is asked of a new trial, in Python or on the command line -> its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_shop.errors import InputError
from peft_shop.trial.asking import asked_of, write_asked
from peft_shop.trial.preparing import usual_length
from peft_shop.trial.trust import source_of_score, trust

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["make_folder"]


def make_folder(
    place: Path,
    *,
    model: str | Path,
    train: str | Path,
    candidates: int | tuple[str, ...],
    settings: Mapping[str, Any],
) -> None:
    """Writes what is asked of a new trial into a new or empty folder.

    Args:
        place: the folder.
        model: folder of the base model.
        train: file of examples.
        candidates: how many of the published order, or names.
        settings: the other fields of `trial.toml`; `None` is the default.

    Raises:
        InputError: a folder that is not empty, or a setting that cannot be.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place} exists already and is not empty; choose another folder")
    stated = {name: value for name, value in settings.items() if value is not None}
    for name in ("valid", "test", "general"):
        if name in stated:
            stated[name] = str(Path(stated[name]).resolve())
    score = str(stated.get("score") or "")
    if ":" in score:
        file, _, function = score.rpartition(":")
        stated["score"] = f"{Path(file).resolve()}:{function}"
    stated |= {
        "model": str(Path(model).resolve()),
        "train": str(Path(train).resolve()),
        "candidates": candidates,
    }
    if "max_length" not in stated and (length := usual_length(Path(model))) is not None:
        stated["max_length"] = length
    asked = asked_of(stated, "Trial.create")
    for path in (asked.model, asked.train, asked.valid, asked.test, asked.general):
        if path is not None and not Path(path).exists():
            raise InputError(f"{path}: no such file or folder")
    if ":" in asked.scored_by:
        trust(source_of_score(asked.scored_by))
    place.mkdir(parents=True, exist_ok=True)
    write_asked(place, asked)
