"""Since when: the first peft release that has each method, configuration field and variant.

Read from the published wheels by `peft_shop.curate.releases.wheels`; written to
`catalog/observed/history.json`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Final, TypedDict

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.methods import Curated
from peft_shop.curate.releases.wheels import Wheel
from peft_shop.errors import CatalogError, Problem, nearest_names
from peft_shop.files import write_atomically
from peft_shop.upstream.versions import is_final, version_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from peft_shop.catalog.methods import Condition

__all__ = [
    "FIRST_RELEASE",
    "History",
    "MethodHistory",
    "download",
    "dump",
    "published",
    "read_history",
    "write",
]

FIRST_RELEASE: Final = "0.3.0"
"""Where the history begins: a thing that this release already has is dated to it."""

_TRAINING_SYMBOLS: Final = {"init_kv_cache_prefix": "initialize_kv_prefix_from_text"}
"""Function of peft behind a setting of the benchmark suite's trainer; others need none."""


class MethodHistory(TypedDict):
    """First release of one method and of what belongs to it, by field and by variant."""

    since: str
    fields: dict[str, str]
    variants: dict[str, str]


class History(TypedDict):
    """Contents of `history.json`.

    `releases` are all that were read, oldest first; `methods` are those of the newest one, with
    the fields of the newest one; `notes` tell of methods that no longer exist.
    """

    releases: list[str]
    methods: dict[str, MethodHistory]
    notes: list[str]


def read_history(wheels: Iterable[Path], curated: Path) -> History:
    """First release of every method, field and variant that the newest of `wheels` has.

    A thing that was there, went and came back is dated to its return: a configuration that names
    it works with every release from that one on.

    Args:
        wheels: one wheel per release, in any order; all releases since `FIRST_RELEASE`, or
            everything is dated too late.
        curated: folder of the curated files, for the variants; a method without a file there has
            none.

    Raises:
        CatalogError: a wheel cannot be read or is not a final release, two have one version, or
            a curated file asks for what the newest release does not have.
    """
    releases = _in_order(wheels)
    newest = releases[-1]
    files = _read_curated(curated)
    problems = _unknown_methods(files, newest)
    problems += [
        problem
        for method, (path, record) in files.items()
        if method in newest.methods
        for problem in _unknown_conditions(path, record, method, newest)
    ]
    if problems:
        raise CatalogError(f"the curated files do not fit peft {newest.version}", problems)
    methods: dict[str, MethodHistory] = {}
    for method in sorted(newest.methods):
        first = _first(releases, [method in release.methods for release in releases])
        unbroken = releases[releases.index(first) :]
        methods[method] = {
            "since": unbroken[0].version,
            "fields": {
                field: _first(unbroken, [field in r.fields(method) for r in unbroken]).version
                for field in sorted(newest.fields(method))
            },
            "variants": {},
        }
        if method in files:
            methods[method]["variants"] = {
                variant.id: _first(
                    unbroken,
                    [all(_can_state(r, method, c) for c in variant.when) for r in unbroken],
                ).version
                for variant in sorted(files[method][1].variants, key=lambda variant: variant.id)
            }
    return {
        "releases": [release.version for release in releases],
        "methods": methods,
        "notes": list(_gone(releases, files)),
    }


def dump(history: History) -> bytes:
    """Text of `history.json`; equal histories give equal bytes."""
    ordered = {**history, "releases": sorted(history["releases"], key=version_key)}
    return (json.dumps(ordered, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write(history: History, path: Path) -> None:
    """Writes `history` to `path`, whole or not at all.

    Raises:
        CatalogError: the file there knows a release that `history` lacks. Without it, everything
            that is older than the oldest wheel would silently be dated too late.
    """
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))["releases"]
        lost = sorted(set(known) - set(history["releases"]), key=version_key)
        if lost:
            message = f"lists releases that were not read this time: {', '.join(lost)}"
            hint = "give the wheels of every release, or remove the file to begin anew"
            problem = Problem(str(path), "releases", message, hint)
            raise CatalogError("the history would forget releases", [problem])
    write_atomically(path, dump(history))


# --- the wheels ---


def published() -> list[str]:
    """Final releases of peft that pip can find, from `FIRST_RELEASE` on, oldest first.

    Raises:
        CatalogError: pip is absent or finds nothing.
    """
    text = _pip("index", "versions", "peft")
    match = re.search(r"^Available versions: *(.+)$", text, re.MULTILINE)
    versions = [] if match is None else [version.strip() for version in match[1].split(",")]
    wanted = {
        version
        for version in versions
        if is_final(version) and version_key(version) >= version_key(FIRST_RELEASE)
    }
    if not wanted:
        problem = Problem("pip index versions peft", "", "lists no final release of peft")
        raise CatalogError("the releases of peft cannot be listed", [problem])
    return sorted(wanted, key=version_key)


def download(folder: Path, releases: Iterable[str] | None = None) -> list[Path]:
    """Wheels of `releases` (default: all published ones) in `folder`, fetched where absent.

    Raises:
        CatalogError: pip is absent or cannot fetch one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for release in published() if releases is None else releases:
        path = folder / f"peft-{release}-py3-none-any.whl"
        if not path.exists():
            options = ("--no-deps", "--only-binary", ":all:", "--dest", str(folder))
            _pip("download", "--quiet", *options, f"peft=={release}")
        if not path.exists():
            problem = Problem(str(folder), "", f"pip fetched no {path.name}")
            raise CatalogError("a wheel of peft is missing", [problem])
        paths.append(path)
    return paths


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(  # noqa: S603 - our own arguments, no shell
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        hint = "install pip in this environment and check its index, or fetch the wheels yourself"
        problem = Problem(" ".join(["pip", *arguments]), "", last, hint)
        raise CatalogError("pip failed", [problem])
    return done.stdout


# --- over the releases ---


def _in_order(wheels: Iterable[Path]) -> list[Wheel]:
    """Releases, oldest first."""
    found: dict[str, Wheel] = {}
    problems = []
    for path in sorted(wheels):
        wheel = Wheel(path)
        if not is_final(wheel.version):
            message = f"{wheel.version} is not a final release"
            problems.append(Problem(str(path), "", message, "leave it out"))
        elif wheel.version in found:
            message = f"{wheel.version} is also {found[wheel.version].path}"
            problems.append(Problem(str(path), "", message, "give one wheel per release"))
        else:
            found[wheel.version] = wheel
    if not found and not problems:
        hint = "fetch them with peft_shop.curate.releases.history.download(folder)"
        problems.append(Problem("wheels", "", "none was given", hint))
    if problems:
        raise CatalogError("the wheels are not one per final release", problems)
    return sorted(found.values(), key=lambda wheel: version_key(wheel.version))


def _first(releases: Sequence[Wheel], present: Sequence[bool]) -> Wheel:
    """First release of the unbroken run that reaches the newest, which must be `present`."""
    start = len(releases) - 1
    while start and present[start - 1]:
        start -= 1
    return releases[start]


def _gone(releases: Sequence[Wheel], files: dict[str, tuple[Path, Curated]]) -> Iterator[str]:
    """A note for each method that an older release has and the newest has not."""
    newest = releases[-1]
    heirs = {
        alias.lower(): method for method, (_, record) in files.items() for alias in record.aliases
    }
    for method in sorted({name for release in releases for name in release.methods}):
        if method in newest.methods:
            continue
        having = [release.version for release in releases if method in release.methods]
        note = f"{method}: from peft {having[0]} to {having[-1]}, not in {newest.version}"
        yield note + (f"; now {heirs[method]}" if method in heirs else "")


# --- what a release can state ---


def _can_state(release: Wheel, method: str, condition: Condition) -> bool:
    """Whether a recipe under `release` can meet `condition` of a variant of `method`.

    A field must exist; a text value must occur as a literal in the method's source, since that is
    how peft tells its values apart; other values come with the field. What must not be set need
    not exist.
    """
    if condition.is_set is False:
        return True
    if condition.config is not None:
        return condition.config in release.fields(method) and _knows(release, method, condition)
    if condition.training == "optimizer" and _values(condition):
        return any(_module(value) in release.optimizers for value in _values(condition))
    symbol = _TRAINING_SYMBOLS.get(condition.training or "")
    return symbol is None or release.defines(symbol)


def _knows(release: Wheel, method: str, condition: Condition) -> bool:
    """Whether the source of `method` has a value that meets `condition`."""
    if condition.prefix is not None:
        return any(text.startswith(condition.prefix) for text in release.strings(method))
    values = _values(condition)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values) or not values:
        return True
    return any(text in release.strings(method) for text in texts)


def _values(condition: Condition) -> list[object]:
    """Values that `condition` names, if it is about values."""
    if condition.one_of is not None:
        return list(condition.one_of)
    return [] if condition.equals is None else [condition.equals]


def _module(optimizer: object) -> str:
    """Name that the module of an optimizer has: `lora-fa` is in `lorafa.py`."""
    return re.sub(r"[^a-z0-9]", "", str(optimizer).lower())


# --- the curated files ---


def _read_curated(folder: Path) -> dict[str, tuple[Path, Curated]]:
    """Curated records by method.

    Raises:
        CatalogError: a file breaks the format; all mistakes of all files.
    """
    if not folder.is_dir():
        problem = Problem(str(folder), "", "is not a folder", "give the path of catalog/curated")
        raise CatalogError("no curated files", [problem])
    found: dict[str, tuple[Path, Curated]] = {}
    problems = []
    for path in sorted(folder.glob("*.toml")):
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = (path, Curated.model_validate(table))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problems.append(Problem(str(path), "", str(error)))
        except ValidationError as error:
            problems += problems_of(error, Curated, table, str(path))
    if problems:
        raise CatalogError("curated files break the format", problems)
    return found


def _unknown_methods(files: dict[str, tuple[Path, Curated]], newest: Wheel) -> list[Problem]:
    problems = []
    for method, (path, _) in files.items():
        if method not in newest.methods:
            near = ", ".join(nearest_names(method, newest.methods)) or "none"
            message = f"peft {newest.version} has no method {method!r}; nearest: {near}"
            problems.append(Problem(str(path), "", message, "rename or remove the file"))
    return problems


def _unknown_conditions(
    path: Path, record: Curated, method: str, newest: Wheel
) -> Iterator[Problem]:
    """Conditions on variants that no recipe under the newest release can meet."""
    for i, variant in enumerate(record.variants):
        for j, condition in enumerate(variant.when):
            hint = ""
            if condition.config and condition.config not in newest.fields(method):
                message = f"{record.config_class} has no field {condition.config!r}"
                names = nearest_names(condition.config, newest.fields(method))
                hint = f"nearest: {', '.join(names) or 'none'}"
            elif _can_state(newest, method, condition):
                continue
            elif condition.config:
                value = condition.prefix or _values(condition)
                message = f"the source of {method} knows no value {value!r} of {condition.config}"
            else:
                message = f"peft {newest.version} has no {condition.training} for it"
                hint = f"optimizers of peft: {', '.join(sorted(newest.optimizers)) or 'none'}"
            yield Problem(str(path), f"variants[{i}].when[{j}]", message, hint)
