"""The page on disk: a folder or one file, whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from peft_shop.catalog.new_folder import new_folder
from peft_shop.errors import InputError, PeftShopError
from peft_shop.files import write_all
from peft_shop.show.site.pages import MARK, single_page, site_files

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.catalog.catalog import Catalog

__all__ = ["write_single", "write_site"]


def write_site(catalog: Catalog, folder: Path) -> list[str]:
    """Writes the page into `folder`; the paths of its files in it.

    A folder that this wrote before is replaced in one step.

    Raises:
        InputError: the folder has files that are not the page's, or is a file.
        PeftShopError: it cannot be written.
    """
    _refuse_foreign(folder)
    contents = site_files(catalog)
    try:
        with new_folder(folder, replace=True) as made:
            for name, content in contents.items():
                place = made.path / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(content)
            # others may read it, as any file that is written
            made.path.chmod(0o777 & ~_mask())
    except OSError as error:
        raise PeftShopError(f"cannot write {folder}: {error.strerror or error}") from error
    return list(contents)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _refuse_foreign(folder: Path) -> None:
    try:
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; name one, or add --single for one file")
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise PeftShopError(f"cannot read {folder}: {error.strerror or error}") from error
    if names and MARK not in names:
        raise InputError(
            f"{folder} holds something else ({min(names)}); name a new or an empty folder"
        )


def write_single(catalog: Catalog, file: Path, *, force: bool = False) -> None:
    """Writes the page as one file.

    Raises:
        InputError: there is a file already and `force` is false.
        PeftShopError: it cannot be written.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder; with --single name the file, such as shop.html")
    if not file.parent.is_dir():
        raise PeftShopError(f"cannot write {file}: there is no folder {file.parent}")
    try:
        write_all({file: single_page(catalog)}, replace=force)
    except FileExistsError as error:
        message = f"{file} exists already; choose another name or add --force"
        raise InputError(message) from error
    except OSError as error:
        raise PeftShopError(f"cannot write {file}: {error.strerror or error}") from error
