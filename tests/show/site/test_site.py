"""The page on disk and over HTTP: whole or not at all, the same bytes, for this machine alone."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import load_catalog
from peft_shop.errors import InputError, PeftShopError
from peft_shop.records import compact_json
from peft_shop.show import site
from peft_shop.show.site.pages import CSP, MARK, single_page, site_files
from peft_shop.show.site.serving import PageServer, has_screen
from peft_shop.show.site.table import candidate_table
from peft_shop.show.site.writing import write_single, write_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.catalog import Catalog

HOSTILE = (
    "</script><img src=x onerror=alert(1)> \"'` 🦙 \u202egnp.exe\u2028 ]]> <!--" + "x" * 10_000
)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return site_files(load_catalog())


def hostile() -> Catalog:
    """The catalog with every text that a stranger may have written replaced."""
    catalog = load_catalog()
    methods = tuple(
        one.model_copy(update={"title": HOSTILE, "summary": HOSTILE, "notes": (HOSTILE,)})
        for one in catalog.methods
    )
    first = catalog.benchmarks[0]
    benchmarks = (
        first.model_copy(update={"title": HOSTILE, "description": HOSTILE, "model_id": HOSTILE}),
        *catalog.benchmarks[1:],
    )
    return catalog.model_copy(update={"methods": methods, "benchmarks": benchmarks})


def data_in(text: str) -> Any:
    """The value that a data script assigns."""
    return json.loads(text[text.index("]=") + 2 : text.rindex(";")])


def test_the_same_catalog_gives_the_same_bytes(files: dict[str, bytes]) -> None:
    assert site_files(load_catalog().model_copy()) == files


def test_the_page_carries_its_policy_and_no_address_of_others(files: dict[str, bytes]) -> None:
    html = files["index.html"].decode()
    assert CSP.replace("'", "&#x27;") in html
    assert not re.findall(r'(?:src|href)="(?!assets/|data:|data/|llms\.txt|catalog\.json)', html)
    script = files["assets/app.js"].decode()
    assert "eval(" not in script


def test_the_sources_make_no_html_of_texts() -> None:
    sources = sorted((Path(site.__file__).parent / "src").glob("*.ts*"))
    assert len(sources) > 10
    words = ("nnerHTML", "outerHTML", "insertAdjacent", "eval(", "new Function", "document.write")
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], source.name


def test_budgets_of_bytes(files: dict[str, bytes]) -> None:
    import gzip

    own = len(files["assets/app.js"]) + len(files["assets/app.css"])
    assert own <= 100_000
    first = ("index.html", "assets/app.css", "assets/app.js", "data/table.js")
    assert sum(len(gzip.compress(files[name], 9)) for name in first) <= 80_000


def test_the_table_has_what_answers_have(files: dict[str, bytes]) -> None:
    catalog = load_catalog()
    table = data_in(files["data/table.js"].decode())
    assert [one["id"] for one in table["benchmarks"]] == ["metamathqa", "image_gen"]
    assert [one["id"] for one in table["methods"]] == [one.id for one in catalog.methods]
    for benchmark in table["benchmarks"]:
        for row in (*benchmark["rows"], *benchmark["whole"]):
            assert len(row.get("values", benchmark["metrics"])) == len(benchmark["metrics"])
    texts = data_in(files["data/texts.js"].decode())
    assert texts[0] == ""
    assert len(set(texts)) == len(texts)


def test_every_run_has_a_configuration_and_a_script(files: dict[str, bytes]) -> None:
    table = data_in(files["data/table.js"].decode())
    for place, benchmark in enumerate(table["benchmarks"]):
        runs = data_in(files[f"data/runs-{place}.js"].decode())
        scripts = data_in(files[f"data/scripts-{place}.js"].decode())
        for row in benchmark["rows"]:
            if "values" in row:
                assert runs[row["name"]]["config"]["peft_type"]
                compile(scripts[row["name"]], row["name"], "exec")


def test_only_runs_of_the_image_benchmark_have_sample_images(files: dict[str, bytes]) -> None:
    table = data_in(files["data/table.js"].decode())
    for place, benchmark in enumerate(table["benchmarks"]):
        runs = data_in(files[f"data/runs-{place}.js"].decode())
        assert {"samples" in one for one in runs.values()} == {benchmark["id"] == "image_gen"}
    for name, content in files.items():
        assert name in {"catalog.json", "data/runs-1.js"} or b"sample-images" not in content, name


def test_texts_for_agents(files: dict[str, bytes]) -> None:
    index = files["llms.txt"].decode()
    for link in re.findall(r"\]\(([^)]+)\)", index):
        assert link in files, link
    assert json.loads(files["catalog.json"])["catalog_version"] == load_catalog().catalog_version
    assert files["methods/lora.md"].decode().startswith("#")


class Elements(HTMLParser):
    """Elements of a page, by name, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.found[tag] += 1


def test_hostile_texts_stay_texts() -> None:
    catalog, usual = hostile(), load_catalog()
    ours = single_page(catalog).decode()
    assert Elements(ours).found == Elements(single_page(usual).decode()).found
    for line in ours.splitlines():
        if "peftShopData??=" in line[:60]:
            assert "<" not in line.removeprefix("<script>").removesuffix("</script>")
            assert line.isascii()
    table = candidate_table(catalog)
    assert table["methods"][0]["summary"] == HOSTILE
    assert json.loads(compact_json(table))["methods"][0]["summary"] == HOSTILE


def test_an_empty_benchmark_and_methods_without_runs() -> None:
    catalog = load_catalog().model_copy(update={"runs": ()})
    table = candidate_table(catalog)
    for benchmark in table["benchmarks"]:
        assert benchmark["snapshot"] is None
        assert len(benchmark["rows"]) == len(catalog.methods)


# --- on disk ---


def test_a_folder_is_written_and_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    names = write_site(load_catalog(), folder)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(names)
    (folder / "methods" / "stale.md").write_text("old")
    write_site(load_catalog(), folder)
    assert not (folder / "methods" / "stale.md").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        write_site(load_catalog(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    file = tmp_path / "thesis.tex"
    with pytest.raises(InputError, match="no folder"):
        write_site(load_catalog(), file)
    with pytest.raises(InputError, match="is a folder"):
        write_single(load_catalog(), tmp_path)
    with pytest.raises(InputError, match="--force"):
        write_single(load_catalog(), file)
    assert file.read_text() == "years of work"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_site(load_catalog(), tmp_path / "empty")
    assert (tmp_path / "empty" / MARK).is_file()


def test_one_file_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "shop.html"
    write_single(load_catalog(), file)
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="(?!data:)', text)
    with pytest.raises(PeftShopError, match="no folder"):
        write_single(load_catalog(), tmp_path / "absent" / "shop.html")


# --- over HTTP ---


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[PageServer]:
    with PageServer(files) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: PageServer, method: str, path: str, host: str | None = None
) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_every_file_is_served_as_it_is(server: PageServer) -> None:
    for name, content in server.files.items():
        status, headers, body = ask(server, "GET", f"/{name}")
        assert (status, body) == (200, content)
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, "GET", "/?merging=1")[2] == server.files["index.html"]
    assert ask(server, "GET", "/assets/app.js")[1]["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/etc/passwd", "/assets", "//etc/passwd", "/a\\b", "/%00"]
)
def test_nothing_else_is_served(server: PageServer, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost:1"])
def test_other_names_are_refused(server: PageServer, host: str) -> None:
    status, _, body = ask(server, "GET", "/", host)
    assert status == 421
    assert b"<" not in body


def test_localhost_is_this_machine(server: PageServer) -> None:
    assert ask(server, "GET", "/", f"localhost:{server.server_port}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
def test_only_get_is_answered(server: PageServer, method: str) -> None:
    status, headers, _ = ask(server, method, "/")
    assert status == 405
    assert headers["Allow"] == "GET"


def test_a_port_that_is_taken_is_told(server: PageServer) -> None:
    with pytest.raises(PeftShopError, match=f"port {server.server_port}"):
        PageServer({}, server.server_port)


def test_no_browser_is_opened_over_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    assert not has_screen()


# --- the commands ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["serve"], ""),
        (
            ["recommend", "--merging", "--open", "--peft-version", "any"],
            "#benchmark=metamathqa&merging=1",
        ),
        (["show", "dora", "--open"], "#view=method&name=dora"),
        (["compare", "lora", "oft", "--open"], "#benchmark=metamathqa&view=compare&compare="),
    ],
)
def test_commands_open_the_page(command: list[str], place: str) -> None:
    environment = {"SSH_CONNECTION": "x", "PEFT_SHOP_CACHE": "off"}
    process = subprocess.Popen(
        [sys.executable, "-m", "peft_shop", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        for line in process.stdout:
            found = re.match(r"http://127\.0\.0\.1:(\d+)/(.*)", line)
            if found or time.monotonic() > deadline:
                break
        assert found
        assert found[2].startswith(place)
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == site_files(load_catalog())["index.html"]
        connection.close()
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
def test_the_command_writes_the_page(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "peft_shop", "site", "-o", tmp_path / "shop"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "index.html" in done.stderr
    assert (tmp_path / "shop" / "index.html").is_file()
    refused = subprocess.run(
        [sys.executable, "-m", "peft_shop", "site", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "holds something else" in refused.stderr
