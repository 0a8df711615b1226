"""What the page gives away works: its Python makes configurations, its lines ask the question."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from typer.main import get_command

from peft_shop import load_catalog
from peft_shop.ask.query import Query
from peft_shop.ask.recommend import read_question
from peft_shop.cli import recommend as command
from peft_shop.cli.app import app
from peft_shop.show.site.pages import site_files
from peft_shop.upstream.configs import config_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node: apt-get install nodejs"),
]


class _AskedError(Exception):
    """Carries what the command would have asked."""


@pytest.fixture(scope="module")
def links(questions: Callable[[int, int], list[dict[str, str]]]) -> list[str]:
    return ["#" + urlencode(parameters) for parameters in questions(60, 11)]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, links: list[str]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("lines")
    for name, content in site_files(load_catalog()).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "cases.json").write_text(json.dumps(links))
    told = subprocess.run(
        ["node", HERE / "lines.mjs", folder, folder / "cases.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def same(one: Query, other: Query) -> bool:
    """Whether two questions differ in nothing but the order of their demands and limits."""
    bare = {"requirements": (), "bounds": ()}
    return (
        one.model_copy(update=bare) == other.model_copy(update=bare)
        and set(one.bounds) == set(other.bounds)
        and set(one.requirements) == set(other.requirements)
    )


def test_the_lines_ask_the_same_question(
    shown: dict[str, Any], links: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(**stated: Any) -> None:
        raise _AskedError(stated)

    monkeypatch.setattr(command, "ask", ask)
    program = get_command(app)
    for link, (line, code) in zip(links, shown["lines"], strict=True):
        wanted = Query.from_url(link)
        with pytest.raises(_AskedError) as caught:
            program.main(shlex.split(line)[1:], standalone_mode=False)
        assert same(read_question(**caught.value.args[0]), wanted), line
        made: dict[str, Any] = {}
        exec(code, made)  # noqa: S102 - the page's own line, of names in the catalog
        assert same(made["answer"].query, wanted), code


def test_the_code_makes_every_configuration(shown: dict[str, Any]) -> None:
    assert len(shown["codes"]) > 100
    for name, code, config in shown["codes"]:
        made: dict[str, Any] = {}
        exec(code, made)  # noqa: S102 - as above
        assert repr(made["config"]) == repr(config_from_dict(config)), name
