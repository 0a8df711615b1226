"""What a conversion is asked to do, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import ConversionError, InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DTYPE_NAMES", "By", "Check", "Options", "To"]

To: TypeAlias = Literal["lora", "merged"]
By: TypeAlias = Literal["auto", "peft", "generic"]
Check: TypeAlias = Literal["auto", "logits", "layers"]
DTYPE_NAMES: Final = ("float32", "bfloat16", "float16")
_CHOICES: Final = {
    "to": ("target", get_args(To)),
    "way": ("way", ("auto", "peft", "generic")),
    "check": ("check", ("auto", "logits", "layers")),
    "dtype": ("dtype", DTYPE_NAMES),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """One question to `convert`; its keywords say what each means.

    Attributes:
        adapter_dir: folder of the adapter.
        base: folder, identifier or module of the base.
        output: folder to make.
        to: what to make.
        rank: `auto`, a whole number or a share.
        engine: that is to load it.
        way: how.
        initial: folder of the untrained adapter.
        tolerance: largest error [1] that counts as done.
        allow_inexact: whether it is written anyway.
        dtype: of the numbers written.
        check: what is compared.
        inputs: for the comparison.
        overwrite: whether an earlier conversion is replaced.
        trust_remote_code: whether code that comes with the base may run.
    """

    adapter_dir: Path
    base: Any
    output: Path
    to: To = "lora"
    rank: str | float = "auto"
    engine: str | None = None
    way: By = "auto"
    initial: Path | None = None
    tolerance: float | None = None
    allow_inexact: bool = False
    dtype: str | None = None
    check: Check = "auto"
    inputs: Mapping[str, Any] | None = None
    overwrite: bool = False
    trust_remote_code: bool = False

    @property
    def makes_adapter(self) -> bool:
        """Whether a plain LoRA is to come out, not a whole model."""
        return self.to == PLAIN

    @classmethod
    def of(cls, adapter_dir: Any, output: Any, initial: Any, **others: Any) -> Options:
        """Checks what can be checked without looking at a file.

        Raises:
            UnknownNameError: a word that is none of the valid ones.
            ConversionError: a name of a folder that is none.
            InputError: a tolerance that is no number.
        """
        for field, (kind, valid) in _CHOICES.items():
            value = others.get(field)
            if value is not None and value not in valid:
                raise UnknownNameError(kind, str(value), valid)
        tolerance = others.get("tolerance")
        if tolerance is not None and (
            isinstance(tolerance, bool)
            or not isinstance(tolerance, int | float)
            or not tolerance >= 0
        ):
            raise InputError(f"tolerance: expected a number of at least 0, got {tolerance!r}")
        return cls(
            adapter_dir=_folder("adapter_dir", adapter_dir),
            output=_folder("output", output),
            initial=None if initial is None else _folder("initial", initial),
            **others,
        )


def _folder(name: str, value: Any) -> Path:
    try:
        path = Path(value)
    except TypeError as error:
        raise ConversionError(
            f"{name}: expected the name of a folder, got {type(value).__name__}"
        ) from error
    if not str(value) or "\0" in str(path):
        raise ConversionError(f"{name}: expected the name of a folder, got {str(value)!r}")
    return path
