"""What the options about a user's model make of a run's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_shop.adapt.installed import for_installed
from peft_shop.adapt.retarget import retarget
from peft_shop.ask.model import read_options
from peft_shop.cli.values import settings
from peft_shop.errors import QueryError

if TYPE_CHECKING:
    from peft_shop.adapt.records import Retargeted
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run
    from peft_shop.model.inspection import Target

__all__ = ["adapted"]


def adapted(
    catalog: Catalog, run: Run, target: Target | None, adapt: list[str] | None
) -> Retargeted | None:
    """The run's configuration for the model; `None` without one.

    Raises:
        QueryError: the method cannot work on it, or options without a model.
        UnknownNameError: there is no such option.
    """
    options: dict[str, Any] = settings("adapt", adapt)
    if target is None:
        if options:
            raise QueryError("--adapt is about the model that you name: give --model too")
        return None
    retargeted = retarget(catalog, run, target.structure, for_installed(read_options(options)))
    if retargeted.problems:
        raise QueryError(
            f"{run.experiment} cannot work on {target.structure.name}: "
            f"{'; '.join(retargeted.problems)}"
        )
    return retargeted
