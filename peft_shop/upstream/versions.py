"""How releases of peft and of the libraries around it are compared: in one way, everywhere."""

from __future__ import annotations

from functools import lru_cache

from packaging.version import InvalidVersion, Version

from peft_shop.errors import InputError, shown

__all__ = ["is_final", "version_key"]


@lru_cache(maxsize=512)
def version_key(version: str) -> Version:
    """Comparable form of a version, by the release that it belongs to.

    A development version, a candidate or a local build counts as its release: what a release is
    the first to have is in the branch that it is made from.

    >>> version_key("0.9.0") < version_key("0.21.2rc1") == version_key("0.21.2.dev0")
    True
    >>> version_key("0.19") == version_key("0.19.0")
    True

    Raises:
        InputError: it is no version.
    """
    try:
        return Version(Version(version).base_version)
    except ValueError as error:  # no version, or a number of thousands of digits
        message = f"cannot read {shown(version)} as a version such as 0.21.2"
        raise InputError(message, keyword="peft_version") from error


def is_final(version: str) -> bool:
    """Whether `version` is a final release: no development, pre-, post- or local part.

    >>> is_final("0.21.2"), is_final("0.21.2rc1"), is_final("any")
    (True, False, False)
    """
    try:
        parsed = Version(version)
    except InvalidVersion:
        return False
    return not (parsed.is_prerelease or parsed.is_postrelease or parsed.local)
