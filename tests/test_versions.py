"""The lowest versions that are stated work, and so does every Python here that is supported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHERS = ("python3.12", "python3.13", "python3.14")
SAMPLE = (
    "tests/ground/test_units.py",
    "tests/ground/test_pareto.py",
    "tests/catalog/test_store.py",
    "tests/ask/test_fronts.py",
    "tests/show/test_render.py",
)
TESTED_WITH = ("hypothesis", "jsonschema", "pytest")


def lowest(requirements: list[str]) -> list[str]:
    """Each requirement pinned to the lowest version that it allows."""
    pinned = []
    for text in requirements:
        requirement = Requirement(text)
        (bound,) = [one for one in requirement.specifier if one.operator in {">=", "=="}]
        pinned.append(f"{requirement.name}=={bound.version}")
    return pinned


def stated() -> list[str]:
    """What an installation with its tests needs, torch and all that comes with it left out."""
    extra = PROJECT["optional-dependencies"]["test"]
    tests = [one for one in extra if Requirement(one).name in TESTED_WITH]
    return [*PROJECT["dependencies"], *tests]


def test_every_requirement_states_its_lowest_version() -> None:
    pinned = lowest(stated())
    assert len(pinned) == len(PROJECT["dependencies"]) + len(TESTED_WITH)


def usable(name: str) -> str | None:
    """Path of a Python of this name, of pyenv's too; `None` where there is none that starts."""
    pyenv = Path.home() / ".pyenv" / "versions"
    places = [shutil.which(name), *sorted(map(str, pyenv.glob(f"*/bin/{name}")))]
    for place in filter(None, places):
        asked = subprocess.run([place, "-c", "import venv"], capture_output=True, check=False)
        if asked.returncode == 0:
            return place
    return None


def installed(python: str, folder: Path, requirements: list[str]) -> Path:
    """Python of a new environment with the package and `requirements`."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    inside = folder / "bin" / "python"
    pip = [str(inside), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    reached = subprocess.run(
        [*pip, "download", "--no-deps", "--dest", str(folder / "tried"), "packaging"],
        capture_output=True,
        text=True,
        check=False,
    )
    if reached.returncode != 0:
        pytest.skip("no index of packages can be reached from here")
    done = subprocess.run(
        [*pip, "install", str(ROOT), *requirements], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return inside


def check(python: Path, folder: Path) -> None:
    """The README's first question, and a sample of the tests."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python.with_name("peft-shop")), "recommend", "--benchmark", "metamathqa"]
    asked = subprocess.run(
        [*command, "--max", "peak_memory=24GiB"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert "MetaMathQA on Llama-3.2-3B" in asked.stdout
    # the installed package, not the checkout's: that is not on the path of a test run from here
    tests = [str(ROOT / name) for name in SAMPLE]
    tested = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT),
         "-c", str(ROOT / "pyproject.toml"), *tests],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-5000:]


@pytest.mark.slow
def test_the_lowest_stated_versions_work(tmp_path: Path) -> None:
    python = installed(sys.executable, tmp_path / "env", lowest(stated()))
    frozen = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout.lower()
    for pin in lowest(PROJECT["dependencies"]):
        name, _, version = pin.partition("==")
        assert any(line.startswith(f"{name}=={version}") for line in frozen.splitlines()), (
            pin,
            frozen,
        )
    check(python, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_another_python_works(name: str, tmp_path: Path) -> None:
    python = usable(name)
    if python is None:
        pytest.skip(f"there is no {name} here")
    check(installed(python, tmp_path / "env", list(TESTED_WITH)), tmp_path)
