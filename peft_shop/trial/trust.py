"""What a trial may load: weights that run nothing, and score functions that this user named.

Those are known by the hash of their file. What a trial's folder says of itself proves nothing, so
the marks lie in the user's own folder.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peft_shop.errors import InputError, PeftShopError
from peft_shop.files import read_bounded

if TYPE_CHECKING:
    from peft_shop.trial.records import Protocol

__all__ = ["demand_safetensors", "demand_trust", "source_of_score", "trust"]

_LARGEST: Final = 2**20
_LOADED: Final = ("model.safetensors", "model.safetensors.index.json")
"""What transformers looks for before anything else."""
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def demand_safetensors(model: Path) -> None:
    """That the weights of a base model are no pickles, which can run code when they are loaded.

    Raises:
        InputError: they are.
    """
    pickles = sorted(path.name for path in model.glob("*") if path.suffix in _PICKLES)
    if not pickles or any((model / name).is_file() for name in _LOADED):
        return
    names = ", ".join(pickles[:3]) + (" and more" if len(pickles) > 3 else "")
    raise InputError(
        f"{model}: its weights are pickles ({names}), which can run code when they are loaded; a "
        "trial takes safetensors only. Take a revision of the model that has them, or, if you "
        "trust these files, load them and write the model anew: "
        "`model.save_pretrained(FOLDER)` and `tokenizer.save_pretrained(FOLDER)`"
    )


def source_of_score(score: str) -> bytes:
    """Content of the file of `FILE.py:FUNCTION`; it is looked at, not run.

    Raises:
        InputError: the file cannot be read, is no Python, or has no such function.
    """
    path, _, function = score.rpartition(":")
    try:
        content = read_bounded(Path(path), _LARGEST, "a score function")
        tree = ast.parse(content)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not Python: {error}") from error
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in names:
        raise InputError(
            f"{path}: no function {function}; there are: {', '.join(names) or 'none'}. It takes "
            "prompt, answer and reference, and gives a number"
        )
    return content


def trust(content: bytes) -> None:
    """Remembers that the user named this code.

    Raises:
        PeftShopError: the user's own folder cannot be written.
    """
    mark = _mark(hashlib.sha256(content).hexdigest())
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise PeftShopError(f"{mark}: {error.strerror or error}") from error


def demand_trust(folder: Path, protocol: Protocol, *, allow_code: bool = False) -> None:
    """That a score function of a trial, if any, was named by this user.

    Args:
        folder: of the trial.
        protocol: of the trial.
        allow_code: whether the user says so now.

    Raises:
        InputError: it was not.
    """
    code = protocol.code
    if code is None or allow_code or _mark(code.sha256).is_file():
        return
    place, named = folder / code.file, protocol.asked.scored_by.rpartition(":")[0]
    if named and not place.is_file():  # nothing is frozen yet
        place = Path(named)
    raise InputError(
        f"{folder}: its score is code that you did not name yourself: {code.function} of "
        f"{place}, sha256 {code.sha256}; read it, then say --allow-code"
    )


def _mark(digest: str) -> Path:
    from platformdirs import user_data_path  # noqa: PLC0415 - only where a score is code

    return user_data_path("peft-shop") / "scores" / digest
