"""Running the probe: methods in parallel, and files written whole."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.catalog.methods import Observation
from peft_shop.curate.probe.setups import Setup, load_setups
from peft_shop.errors import CatalogError, MissingExtraError, ProbeError, Problem, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["dump", "probe", "read_observations", "write"]


class _Task(NamedTuple):
    """One method's work, small enough to be sent to another process."""

    method: str
    setup: Setup
    features: tuple[str, ...] | None
    device: str
    earlier: Observation | None


_COSTS = ("initialisation", "inference")
"""What can be named beside the features."""


def probe(
    methods: Iterable[str] | None = None,
    features: Iterable[str] | None = None,
    *,
    catalog: Path,
    jobs: int = 1,
    device: str = "cpu",
) -> dict[str, Observation]:
    """Observations by method.

    Args:
        methods: identifiers; all of the catalog's when `None`.
        features: only these are tried; all but the dear ones when `None`. The others keep what
            the catalog's files say, if they say anything. `torch_compile`, which takes seconds a
            method, and `initialisation`, the cost of wrapping in words, are tried when named;
            `inference`, what an unmerged adapter adds to a pass, also when nothing is.
        catalog: the folder with the set-ups and the earlier observations.
        jobs: processes to run at a time.
        device: where the models live.

    Raises:
        ProbeError: the set-up of a method is wrong; all such methods are named.
        UnknownNameError: a method or feature that does not exist.
        CatalogError: an earlier observation cannot be read.
        MissingExtraError: what a probe runs on is not installed.
    """
    wanted = None if features is None else tuple(features)
    for feature in wanted or ():
        if feature not in (*FEATURE_IDS, *_COSTS):
            raise UnknownNameError("feature", feature, (*FEATURE_IDS, *_COSTS))
    setups = load_setups(catalog, methods)
    for package in ("torch", "transformers", "peft"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "probe", "probing")
    earlier = read_observations(catalog, setups)
    tasks = [
        _Task(method, setup, wanted, device, earlier.get(method))
        for method, setup in setups.items()
    ]
    if jobs <= 1 or len(tasks) == 1:
        answers = [_observe_json(task) for task in tasks]
    else:
        # fresh processes: torch does not survive a fork
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            answers = list(pool.map(_observe_json, tasks))
    wrong = [answer for answer, good in answers if not good]
    if wrong:
        raise ProbeError("\n".join(wrong))
    return {
        task.method: Observation.model_validate_json(answer)
        for task, (answer, _) in zip(tasks, answers, strict=True)
    }


def _observe_json(task: _Task) -> tuple[str, bool]:
    """The observation as JSON and `True`, or the set-up's mistake and `False`."""
    from peft_shop.curate.probe.observing import observe

    try:
        found = observe(*task)
    except ProbeError as error:
        return f"{task.method}: {str(error).removeprefix(f'{task.method}: ')}", False
    return found.model_dump_json(), True


def read_observations(
    catalog: Path, methods: Iterable[str] | None = None
) -> dict[str, Observation]:
    """Committed observations by method; a method without a file is left out.

    Raises:
        CatalogError: files that do not keep the format, all at once.
    """
    folder = catalog / "observed"
    names = methods if methods is not None else _stems(folder)
    observations: dict[str, Observation] = {}
    problems: list[Problem] = []
    for method in names:
        file = folder / f"{method}.json"
        if not file.is_file():
            continue
        try:
            observations[method] = Observation.model_validate_json(file.read_bytes())
        except ValidationError as error:
            problems += [
                Problem(file.name, ".".join(str(part) for part in item["loc"]), item["msg"])
                for item in error.errors()
            ]
    if problems:
        raise CatalogError("observations cannot be read", problems)
    return observations


def _stems(folder: Path) -> list[str]:
    # history.json lies there too, and is not an observation
    return sorted(file.stem for file in folder.glob("*.json") if file.stem != "history")


def dump(observation: Observation) -> bytes:
    """The file's content: keys sorted, defaults left out, the same for equal observations."""
    content = observation.model_dump(mode="json", exclude_defaults=True)
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write(observations: Mapping[str, Observation], catalog: Path) -> list[Path]:
    """Write `observed/<method>.json` for each; returns the files that changed."""
    from peft_shop.files import write_atomically

    changed = []
    for method, observation in sorted(observations.items()):
        file = catalog / "observed" / f"{method}.json"
        content = dump(observation)
        if not file.is_file() or file.read_bytes() != content:
            write_atomically(file, content)
            changed.append(file)
    return changed
