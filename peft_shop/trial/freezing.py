"""The protocol of a trial's folder: read, frozen at the first start, and held against today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from peft_shop.errors import CatalogError, InputError, Problem
from peft_shop.files import read_bounded, write_all, write_atomically
from peft_shop.trial.asking import ASKED
from peft_shop.trial.ledger import append
from peft_shop.trial.preparing import model_files, versions
from peft_shop.trial.records import Asked, Protocol
from peft_shop.trial.trust import demand_safetensors

if TYPE_CHECKING:
    from peft_shop.trial.preparing import Prepared

__all__ = ["PROTOCOL", "check_unchanged", "frozen", "write_frozen"]

PROTOCOL: Final = "protocol.json"
_LARGEST: Final = 2**28
_CHANGED: Final = "another protocol is another trial: make a new one with `peft-shop trial new`"


def frozen(folder: Path) -> Protocol | None:
    """The frozen protocol of the trial in `folder`; `None` before its first start.

    Raises:
        CatalogError: the file is broken.
    """
    path = folder / PROTOCOL
    if not path.is_file():
        return None
    content = read_bounded(path, _LARGEST, "a protocol")
    try:
        return Protocol.model_validate_json(content)
    except ValidationError as error:
        problem = Problem(str(path), "", str(error).splitlines()[0], _CHANGED)
        raise CatalogError("cannot read the protocol", [problem]) from error


def write_frozen(folder: Path, prepared: Prepared) -> None:
    """Freezes a protocol: the divided data first, then the protocol itself."""
    (folder / "data").mkdir(exist_ok=True)
    write_all({folder / name: content for name, content in prepared.files.items()})
    protocol = prepared.protocol
    write_atomically(folder / PROTOCOL, protocol.model_dump_json(indent=1).encode())
    append(folder, "frozen", protocol=protocol.digest)


def check_unchanged(folder: Path, asked: Asked, protocol: Protocol) -> None:
    """That nothing changed since the protocol was frozen.

    Args:
        folder: of the trial.
        asked: what is asked now.
        protocol: that was frozen.

    Raises:
        InputError: the question, the model, the data or the packages did.
    """
    if asked != protocol.asked:
        changed = [
            name
            for name in Asked.model_fields
            if getattr(asked, name) != getattr(protocol.asked, name)
        ]
        raise InputError(
            f"{folder / ASKED}: {', '.join(changed)} changed since the trial began; {_CHANGED}"
        )
    now = versions()
    for package, then in protocol.versions.items():
        if now.get(package) != then:
            raise InputError(
                f"{folder}: the trial began with {package} {then}, now there is "
                f"{now.get(package, 'none')}; {_CHANGED}"
            )
    if model_files(Path(protocol.asked.model)) != protocol.model_files:
        raise InputError(f"{protocol.asked.model}: the model's files changed; {_CHANGED}")
    demand_safetensors(Path(protocol.asked.model))
    held = model_files(folder / "data")
    for split in (protocol.train, protocol.valid, protocol.test, protocol.general):
        if split is not None and held.get(Path(split.file).name) != split.sha256:
            raise InputError(f"{folder / split.file}: the data changed; {_CHANGED}")
    if protocol.code is not None and held.get("score.py") != protocol.code.sha256:
        raise InputError(f"{folder / protocol.code.file}: the score changed; {_CHANGED}")
