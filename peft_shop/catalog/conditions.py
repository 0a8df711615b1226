"""What a verdict on a capability depends on, in a form that a plan can test.

A method may train on a quantized base only where the adapted layers have no bias, or only once the
base is prepared. Such a verdict is `partial`, and each of its `Circumstances` alone is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["TRIED_DTYPES", "Circumstances", "Given", "conditions_met", "in_words"]

Given: TypeAlias = "Mapping[str, frozenset[object]]"
"""By member of `Circumstances`, every value that occurs; a member that is absent is not known."""


class Circumstances(Record):
    """Circumstances that must hold together; a member that is `None` does not matter.

    Attributes:
        bias: whether every adapted layer has a bias, or none has.
        square: whether every adapted layer has as many outputs as inputs, or none has.
        tied: whether the head and the token embedding are one tensor.
        inputs: numbers of dimensions that the inputs of adapted layers may have.
        prepared: whether a quantized base went through `prepare_model_for_kbit_training`.
        dtype: of the base's activations and of the weights that are not quantized.
    """

    bias: bool | None = None
    square: bool | None = None
    tied: bool | None = None
    inputs: tuple[int, ...] | None = None
    prepared: bool | None = None
    dtype: Literal["float32", "bfloat16"] | None = None

    def hold(self, given: Given) -> bool | None:
        """Whether they hold: `False` where one does not, `None` where one is not known.

        >>> Circumstances(bias=False).hold({"bias": frozenset({False, True})})
        False
        """
        verdicts = [
            _allowed(getattr(self, name), given[name]) if given.get(name) else None
            for name in type(self).model_fields
            if getattr(self, name) is not None
        ]
        if False in verdicts:
            return False
        return None if None in verdicts else True


TRIED_DTYPES: Final = ("float32", "bfloat16")
"""Types that `dtype` speaks of; of others nothing is known."""


def _allowed(demanded: object, values: frozenset[object]) -> bool:
    return values <= set(demanded) if isinstance(demanded, tuple) else values == {demanded}


def conditions_met(conditions: Iterable[Circumstances], given: Given) -> bool | None:
    """Whether one of `conditions` holds; `None` where that depends on what is not known."""
    verdicts = [condition.hold(given) for condition in conditions]
    if True in verdicts:
        return True
    return None if None in verdicts else False


_WORDS: Final[dict[str, dict[object, str]]] = {
    "bias": {True: "on layers with a bias", False: "on layers without a bias"},
    "square": {True: "on square layers", False: "on non-square layers"},
    "tied": {True: "where the head is tied to the embedding", False: "where it is not tied"},
    "prepared": {
        True: "after `prepare_model_for_kbit_training`",
        False: "as loaded, without `prepare_model_for_kbit_training`",
    },
    "dtype": {"float32": "in float32", "bfloat16": "in bfloat16"},
}


def in_words(conditions: Iterable[Circumstances]) -> str:
    """The conditions as they stand behind "only".

    >>> in_words([Circumstances(bias=False), Circumstances(prepared=True, dtype="bfloat16")])
    'on layers without a bias, or after `prepare_model_for_kbit_training` in bfloat16'
    """
    return ", or ".join(" ".join(_phrases(condition)) for condition in conditions)


def _phrases(circumstances: Circumstances) -> Iterable[str]:
    for name in Circumstances.model_fields:
        value = getattr(circumstances, name)
        if name == "inputs" and value is not None:
            yield f"on inputs of {' or '.join(str(n) for n in value)} dimensions"
        elif value is not None:
            yield _WORDS[name][value]
