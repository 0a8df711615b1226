"""The committed history against releases of peft that are really installed.

Slow: pip fetches older releases into throw-away folders. Without a package index it skips.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peft_shop.curate.releases import history as room
from peft_shop.errors import CatalogError
from peft_shop.upstream.versions import version_key

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "catalog" / "observed" / "history.json"
RUNS = ROOT / "data" / "runs"

# 0.6.2 ships leftovers of 0.5 beside its packages; 0.14.0 is the last release with one list of
# all methods
OLDER = ("0.6.2", "0.10.0", "0.14.0", "0.17.1")
# peft 0.16 and 0.17 import a class that transformers 5 removed; every one of OLDER takes this
TRANSFORMERS = "transformers==4.57.*"

# runs under an older peft: which arguments each configuration class takes, and what becomes of
# each configuration on standard input
INSIDE = """
import inspect, json, sys
import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as table

classes = {getattr(key, "value", key).lower(): cls for key, cls in table.items()}
outcomes = []
for method, config in json.load(sys.stdin):
    try:
        built = classes[method](**config)
    except TypeError as error:
        outcomes.append(f"TypeError: {error}")
    else:
        lost = [key for key in config if not hasattr(built, key)]
        outcomes.append(f"lost {lost}" if lost else "built")
json.dump({
    "version": peft.__version__,
    "arguments": {m: sorted(inspect.signature(c).parameters) for m, c in classes.items()},
    "outcomes": outcomes,
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def history() -> dict[str, Any]:
    return dict(json.loads(HISTORY.read_text(encoding="utf-8")))


def pip(*arguments: str) -> None:
    try:
        room._pip(*arguments)
    except CatalogError as error:
        pytest.skip(f"pip cannot fetch: {error.problems[0].message}")


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    pip("install", "--quiet", "--target", str(folder), TRANSFORMERS)
    return folder


@pytest.fixture(scope="module", params=OLDER)
def release(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, transformers: Path
) -> tuple[str, list[Path]]:
    """A release of peft, and the folders that make it importable."""
    version = str(request.param)
    folder = tmp_path_factory.mktemp("peft")
    pip("install", "--quiet", "--no-deps", "--target", str(folder), f"peft=={version}")
    return version, [folder, transformers]


def ask(release: tuple[str, list[Path]], configs: list[tuple[str, dict[str, Any]]]) -> Any:
    version, folders = release
    paths = os.pathsep.join(map(str, folders))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INSIDE],
        input=json.dumps(configs),
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        cwd=folders[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["version"] == version
    return answer


def not_later(since: str, version: str) -> bool:
    return version_key(since) <= version_key(version)


def disagreements(
    history: dict[str, Any], version: str, arguments: dict[str, list[str]]
) -> list[str]:
    """Where the history and an installed release differ."""
    found = []
    for method, record in history["methods"].items():
        if not_later(record["since"], version) != (method in arguments):
            found.append(method)
        for field, since in record["fields"].items():
            if not_later(since, version) != (field in arguments.get(method, ())):
                found.append(f"{method}.{field}")
    return found


def recipes(history: dict[str, Any], version: str) -> list[tuple[str, dict[str, Any]]]:
    """Measured configurations of what `version` has, without the fields that it lacks."""
    found = {}
    for path in sorted(RUNS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            run = json.loads(line)
            record = history["methods"].get(run["method"])
            if record is None:  # full fine-tuning
                continue
            stated = run["recipe"].get("config", {})
            if run["method"] == "adalora" and "total_step" not in stated:
                continue  # what ran it did without; every release demands it
            if stated.get("oft_block_size"):
                stated = {"r": 0} | stated  # the default, which once was 8
            needed = [record["since"], *(record["variants"][v] for v in run.get("variants", ()))]
            if not all(not_later(since, version) for since in needed):
                continue
            config = {
                field: value
                for field, value in stated.items()
                if not_later(record["fields"][field], version)
            }
            found[json.dumps([run["method"], config], sort_keys=True)] = (run["method"], config)
    return list(found.values())


def test_older_releases_have_what_the_history_says_and_no_more(
    history: dict[str, Any], release: tuple[str, list[Path]]
) -> None:
    version = release[0]
    arguments = ask(release, [])["arguments"]
    assert disagreements(history, version, arguments) == []
    # it can fail: each single date that is moved over this release is noticed
    releases = history["releases"]
    for method, record in history["methods"].items():
        for field, since in record["fields"].items():
            wrong = copy.deepcopy({"methods": {method: record}})
            moved = releases[-1] if not_later(since, version) else version
            wrong["methods"][method]["fields"][field] = moved
            assert disagreements(wrong, version, arguments) == [f"{method}.{field}"]


def test_measured_configurations_build_under_older_releases(
    history: dict[str, Any], release: tuple[str, list[Path]]
) -> None:
    version = release[0]
    configs = recipes(history, version)
    assert len(configs) >= 10
    assert set(ask(release, configs)["outcomes"]) == {"built"}
    # it can fail: one field of a later release is one too many for each of them
    late = []
    for method, config in configs:
        fields = history["methods"][method]["fields"]
        late += [
            (method, config | {field: None})
            for field, since in fields.items()
            if not not_later(since, version)
        ]
    outcomes = ask(release, late)["outcomes"]
    assert len(outcomes) >= 10
    assert all("unexpected keyword argument" in outcome for outcome in outcomes), outcomes


def test_the_newest_fields_are_those_of_the_installed_classes(history: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    mapping = pytest.importorskip("peft.mapping")
    if peft.__version__ != history["releases"][-1]:
        pytest.skip(f"peft {peft.__version__} is not the newest release of the history")
    arguments = {
        getattr(key, "value", key).lower(): set(inspect.signature(cls).parameters)
        for key, cls in mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }
    assert {m: set(record["fields"]) for m, record in history["methods"].items()} == arguments


def test_the_published_wheels_give_the_committed_history(
    history: dict[str, Any], tmp_path: Path
) -> None:
    try:
        wheels = room.download(tmp_path, history["releases"])
    except CatalogError as error:
        pytest.skip(f"pip cannot fetch: {error.problems[0].message}")
    found = room.read_history(reversed(wheels), ROOT / "catalog" / "curated")
    assert room.dump(found) == HISTORY.read_bytes()
