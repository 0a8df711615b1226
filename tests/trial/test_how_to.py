"""What the how-to says about trials works as it stands, from making a model to a front."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "try-on-your-own-data.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(text: str, mark: str) -> str:
    """The one block below a mark."""
    (source,) = re.findall(rf"<!-- {mark} -->\n\n```\w+\n(.*?)```", text, re.DOTALL)
    return str(source)


def test_the_readme_shows_the_commands_that_the_how_to_shows() -> None:
    assert block(README, "three-commands") == block(HOW_TO, "three-commands")


def carried_out(folder: Path, *command: str) -> str:
    """What a command prints; it has to succeed, and to bring no traceback."""
    place = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": place, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    environment["XDG_DATA_HOME"] = str(folder / "user")
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the how-to's tiny model and files."""
    made = tmp_path_factory.mktemp("how-to")
    source = f"{block(HOW_TO, 'tiny-model')}\n{block(HOW_TO, 'more-data')}"
    carried_out(made, sys.executable, "-c", source)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "shows"),
    [
        (
            "three-commands",
            ["test loss", "forgetting", "±", "learning rate misleads: at 0.000"],
        ),
        ("classes", ["test accuracy", "±"]),
        ("answers", ["exact matches"]),
    ],
)
def test_commands_lead_to_a_front_of_ones_own_data(
    folder: Path, mark: str, shows: list[str]
) -> None:
    out = carried_out(folder, "bash", "-euo", "pipefail", "-c", block(HOW_TO, mark))
    answer = out[out.rindex("\nTrial ") :]
    assert re.search(r"\b[1-9]\d* best\b", answer), answer
    for text in shows:
        assert re.search(text, answer), answer


@pytest.mark.slow
def test_the_python_of_the_how_to_runs(folder: Path) -> None:
    out = carried_out(folder, sys.executable, "-c", block(HOW_TO, "in-python"))
    assert re.search(r"\b[1-9]\d* best\b", out)
    assert "learning_rate" in out
