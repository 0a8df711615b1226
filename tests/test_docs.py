"""README and docs run as they stand, say everything there is, and link to what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import peft_shop
from peft_shop import errors
from peft_shop.ask import recommend
from peft_shop.catalog.engines import TOPIC_IDS
from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.catalog.store import load
from peft_shop.catalog.trainers import (
    CONDITIONS,
    RECIPE_FIELDS,
    TRAINER_OPTIONS,
    TRAINER_TOPICS,
)
from peft_shop.cli.app import app
from peft_shop.names import Bounds

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))  # its scripts are not a package

import code_pages  # noqa: E402 - found through the line above
import examples  # noqa: E402
import generate  # noqa: E402

PAGES = {page.relative_to(ROOT).as_posix(): page for page in examples.pages()}
WRITTEN = [name for name in PAGES if not name.startswith("docs/reference/")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def reference(name: str) -> str:
    return (generate.REFERENCE / name).read_text(encoding="utf-8")


# --- examples run ---


# peft asks transformers in a way that transformers is about to drop
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", WRITTEN)
def test_examples_print_what_the_page_shows(name: str, tmp_path: Path) -> None:
    outcomes = examples.run_page(PAGES[name], tmp_path)
    wrong = [
        f"{name}:{outcome.example.line} shows\n{outcome.example.shown}\nbut this is printed\n"
        f"{outcome.printed}"
        for outcome in outcomes
        if not outcome.fits
    ]
    assert not wrong, "\n".join([*wrong, "run: python docs/generate.py --update-examples"])


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md", "docs/explanation.md"])
def test_pages_have_examples(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    assert len(examples.examples(text, name)) >= 4


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_block_is_of_a_known_kind(name: str) -> None:
    known = {"python", "console", "sh", "text", "toml", "json", "yaml", "py", "pycon"}
    for block in examples.blocks(PAGES[name].read_text(encoding="utf-8")):
        assert block.language in known, f"{name}:{block.line}"
        if block.tag:
            assert re.fullmatch(r"notest downloads \S+", block.tag), f"{name}:{block.line}"


@pytest.mark.parametrize("name", WRITTEN)
def test_shell_blocks_parse(name: str) -> None:
    for block in examples.blocks(PAGES[name].read_text(encoding="utf-8")):
        if block.language == "sh":
            done = subprocess.run(
                ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, f"{name}:{block.line}: {done.stderr}"


def page(text: str) -> list[examples.Example]:
    return examples.examples(text, "page.md")


def test_a_page_that_shows_something_else_is_found_out(tmp_path: Path) -> None:
    text = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    (example,) = page(text)
    outcome = examples.Outcome(example, examples.run_python(example, {}))
    assert outcome.printed == "2\n"
    assert not outcome.fits
    assert replace(outcome, example=replace(example, shown="2\n")).fits


def test_commands_and_their_outputs_are_told_apart() -> None:
    text = "```console\n$ peft-shop a \\\n    --b\none\ntwo\n$ peft-shop c\n```\n"
    first, second = page(text)
    assert (first.code.split(), first.shown) == (["peft-shop", "a", "--b"], "one\ntwo\n")
    assert (second.code, second.shown) == ("peft-shop c", "")
    assert text[first.start : first.end] == "one\ntwo\n"


def test_other_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="only `peft-shop` runs"):
        examples.run_command("echo hello")
    with pytest.raises(ValueError, match="would write into the package"):
        examples.run_command("peft-shop catalog compile")


@pytest.mark.parametrize(
    ("shown", "printed", "fit"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a  \nb\n\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\n", "a\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
        ("a\n", "a\nb\n", False),
        ("", "surprise\n", False),
    ],
)
def test_wildcards(shown: str, printed: str, fit: bool) -> None:
    assert examples.matches(shown, printed) is fit


def test_a_refreshed_output_fits_and_leaves_out_as_much() -> None:
    printed = "a\nb\nc\nd\ne\n"
    assert examples.refreshed("x\n...\ny\nz\n", printed) == "a\n...\nd\ne\n"
    for shown in ("x\n", "x\n...\ny\n", "...\n"):
        assert examples.matches(examples.refreshed(shown, printed), printed)


# --- links ---

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


LINKED = {
    **PAGES,
    **{
        name: ROOT / name
        for name in ("CHANGELOG.md", "CONTRIBUTING.md", "catalog/README.md", "data/README.md")
    },
}


@pytest.mark.parametrize("name", sorted(LINKED))
def test_links_lead_somewhere(name: str) -> None:
    text = LINKED[name].read_text(encoding="utf-8")
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(plain):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (LINKED[name].parent / path).resolve() if path else LINKED[name]
        assert file.exists(), f"{name}: {target}"
        assert file.is_relative_to(ROOT), f"{name}: {target} leads out of the repository"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: {target}"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {
        (ROOT / "docs" / target.partition("#")[0]).resolve() for target in LINK.findall(index)
    }
    missing = {name for name, path in PAGES.items() if path not in linked}
    assert missing <= {"README.md", "docs/README.md"}


# --- the README's frame ---


def setups() -> list[examples.Block]:
    return [
        block
        for block in examples.blocks(README)
        if block.language == "sh" and "-m venv" in block.text
    ]


def test_readme_has_two_setup_commands() -> None:
    run, test = setups()
    assert run.text.strip().rsplit("\n", 1)[-1].startswith(".venv/bin/peft-shop recommend")
    assert "'.[test]'" in test.text
    assert "pytest" in test.text.strip().rsplit("\n", 1)[-1]
    for block in (run, test):
        assert "python3" in block.text, "a fresh machine may have no `python`"


def test_the_test_command_is_the_one_that_continuous_integration_takes() -> None:
    text = README.split("<!-- test-command -->")
    assert len(text) == 2
    assert text[1].lstrip().startswith("```sh\n" + setups()[1].text)


def test_the_first_command_shows_its_output() -> None:
    shown = [one for one in page(README) if one.code.startswith("peft-shop recommend")]
    assert shown[0].shown


def test_the_test_environment_pins_what_the_readme_says() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"torch==2.13.0"' in project
    assert '"peft==0.21.2"' in project


# --- the reference is complete ---


def test_reference_pages_are_fresh() -> None:
    assert generate.stale() == [], "run: python docs/generate.py"


def test_a_stale_page_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, write in generate.PAGES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(write(), encoding="utf-8")
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    assert generate.stale() == []
    text = (tmp_path / "errors.md").read_text(encoding="utf-8")
    (tmp_path / "errors.md").write_text(text.replace("QuantityError", "Other"), encoding="utf-8")
    (tmp_path / "rules.md").unlink()
    assert generate.stale() == ["errors.md", "rules.md"]
    assert generate.write() == ["errors.md", "rules.md"]
    assert generate.stale() == []


def test_every_command_and_flag_is_documented() -> None:
    text = reference("cli.md")
    for name, command, _ in code_pages.commands(app):
        assert f"\n## {name}\n" in text
        part = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                for flag in [*parameter.opts, *parameter.secondary_opts]:
                    assert f"`{flag}`" in part, f"{name} {flag}"
                assert parameter.help, f"{name} {parameter.name} has no help text"
        assert command.help, f"{name} has no help text"


def test_every_keyword_is_documented() -> None:
    text = reference("api.md")
    part = text.partition("### `recommend`")[2].partition("### `any_of`")[0]
    keywords = dict.fromkeys(recommend.recommend.__kwdefaults__ or {})
    assert len(keywords) > 20
    for keyword in ["benchmark", "objectives", *keywords, *Bounds.__annotations__]:
        assert f"| `{keyword}` |" in part, keyword


def test_every_public_name_is_documented() -> None:
    text = reference("api.md") + reference("errors.md")
    for name in peft_shop.__all__:
        assert f"# `{name}`" in text, name


def test_every_field_of_every_record_is_documented() -> None:
    text = reference("api.md")
    for cls in (*code_pages.ANSWER_RECORDS, *code_pages.QUESTION_RECORDS):
        for field in cls.model_fields:
            assert f"| `{field}` |" in text, f"{cls.__name__}.{field}"
    for cls in code_pages.catalog_records():
        part = text.partition(f"### `{cls.__name__}`")[2].partition("\n### ")[0]
        for field in cls.model_fields:
            assert f"| `{field}` |" in part, f"{cls.__name__}.{field}"


def test_every_metric_feature_and_method_is_documented() -> None:
    catalog = load()
    metrics, methods = reference("metrics.md"), reference("methods.md")
    data = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for metric in catalog.metrics:
        assert f"### `{metric.id}`" in metrics
        assert f"### `{metric.id}`" in data
    for feature in FEATURE_IDS:
        assert f"| `{feature}` |" in methods
    for method in catalog.methods:
        assert methods.count(f"\n| `{method.id}` |") >= 5, method.id


def test_every_engine_and_topic_is_documented() -> None:
    text = reference("engines.md")
    for engine in load().engines:
        assert f"(engines/{engine.id}.md)" in text
        page = reference(f"engines/{engine.id}.md")
        assert all(f"| `{topic}` |" in page for topic in engine.facts)
        assert all(f"| `{method.id}` |" in page for method in load().methods)
        assert all(hazard.text in page for hazard in engine.hazards)
    for topic in TOPIC_IDS:
        assert f"| `{topic}` |" in text


def test_every_trainer_and_topic_is_documented() -> None:
    text = reference("trainers.md")
    for trainer in load().trainers:
        assert f"(trainers/{trainer.id}.md)" in text
        page = reference(f"trainers/{trainer.id}.md")
        assert all(f"| `{topic}` |" in page for topic in trainer.facts)
        assert all(f"| `{method.id}` |" in page for method in load().methods)
        assert all(hazard.text in page for hazard in trainer.hazards)
        assert all(rule.note in page for rule in trainer.rules)
    for topic in (*TRAINER_OPTIONS, *TRAINER_TOPICS, *CONDITIONS, *RECIPE_FIELDS):
        assert f"| `{topic}` |" in text


def test_commands_of_engines_use_options_that_the_engines_have() -> None:
    """Those in `sh` blocks, against the list of arguments that the catalog recorded."""
    commands = {one.id: one.command for one in load().engines if one.command is not None}
    starts = {
        # the program, without what it is told
        re.split(r"\s(?:BASE|-)(?!m\b)", f"{command.line} -")[0]: command
        for command in commands.values()
    }
    seen = set()
    for page in sorted(ROOT.glob("docs/**/*.md")):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for start, command in starts.items():
                    if line.startswith(start):
                        used = re.findall(r"(?<=\s)--?[a-z][a-z-]*", line[len(start) :])
                        assert used
                        assert set(used) <= set(command.flags), f"{page.name}: {line}"
                        seen.add(start)
    assert {"vllm serve", "python -m sglang.launch_server"} <= seen


def test_every_error_is_documented() -> None:
    text = reference("errors.md")
    for name in errors.__all__:
        if isinstance(getattr(errors, name), type):
            assert f"## `{name}`" in text
            drawn = re.search(rf"^\W*{name}\b", text.partition("```")[2], re.MULTILINE)
            assert name in {"Keyword", "Problem"} or drawn, f"{name} is not in the tree"


def test_every_rule_is_documented() -> None:
    from peft_shop.curate.sources.rules import RULES

    text = reference("rules.md")
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule.law} |" in text
