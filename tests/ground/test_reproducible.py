"""Examples that hypothesis draws do not depend on which modules are loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
DRAW = """
import runpy, sys
runpy.run_path(sys.argv[1])
from hypothesis import given, strategies as st
drawn = []
@given(st.integers(), st.floats(), st.text())
def draw(whole, fraction, text):
    drawn.append((whole, fraction, text))
for name in sys.argv[2:]:
    sys.path.insert(0, name)
    import full_of_constants
draw()
print(drawn)
"""


@pytest.fixture(name="constants")
def module_full_of_constants(tmp_path: Path) -> Path:
    numbers = ", ".join(str(7919 * index + 104729) for index in range(200))
    (tmp_path / "full_of_constants.py").write_text(
        f"NUMBERS = [{numbers}]\nTEXTS = ['peculiar', 'unheard of', 'singular']\n"
    )
    return tmp_path


def drawn(*further: str) -> str:
    command = [sys.executable, "-c", DRAW, str(CONFTEST), *further]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_loaded_module_changes_no_example(constants: Path) -> None:
    assert len(drawn()) > 1000
    assert drawn() == drawn(str(constants))
