"""Output folders that appear whole or not at all, and tensors that are written one at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from peft_shop.catalog.new_folder import NewFolder, new_folder
from peft_shop.conversion.report import REPORT_FILE
from peft_shop.errors import ConversionError
from peft_shop.files import clear_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "DTYPES",
    "TensorEntry",
    "destination",
    "output_folder",
    "require_space",
    "write_tensors",
]

DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_CODES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor to write.

    Attributes:
        key: its name in the file.
        shape: its shape.
        dtype: its type.
        read: gives it when its turn comes.
    """

    key: str
    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[], Any]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return int(torch.Size(self.shape).numel()) * int(self.dtype.itemsize)


def destination(output: Path, *, sources: Iterable[Path], overwrite: bool) -> Path:
    """The output folder, if it may be written; what killed runs left beside it goes.

    Raises:
        ConversionError: it exists and must not be replaced, or is a source's folder, or no folder
            can have that name.
    """
    place = Path(os.path.realpath(output))
    try:
        exists = output.exists()
        if not exists:
            output.lstat()  # a link that leads nowhere, or a name that is too long
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConversionError(f"cannot write {output}: {error.strerror or error}") from error
    if place.is_symlink():
        raise ConversionError(f"cannot write {output}: a link that leads to itself")
    here = Path.cwd()
    if here == place or here.is_relative_to(place):
        raise ConversionError(
            f"{output}: is the folder that you are in, or around it; name one that is to be made"
        )
    clear_leftovers(place.parent)
    for source in sources:
        inside = source.resolve()
        if inside == place or inside.is_relative_to(place) or place.is_relative_to(inside):
            raise ConversionError(
                f"{output}: the output must lie beside {source}, neither in it nor around it"
            )
    if place.exists() and not place.is_dir():
        raise ConversionError(f"{output}: is no folder; name one that does not exist yet")
    if place.is_dir() and any(place.iterdir()):
        if not overwrite:
            raise ConversionError(
                f"{output}: exists already; choose another folder, or overwrite it (--force)"
            )
        if not (place / REPORT_FILE).is_file():
            raise ConversionError(
                f"{output}: is no conversion of ours (it has no {REPORT_FILE}), so it is not "
                "overwritten; remove it yourself or choose another folder"
            )
    return output


def require_space(folder: Path, size: int) -> None:
    """Checks that so many bytes can be written beside `folder`.

    Raises:
        ConversionError: they cannot.
    """
    place = folder.resolve().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise ConversionError(
            f"{folder}: needs {size / 1e9:.2f} GB there, and {free / 1e9:.2f} GB are free"
        )


@contextlib.contextmanager
def output_folder(target: Path, *, overwrite: bool) -> Iterator[NewFolder]:
    """A folder that takes the name `target` when the block ends well, and vanishes if not.

    Raises:
        ConversionError: it cannot be written, such as when the disk is full, or another process
            made one meanwhile.
    """
    try:
        with new_folder(target, replace=overwrite) as made:
            yield made
    except FileExistsError as error:
        raise ConversionError(
            f"{target}: another process made it meanwhile, and it stays as it is; choose another "
            "folder, or overwrite it (--force)"
        ) from error
    except OSError as error:
        hint = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise ConversionError(f"cannot write {target}: {hint}; nothing was left behind") from error


def write_tensors(path: Path, entries: Iterable[TensorEntry], metadata: Mapping[str, str]) -> int:
    """Writes a safetensors file, one tensor in memory at a time; returns its bytes.

    The layout is that of safetensors' own format description: length of the header, header as
    JSON, numbers.
    """
    items = list(entries)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for item in items:
        header[item.key] = {
            "dtype": _CODES[item.dtype],
            "shape": list(item.shape),
            "data_offsets": [offset, offset + item.size],
        }
        offset += item.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for item in items:
            tensor = item.read().detach().to(item.dtype).contiguous()
            if tuple(tensor.shape) != item.shape:
                msg = f"{item.key}: {tuple(tensor.shape)} instead of {item.shape}"
                raise ConversionError(msg)
            file.write(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())
    return 8 + len(text) + offset
