"""Options that take the installed peft's version where they name none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.upstream.source import installed_peft

if TYPE_CHECKING:
    from peft_shop.adapt.records import TargetOptions

__all__ = ["for_installed"]


def for_installed(options: TargetOptions) -> TargetOptions:
    """The options, with the installed peft's version where they name none."""
    installed = installed_peft() if options.peft_version is None else None
    if installed is None:
        return options
    return options.model_copy(update={"peft_version": installed.version})
