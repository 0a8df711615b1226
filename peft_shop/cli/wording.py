"""What an error says in a shell: arguments of `recommend` by the names of their options."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from peft_shop.errors import InputError

if TYPE_CHECKING:
    from peft_shop.errors import Keyword, PeftShopError

__all__ = ["in_shell", "option_of"]

_IRREGULAR: Final = {
    "evidence": "--pooled",
    "layer_types": "--layer-type",
    "max_memory": "--max-memory",
    "methods": "--method",
    "min_evidence": "--min-evidence",
    "objectives": "--objective",
    "options": "--option",
    "task_types": "--task-type",
}
"""Options that are not called as their argument, with dashes."""
_SIDES: Final = ("max", "min")


def in_shell(error: PeftShopError) -> str:
    """The message of an error, arguments spelt as options."""
    if not isinstance(error, InputError):
        return str(error)
    return error.spelt(_keyword, "" if error.keyword is None else option_of(error.keyword))


def option_of(keyword: str) -> str:
    """The option that stands for an argument, such as `--max peak_memory` for `max_peak_memory`.

    What is no name of an argument stays as it is.
    """
    if keyword in _IRREGULAR:
        return _IRREGULAR[keyword]
    side, _, metric = keyword.partition("_")
    if side in _SIDES and metric:
        return f"--{side} {metric}"
    return f"--{keyword.replace('_', '-')}" if keyword.isidentifier() else keyword


def _keyword(keyword: Keyword) -> str:
    option = option_of(keyword.name)
    if keyword.value is None:
        return option
    joint = "=" if option.partition(" ")[0] in {f"--{side}" for side in _SIDES} else " "
    return f"{option}{joint}{shlex.quote(keyword.value)}"
