"""What is installed works: from a wheel, from a checkout, and without peft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution, distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# looked up by its metadata: to look for the module `pip` makes setuptools unimportable later on
needs_pip = pytest.mark.skipif(
    not list(distributions(name="pip")), reason="this environment has no pip to install with"
)

# answers, and says where the package was loaded from
ASK = """
import json, sys
import peft_shop
catalog = peft_shop.load_catalog()
answer = peft_shop.recommend("metamathqa", max_peak_memory="24GiB", peft_version="any")
print(json.dumps({
    "home": peft_shop.__file__,
    "methods": len(catalog.methods),
    "runs": len(catalog.runs),
    "front": [member.name for member in answer],
}))
"""

# every finder of modules and of metadata goes on as if they were not installed
WITHOUT_PEFT = """
import sys
HIDDEN = {"peft", "torch", "transformers", "diffusers", "huggingface_hub", "safetensors"}
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)
    def find_distributions(self, *args, **kwargs):
        if hasattr(self.finder, "find_distributions"):
            for found in self.finder.find_distributions(*args, **kwargs):
                if found.metadata["Name"] not in HIDDEN:
                    yield found
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def run(code: str, *, path: Path | None = None, cwd: Path) -> str:
    """What `code` prints in a process of its own, started outside the repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # the environment has the build backend (extra `test`), so that nothing is downloaded
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation"]
    command += ["--no-deps", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    (made,) = folder.glob("peft_shop-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-compile", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


@needs_pip
def test_a_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "peft_shop/_catalog.json" in names
    assert "peft_shop/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"peft_shop"}
    assert not [name for name in names if name.endswith(".pyc")]
    assert not [name for name in names if name.startswith("peft_shop/curate/")]


@needs_pip
def test_an_installed_wheel_says_which_commands_need_a_checkout(
    installed: Path, tmp_path: Path
) -> None:
    code = "import sys; sys.argv = ['peft-shop', 'catalog', {name!r}, '--data', 'x']\n"
    code += "from peft_shop.__main__ import main\nprint(main())"
    for name in ("ingest", "probe", "ready"):
        script = "import contextlib, io\nwith contextlib.redirect_stderr(io.StringIO()) as out:\n"
        script += "".join(f"    {line}\n" for line in code.format(name=name).splitlines()[:-1])
        script += "    code = main()\nprint(code, out.getvalue())"
        printed = run(script, path=installed, cwd=tmp_path)
        assert printed.startswith("2 error: ")
        assert f"catalog {name}` needs a checkout of the repository" in printed
    schema = code.format(name="schema").replace(", '--data', 'x'", "")
    assert json.loads(run(schema.replace("print(main())", "main()"), path=installed, cwd=tmp_path))


@needs_pip
def test_an_installed_wheel_answers(installed: Path, tmp_path: Path) -> None:
    answer = json.loads(run(ASK, path=installed, cwd=tmp_path))
    assert Path(answer["home"]).is_relative_to(installed)
    here = json.loads(run(ASK, path=ROOT, cwd=tmp_path))
    assert answer["methods"] == here["methods"] > 0
    assert answer["runs"] == here["runs"] > 0
    assert answer["front"] == here["front"] != []


@needs_pip
def test_an_installed_wheel_has_the_command(installed: Path, tmp_path: Path) -> None:
    (info,) = installed.glob("*.dist-info")
    scripts = PathDistribution(info).entry_points.select(group="console_scripts")
    assert [(one.name, one.value) for one in scripts] == [("peft-shop", "peft_shop.__main__:main")]
    code = "import sys; sys.argv = ['peft-shop', 'recommend', '--json']\n"
    code += "from peft_shop.__main__ import main\nsys.exit(main())"
    assert json.loads(run(code, path=installed, cwd=tmp_path))


def test_the_installation_in_this_environment_answers(tmp_path: Path) -> None:
    # nothing on the path but what the environment itself has: the editable installation
    answer = json.loads(run(ASK, cwd=tmp_path))
    direct = distribution("peft-shop").read_text("direct_url.json")
    if direct is not None and json.loads(direct).get("dir_info", {}).get("editable"):
        assert Path(answer["home"]).parent == ROOT / "peft_shop"
    assert answer["front"]


def test_without_peft_everything_but_configurations_works(tmp_path: Path) -> None:
    code = WITHOUT_PEFT + (
        "import peft_shop, peft_shop.ask.recommend\n"
        "assert peft_shop.ask.recommend.installed_peft_version() is None\n"
        "best = peft_shop.recommend('metamathqa').best\n"
        "assert best.config_dict['peft_type'], best.config_dict\n"
        "assert 'get_peft_model' in best.snippet\n"
        "print(peft_shop.MissingExtraError.__mro__[2].__name__)\n"
        "for ask in (lambda: best.config, lambda: best.save('adapter')):\n"
        "    try:\n"
        "        ask()\n"
        "    except peft_shop.MissingExtraError as error:\n"
        "        print(error)\n"
    )
    base, *messages = run(code, cwd=tmp_path).splitlines()
    assert base == "ImportError"
    assert len(messages) == 2
    for message in messages:
        assert message.endswith("run: pip install 'peft-shop[peft]'")
        assert "peft, which is not installed" in message
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("recommend --model mine --device 4090 --serve vllm", 0, "were not tried on the model"),
        ("recommend --model mine --device 4090 --json", 0, '"front"'),
        ("forecast lora/llama-3.2-3B-rank32 --model mine --device 4090", 0, "Peak memory"),
        ("snippet qlora --model mine --device 3060", 0, "BitsAndBytesConfig"),
        ("config lora/llama-3.2-3B-rank32 --model mine", 0, '"peft_type"'),
        ("config lora/llama-3.2-3B-rank32 --model mine --preflight", 2, "peft-shop[peft]"),
        ("inspect mine", 0, "Qwen3ForCausalLM"),
        ("why dora --model mine --device 4090", 0, "dora"),
        ("recommend --model other --device 4090", 2, "peft-shop[peft]"),
        ("inspect some/model", 2, "peft-shop[peft]"),
        ("convert mine --base mine -o there", 2, "peft-shop[peft]"),
    ],
)
def test_without_peft_a_question_about_a_model_is_answered_or_says_what_to_install(
    line: str, code: int, said: str, tmp_path: Path
) -> None:
    for name, kind in (("mine", "qwen3"), ("other", "mixtral")):
        (tmp_path / name).mkdir()
        config = {"model_type": kind, "hidden_size": 256, "num_hidden_layers": 2}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    printed = run(
        WITHOUT_PEFT + f"sys.argv = ['peft-shop', *{line.split()!r}]\n"
        "import contextlib, io\n"
        "from peft_shop.__main__ import main\n"
        "out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):\n"
        "    try:\n"
        "        code = main()\n"
        "    except SystemExit as end:\n"
        "        code = end.code\n"
        "print(code, out.getvalue())\n",
        path=ROOT,
        cwd=tmp_path,
    )
    first, _, text = printed.partition(" ")
    assert (int(first), said in text) == (code, True), printed


def test_without_peft_a_probe_says_what_to_install(tmp_path: Path) -> None:
    code = WITHOUT_PEFT + (
        "from pathlib import Path\n"
        "from peft_shop.curate.probe.runner import probe\n"
        "from peft_shop.errors import MissingExtraError\n"
        "try:\n"
        f"    probe(['miss'], catalog=Path({str(ROOT / 'catalog')!r}))\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    assert run(code, cwd=tmp_path).endswith("run: pip install 'peft-shop[probe]'\n")


def test_an_answer_prints_as_text(tmp_path: Path) -> None:
    code = (
        "from peft_shop import recommend\n"
        "answer = recommend('metamathqa', peft_version='any')\n"
        "print(repr(answer))\n"
        "print(answer)\n"
    )
    short, *text = run(code, cwd=tmp_path).splitlines()
    assert short.startswith("<Recommendation for metamathqa: ")
    assert len(text) > 20
    assert max(map(len, text)) <= 100


@needs_pip
@pytest.mark.slow
def test_the_installed_wheel_writes_the_page(installed: Path, tmp_path: Path) -> None:
    from peft_shop import load_catalog
    from peft_shop.show.site.pages import single_page, site_files

    for arguments in (["site", "-o", "shop"], ["site", "-o", "shop.html", "--single"]):
        command = f"sys.argv[1:] = {arguments!r}\nfrom peft_shop.__main__ import main\n"
        run(WITHOUT_PEFT + command + "assert main() == 0\n", path=installed, cwd=tmp_path)
    shop = tmp_path / "shop"
    found = {
        file.relative_to(shop).as_posix(): file.read_bytes()
        for file in shop.rglob("*")
        if file.is_file()
    }
    # these bytes are opened in a browser by tests/show/site/test_page.py
    assert found == site_files(load_catalog())
    assert (tmp_path / "shop.html").read_bytes() == single_page(load_catalog())
