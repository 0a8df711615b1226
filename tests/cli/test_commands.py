"""Commands load when they are called, and the list of them says what they say."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from peft_shop.cli.app import Program, app
from peft_shop.cli.catalog import CatalogGroup, _checkout_only
from peft_shop.errors import InputError

ENTRIES = [*Program.table.items(), *CatalogGroup.table.items()]


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[name for name, _ in ENTRIES])
def test_the_list_says_what_the_command_says(name: str, entry: Any) -> None:
    told = inspect.getdoc(entry.load()) or ""
    assert entry.summary == " ".join(told.split("\n\n")[0].split())


def test_names_are_listed_without_loading_a_command() -> None:
    code = (
        "import contextlib, io, sys\n"
        "sys.argv = ['peft-shop', '--help']\n"
        "from peft_shop.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print(*sorted(name for name in sys.modules if name.startswith('peft_shop.')))\n"
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(done[0].split()) == {
        "peft_shop.__main__",
        "peft_shop.cli",
        "peft_shop.cli.app",
        "peft_shop.cli.catalog",
        "peft_shop.cli.commands",
        "peft_shop.cli.streams",
        "peft_shop.cli.trial",
        "peft_shop.cli.wording",
        "peft_shop.errors",
    }
    assert done[1] == "False"


def test_every_command_can_be_taken_by_its_name() -> None:
    program: Any = get_command(app)
    assert list(program.commands) == [*Program.table, "trial", "catalog"]
    assert len(program.commands) == len(Program.table) + 2
    for name in program.commands:
        assert program.commands[name].name == name
        assert program.commands[name] is program.get_command(None, name)
    assert program.get_command(None, "recomend") is None


def test_a_command_of_the_workshop_says_that_it_needs_a_checkout() -> None:
    with pytest.raises(InputError, match="`peft-shop catalog probe` needs a checkout"):
        _checkout_only("probe")()
