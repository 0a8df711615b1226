"""The memory of a device by name or size, and whether a forecast fits into it.

`devices.json` beside this file is made from `data/devices.toml` by
`peft_shop/curate/calibration/command.py`; nobody edits it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from peft_shop.errors import QuantityError, UnknownNameError
from peft_shop.records import Record, Text
from peft_shop.units import parse_quantity

if TYPE_CHECKING:
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

_COUNT: Final = re.compile(r"^\s*(?P<count>\d{1,3})\s*[x×*]\s*(?P<name>.+)$", re.IGNORECASE)  # noqa: RUF001 - people write it
_MAKERS: Final = re.compile(r"nvidia|geforce|tesla|quadro|amd|instinct|intel|sxm\d?|pcie|oam")
_SIZE: Final = re.compile(r"^\s*[\d._]+\s*[kmgt]i?b\s*$", re.IGNORECASE)


class Device(Record):
    """One kind of accelerator, or a size in its place.

    Attributes:
        name: as the table has it, or what was asked for.
        memory_bytes: of one device, as its driver reports it [B].
        count: how many were asked for; a forecast is for one of them.
        platform: whose allocator PyTorch uses there; forecasts follow that of CUDA.
        shared: whether the processor and the system live in the same memory.
        bfloat16: whether it computes in bfloat16; a size that the user stated is taken to.
        source: where the figure comes from; `None` for a size that the user stated.
    """

    name: Text
    memory_bytes: int = Field(gt=0)
    count: int = 1
    platform: Platform = "cuda"
    shared: bool = False
    bfloat16: bool = True
    source: Text | None = None

    @property
    def usable_bytes(self) -> int:
        """What is left for the allocator once the process has its context [B]."""
        return max(0, self.memory_bytes - CONTEXT_BYTES)


@lru_cache(maxsize=1)
def devices() -> tuple[Device, ...]:
    """Every device of the table, in its order."""
    resource = files("peft_shop.forecast") / DEVICES_RESOURCE
    return TypeAdapter(tuple[Device, ...]).validate_json(resource.read_bytes())


def device_of(text: str | float) -> Device:
    """The device that `text` names: "RTX 4090", "2xA100-80GB", "24GiB" or a number of bytes.

    Args:
        text: name of a device, with a count in front if there are several, or a size per device.

    Raises:
        UnknownNameError: no such device, or one that comes with several sizes.
        QuantityError: a size that cannot be read or is not positive.

    >>> device_of("NVIDIA GeForce RTX 4090").memory_bytes == 24 * 2**30
    True
    >>> device_of("2x A100 80GB").name, device_of("2x A100 80GB").count
    ('A100-80GB', 2)
    """
    if not isinstance(text, str):
        return _sized(text, str(text), 1)
    match = _COUNT.match(text)
    count, name = (int(match["count"]), match["name"]) if match else (1, text)
    if count < 1:
        msg = f"device: {text!r} asks for no device at all"
        raise QuantityError(msg)
    if _SIZE.match(name) or name.strip().isdigit():
        return _sized(name, text.strip(), count)
    key = _key(name)
    found = {_key(one.name): one for one in devices()}
    if key in found:
        return found[key].model_copy(update={"count": count})
    several = [one.name for one in devices() if key and _key(one.name).startswith(key)]
    hint = "or state its memory, such as '24GiB'"
    if several:
        hint = f"it may be {', '.join(several)}; {hint}"
    kind = "device"
    raise UnknownNameError(kind, name.strip(), [one.name for one in devices()], hint=hint)


def _sized(size: str | float, name: str, count: int) -> Device:
    number = parse_quantity(size, "bytes", name="device")
    if number < 1:
        msg = f"device: {name!r} is no memory to work with"
        raise QuantityError(msg)
    return Device(name=name, memory_bytes=int(number), count=count)


def _key(name: str) -> str:
    """The name without maker, form factor, spaces and signs."""
    plain = _MAKERS.sub("", name.lower())
    return re.sub(r"[^a-z0-9]", "", plain)


def fits(peak: Interval, device: Device) -> Fit:
    """Whether a run with this peak fits on one `device`.

    `yes` if even the upper end of the interval does, `no` if not even the lower end does.
    """
    if peak.high <= device.usable_bytes:
        return "yes"
    return "no" if peak.low > device.usable_bytes else "maybe"
