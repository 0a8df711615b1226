"""Results on file: what belongs to the protocol counts, everything else is put aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from peft_shop.files import read_bounded
from peft_shop.trial.ledger import append
from peft_shop.trial.results import Result
from peft_shop.trial.running import RESULT

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.trial.records import Protocol

__all__ = ["files_of_results", "read_results"]

_LARGEST: Final = 2**28


def files_of_results(folder: Path) -> list[Path]:
    """Every result file of the trial in `folder`, whatever it holds."""
    return sorted((folder / "runs").glob(f"*/{RESULT}"))


def read_results(folder: Path, protocol: Protocol, *, mend: bool = False) -> dict[str, Result]:
    """Results of the protocol by identifier of the run.

    Args:
        folder: of the trial.
        protocol: that is frozen.
        mend: whether to put aside what is broken or of another protocol.
    """
    results = {}
    for path in files_of_results(folder):
        result = _valid(path, protocol)
        if result is not None:
            results[result.id] = result
        elif mend:
            path.replace(path.with_suffix(".bad"))
            append(folder, "note", run=path.parent.name, text="a broken result, put aside")
    return results


def _valid(path: Path, protocol: Protocol) -> Result | None:
    """The result of the protocol that a file holds; `None` where it holds none."""
    try:
        result = Result.model_validate_json(read_bounded(path, _LARGEST, "a result"))
        named = result.id == path.parent.name == result.job.id(protocol)
    except (ValidationError, OSError, StopIteration):
        return None
    return result if named and result.protocol == protocol.digest else None
