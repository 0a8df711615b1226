"""The training script of a candidate, which can be asked for another tool's file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["Snippet", "snippet_of"]


class Snippet(str):
    """A plain training script; called with `trainer=`, what that tool reads instead.

    Example:
        >>> from peft_shop import recommend
        >>> script = recommend("metamathqa", peft_version="any").best.snippet
        >>> "get_peft_model" in script, "SFTTrainer" in script(trainer="trl")
        (True, True)
    """

    __slots__ = ("_written",)
    _written: Callable[..., str]

    def __new__(cls, written: Callable[..., str]) -> Self:
        """Text that `written()` gives; kept, so that it can be asked for another tool's.

        Raises:
            ConfigError: there is no such script.
        """
        made = super().__new__(cls, written())
        made._written = written
        return made

    def __call__(self, *, trainer: str | None = None) -> str:
        """The script, or the file for `trainer`, such as `"trl"` or `"axolotl"`.

        Raises:
            UnknownNameError: there is no such trainer; names the nearest.
            ConfigError: the trainer refuses the recipe, or no file is written for it.
        """
        return str(self) if trainer is None else self._written(trainer=trainer)


def snippet_of(
    run: Run, benchmark: Benchmark, *more: object, catalog: Catalog | None = None, **named: object
) -> Snippet:
    """The plain script of a run; the arguments are those of `peft_shop.scripts.script.snippet`.

    Raises:
        ConfigError: there is no such script.
    """
    from peft_shop.scripts.script import snippet  # noqa: PLC0415 - not needed for an answer

    written = partial(snippet, run, benchmark, *more, catalog=catalog, **named)  # type: ignore[arg-type] # as they came
    return Snippet(written)
