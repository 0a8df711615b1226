"""The memory of a device by name or size, and whether a forecast fits into it.

`devices.json` beside this file is made from `data/devices.toml` by
`peft_shop/curate/calibration/command.py`; nobody edits it.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from peft_shop.errors import AmbiguousNameError, Keyword, QuantityError, UnknownNameError, shown
from peft_shop.forecast.device_names import Spoken, base_name, read_name, spellings
from peft_shop.records import Record, Text
from peft_shop.units import SMALLEST_BYTES, parse_quantity, read_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.forecast.records import Interval

__all__ = [
    "CONTEXT_BYTES",
    "DEVICES_RESOURCE",
    "Device",
    "Fit",
    "Platform",
    "device_of",
    "devices",
    "fits",
]

DEVICES_RESOURCE: Final = "devices.json"
CONTEXT_BYTES: Final = int(0.6 * 2**30)
"""Upper end of what the CUDA context of a process takes beside the allocator (0.3 to 0.6 GiB)."""
Fit: TypeAlias = Literal["yes", "maybe", "no"]
Platform: TypeAlias = Literal["cuda", "rocm", "xpu", "hpu", "mps"]
"""Whose allocator PyTorch uses on a device."""

_NUMBER: Final = re.compile(r"\d+g?", re.ASCII)
_CARD_SIZE: Final = 0.03
"""Share by which a stated size may differ from a card's: drivers keep some for themselves."""
_OTHERS: Final = {
    "rocm": "on ROCm",
    "xpu": "on Intel's XPU",
    "hpu": "on Gaudi",
    "mps": "on Apple's Metal",
}


class Device(Record):
    """One kind of accelerator, or a size in its place.

    Attributes:
        name: as the table has it, or what was asked for.
        memory_bytes: of one device, as its driver reports it [B].
        count: how many were asked for; a forecast is for one of them.
        platform: whose allocator PyTorch uses there; forecasts follow that of CUDA.
        ecc: whether the check bits of its error correction lie in the same memory.
        shared: whether the processor and the system live in the same memory.
        bfloat16: whether it computes in bfloat16; a size that the user stated is taken to.
        source: where the figure comes from; `None` for a size that the user stated.
        cautions: what must be known before the figure is trusted.
    """

    name: Text
    memory_bytes: int = Field(gt=0)
    count: int = 1
    platform: Platform = "cuda"
    ecc: bool = False
    shared: bool = False
    bfloat16: bool = True
    source: Text | None = None
    cautions: tuple[Text, ...] = ()

    @property
    def sold_gib(self) -> float:
        """Its memory as its maker states it [GiB]."""
        return self.memory_bytes / 2**30 * (16 / 15 if self.ecc else 1)

    @property
    def usable_bytes(self) -> int:
        """What is left for the allocator once the process has its context [B]."""
        return max(0, self.memory_bytes - CONTEXT_BYTES)

    def cautions_in(self, dtype: str) -> tuple[str, ...]:
        """What must be known before a step in `dtype` is trusted to it."""
        if dtype != "bfloat16" or self.bfloat16:
            return self.cautions
        slow = f"{self.name} has no arithmetic in bfloat16, which is emulated slowly or refused"
        return (*self.cautions, f"{slow}: train in float16 or float32 (dtype=float16)")


@lru_cache(maxsize=1)
def devices() -> tuple[Device, ...]:
    """Every device of the table, in its order."""
    resource = files("peft_shop.forecast") / DEVICES_RESOURCE
    return TypeAdapter(tuple[Device, ...]).validate_json(resource.read_bytes())


def device_of(text: str | float) -> Device:
    """The device that `text` names: "RTX 4090", "4x3090", "A100 80GB", "24GiB".

    Args:
        text: name of a device as people write it, with a count if there are several and a size
            where one name has several; or a size per device; or a number of bytes.

    Raises:
        UnknownNameError: no such device, or one of several; names the possible ones.
        QuantityError: a size that cannot be read, has no unit or is not positive.

    >>> device_of("NVIDIA GeForce RTX 4090").memory_bytes == 24 * 2**30
    True
    >>> device_of("2x A100 80GB").name, device_of("2x A100 80GB").count
    ('A100-80GB', 2)
    """
    if isinstance(text, int) and not isinstance(text, bool) and 0 < text < SMALLEST_BYTES:
        text = str(text)  # the number of a card, or of nothing
    if not isinstance(text, str):
        return _sized(text, shown(text), 1)
    return _named(text)


@lru_cache(maxsize=256)
def _named(text: str) -> Device:
    spoken = read_name(text)
    if spoken.count < 1:
        raise QuantityError(f"{shown(text)} asks for no device at all", keyword="device")
    if not spoken.key:
        if spoken.size is None:
            raise _unknown(text, [])
        return _sized(spoken.size, text.strip(), spoken.count)
    cards = _index().get(spoken.key, ())
    if not cards and _NUMBER.fullmatch(spoken.key) and spoken.size is None:
        return _bare(text, spoken)
    return _told(_chosen(text, spoken, cards), spoken)


def _chosen(text: str, spoken: Spoken, cards: Sequence[Device]) -> Device:
    """The one card that is meant; of a size that no card of its name has, a card of that size."""
    relatives = [
        card for key, found in _index().items() if key.startswith(spoken.key) for card in found
    ]
    if spoken.size is not None and (cards or relatives):
        size = parse_quantity(spoken.size, "bytes", name="device")
        for among in (cards, relatives):
            fitting = list(
                dict.fromkeys(card for card in among if _has_size(card, spoken.size, size))
            )
            if len(fitting) == 1:
                return fitting[0]
        if cards:
            stated = int(_as_sold(spoken.size, size))
            name = f"{base_name(cards[0].name)} {spoken.size}"
            return cards[0].model_copy(update={"name": name, "memory_bytes": stated})
    usual = [card for card in cards if base_name(card.name) == card.name]
    if len(usual) == 1 or (len(cards) == 1):
        return (usual or list(cards))[0]
    raise _unknown(text, list(dict.fromkeys(card.name for card in cards or relatives)))


def _told(card: Device, spoken: Spoken) -> Device:
    """The card with what must be said of it."""
    cautions = []
    if card not in devices():
        sold = sorted({row.sold_gib for row in _index()[spoken.key]})
        cautions.append(
            f"it is sold with {' or '.join(f'{gib:g}' for gib in sold)} GiB, not with the "
            f"{spoken.size} stated, which are taken"
        )
    elif spoken.key not in spellings(card.name):
        cautions.append(f"taken for the {card.name}, which has {spoken.size}")
    if card.platform in _OTHERS:
        cautions.append(
            f"memory {_OTHERS[card.platform]} is handed out otherwise than by CUDA, which "
            "forecasts follow: whether it fits is a guess"
        )
    if card.shared:
        cautions.append(f"the system and other programs live in the same memory of {card.name}")
    return card.model_copy(update={"count": spoken.count, "cautions": tuple(cautions)})


def _has_size(card: Device, text: str, size: float) -> bool:
    """Whether a size, `text` or `size` [B], is the card's: as sold, or as its driver reports it.

    Makers write GB and mean powers of two.
    """
    stated = _as_sold(text, size) / 2**30
    return any(
        abs(stated - known) <= _CARD_SIZE * known
        for known in (card.sold_gib, card.memory_bytes / 2**30)
    )


def _as_sold(text: str, size: float) -> float:
    """A size beside a card's name: makers write GB and mean powers of two."""
    return size * 2**30 / 10**9 if text.lower().endswith("gb") else size


def _bare(text: str, spoken: Spoken) -> Device:
    """A number that is no card's: bytes if it is large, else an error that names the readings."""
    digits = spoken.key.rstrip("g")
    if digits == spoken.key and parse_quantity(digits, "bytes", name="device") >= SMALLEST_BYTES:
        return _sized(digits, text.strip(), spoken.count)
    written = text.strip().rstrip("gG ")
    raise QuantityError(
        f"{shown(text)} is no card and has no unit: ",
        Keyword("device", f"{written}GiB"),
        ", or a name such as ",
        Keyword("device", "RTX 4090"),
        "?",
        keyword="device",
    )


def _unknown(text: str, several: Sequence[str]) -> UnknownNameError:
    hint = "or state its memory, such as '24GiB'"
    if several:
        return AmbiguousNameError("device", text.strip(), several, hint=hint, keyword="device")
    names = [card.name for card in devices()]
    return UnknownNameError("device", text.strip(), names, hint=hint, keyword="device")


def _sized(size: str | float, name: str, count: int) -> Device:
    number = read_quantity(size, "bytes", name="device")
    if number < 1:
        raise QuantityError(f"{name!r} is no memory to work with", keyword="device")
    return Device(name=name, memory_bytes=int(number), count=count)


@cache
def _index() -> dict[str, tuple[Device, ...]]:
    """Devices by every key that may mean them."""
    found: dict[str, tuple[Device, ...]] = {}
    for card in devices():
        for key in spellings(card.name):
            found[key] = (*found.get(key, ()), card)
    return found


def fits(peak: Interval, device: Device) -> Fit:
    """Whether a run with this peak fits on one `device`.

    `yes` if even the upper end of the interval does, `no` if not even the lower end does.
    """
    if peak.high <= device.usable_bytes:
        return "yes"
    return "no" if peak.low > device.usable_bytes else "maybe"
