"""`data/devices.toml` -> the table of devices that the package ships."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final, get_args

from peft_shop.errors import CatalogError, Problem
from peft_shop.forecast.devices import Device, Platform

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["devices_bytes", "read_devices"]

_FIELDS = frozenset({"name", "gib", "ecc", "bf16", "platform", "shared", "source"})
_VALUES: Final[dict[str, tuple[object, ...]]] = {
    "bf16": (False,),
    "ecc": ("inline",),
    "platform": get_args(Platform),
    "shared": (True,),
}
"""What a key that may be absent may say."""


def read_devices(path: Path) -> tuple[Device, ...]:
    """Devices of the file, in its order.

    Raises:
        CatalogError: the file cannot be read, or a device is malformed; lists every mistake.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(
            "cannot read the devices", [Problem(str(path), "", str(error))]
        ) from error
    problems: list[Problem] = []
    devices: list[Device] = []
    for i, entry in enumerate(raw.get("devices", ())):
        problem = _mistake(entry)
        if problem:
            problems.append(Problem(str(path), f"devices[{i}]", problem))
            continue
        if any(device.name == entry["name"] for device in devices):
            problems.append(Problem(str(path), f"devices[{i}].name", "stands here twice"))
            continue
        size = entry["gib"] * 2**30
        # check bits in the same memory take a sixteenth of it
        usable = size * 15 // 16 if entry.get("ecc") == "inline" else size
        devices.append(
            Device(
                name=entry["name"],
                memory_bytes=usable,
                platform=entry.get("platform", "cuda"),
                ecc=entry.get("ecc") == "inline",
                shared=entry.get("shared", False),
                bfloat16=entry.get("bf16", True),
                source=entry["source"],
            )
        )
    if problems:
        raise CatalogError("the devices break their format", problems)
    return tuple(devices)


def _mistake(entry: Mapping[str, Any]) -> str:
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        return f"unknown keys {unknown}; known are {sorted(_FIELDS)}"
    missing = sorted({"name", "gib", "source"} - set(entry))
    if missing:
        return f"missing {missing}"
    if not isinstance(entry["gib"], int) or entry["gib"] < 1:
        return f"gib: expected a positive whole number, got {entry['gib']!r}"
    for key, values in _VALUES.items():
        if key in entry and entry[key] not in values:
            allowed = " or ".join(map(repr, values))
            return f"{key}: expected {allowed} or nothing, got {entry[key]!r}"
    return ""


def devices_bytes(found: tuple[Device, ...]) -> bytes:
    """The file that the package ships: one device per line."""
    rows = (json.dumps(one.model_dump(exclude_defaults=True)) for one in found)
    return ("[\n" + ",\n".join(rows) + "\n]\n").encode()
