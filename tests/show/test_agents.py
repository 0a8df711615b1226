"""What agents read: every command of the skill runs, and the brief JSON answers an exam."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import recommend
from peft_shop.catalog.store import load
from peft_shop.cli.skill import skill_text
from peft_shop.show.agents import llms_text, method_markdown

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))  # its scripts are not a package

import examples  # noqa: E402 - found through the line above

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.ask.recommendation import Recommendation

    Command = Callable[..., tuple[int, str, str]]

SHOWN = [(one.code, one.shown or "") for one in examples.examples(skill_text(), "SKILL.md")]


def fits(shown: str, printed: str) -> bool:
    """Whether this was printed; ` ...` stands for the rest of a line, `...` for any lines."""
    pattern = ""
    for line in shown.strip("\n").split("\n"):
        if line == "...":
            pattern += r"(?:.*\n)*"
        elif line.endswith(" ..."):
            pattern += re.escape(line.removesuffix(" ...")) + r".*\n"
        else:
            pattern += re.escape(line) + r"\n"
    return re.fullmatch(pattern, printed.strip("\n") + "\n") is not None


def test_the_skill_is_small_and_has_six_commands() -> None:
    text = skill_text()
    assert len(text.encode()) <= 4096
    assert len(SHOWN) == 6
    assert text.startswith("---\nname: peft-shop\ndescription: ")
    for said in ("±", "as good within noise", "unknown", "snapshot", "forecast", "Exit:"):
        assert said in text


@pytest.mark.parametrize(("code", "shown"), SHOWN, ids=[code for code, _ in SHOWN])
def test_every_command_of_the_skill_prints_what_it_says(
    run: Command, code: str, shown: str
) -> None:
    assert shown.strip()
    words = shlex.split(code)
    assert words[0] == "peft-shop"
    status, out, _ = run(*words[1:])
    assert status == 0
    assert fits(shown, out), out[:2000]


def test_the_skill_is_installed_whole_or_not_at_all(run: Command, tmp_path: Path) -> None:
    assert run("skill") == (0, skill_text(), "")
    path = tmp_path / "peft-shop" / "SKILL.md"
    code, _, err = run("skill", "--install", str(tmp_path))
    assert (code, err) == (0, f"wrote {path}\n")
    assert path.read_text(encoding="utf-8") == skill_text()
    assert "up to date" in run("skill", "--install", str(tmp_path))[2]
    path.write_text("mine", encoding="utf-8")
    code, _, err = run("skill", "--install", str(tmp_path))
    assert code == 2
    assert "add --force" in err
    assert path.read_text(encoding="utf-8") == "mine"
    assert run("skill", "--install", str(tmp_path), "--force")[0] == 0
    assert path.read_text(encoding="utf-8") == skill_text()
    assert run("skill", "--install", str(tmp_path / "nowhere"))[0] == 2


# --- the exam: what a reader of the brief JSON says, and what the catalog says ---


def value(member: dict[str, Any], metric: str) -> float:
    figure = member[metric]
    return figure[0] if isinstance(figure, list) else figure


def sd(member: dict[str, Any], metric: str) -> float:
    return member[metric][1]


def least(members: list[dict[str, Any]], metric: str) -> str:
    return str(min(members, key=lambda one: value(one, metric))["name"])


def least_of_all(answer: Recommendation) -> float:
    """Memory of the run that needs least among those that fail nothing but the limit."""
    only = [
        one.run
        for one in answer.dropped
        if {failure.constraint for failure in one.failures} == {"max_peak_memory"}
    ]
    return min(run.metrics["peak_memory_bytes"] for run in only if run is not None)


DEFAULT: dict[str, Any] = {"benchmark": "metamathqa"}
LIMITED = {"benchmark": "metamathqa", "max_peak_memory": "24GiB"}
IMAGES = {"benchmark": "image_gen"}
NOTHING = {"benchmark": "metamathqa", "max_peak_memory": "1GiB"}
SERVED = {"benchmark": "metamathqa", "serve": "vllm"}
MERGED = {"benchmark": "metamathqa", "merging": True, "quantization": "bnb_4bit"}

EXAM: list[tuple[str, dict[str, Any], Callable[[Any], Any], Callable[[Any], Any]]] = [
    ("best score", LIMITED, lambda b: b["best"][0]["name"], lambda a: a.short(a.best)),
    (
        "its accuracy",
        LIMITED,
        lambda b: value(b["best"][0], "test_accuracy"),
        lambda a: a.best.values["test_accuracy"],
    ),
    (
        "its noise",
        LIMITED,
        lambda b: sd(b["best"][0], "test_accuracy"),
        lambda a: a.best.sds["test_accuracy"],
    ),
    ("how many best", DEFAULT, lambda b: b["counts"]["best"], lambda a: len(a.front)),
    (
        "how many ties",
        DEFAULT,
        lambda b: b["counts"]["as_good_within_noise"],
        lambda a: len(a.ties),
    ),
    ("how many left out", MERGED, lambda b: b["counts"]["left_out"], lambda a: len(a.dropped)),
    (
        "never measured",
        DEFAULT,
        lambda b: b["counts"]["never_measured_here"],
        lambda a: len(a.unmeasured),
    ),
    (
        "surest place among the first two",
        DEFAULT,
        lambda b: max(b["best"][:2], key=lambda one: one["again"])["name"],
        lambda a: a.short(max(a.front[:2], key=lambda one: one.front_probability)),
    ),
    (
        "smallest file of the first five",
        DEFAULT,
        lambda b: least(b["best"], "checkpoint_size"),
        lambda a: a.short(min(a.front[:5], key=lambda one: one.values["checkpoint_size"])),
    ),
    (
        "accuracy of plain LoRA",
        DEFAULT,
        lambda b: value(b["yardsticks"][0], "test_accuracy"),
        lambda a: a.baselines[0].values["test_accuracy"],
    ),
    (
        "memory that the best takes more than plain LoRA",
        DEFAULT,
        lambda b: b["yardsticks"][0]["first_minus_it"]["peak_memory"],
        lambda a: a.best.values["peak_memory"] - a.baselines[0].values["peak_memory"],
    ),
    (
        "memory of full fine-tuning",
        DEFAULT,
        lambda b: value(b["yardsticks"][1], "peak_memory"),
        lambda a: a.baselines[1].values["peak_memory"],
    ),
    (
        "rank of the second",
        DEFAULT,
        lambda b: b["best"][1]["config"]["r"],
        lambda a: a.front[1].config_dict["r"],
    ),
    (
        "which are served as they are",
        SERVED,
        lambda b: [one["name"] for one in b["best"] if one["serving"] == "direct"],
        lambda a: [a.short(one) for one in a.front[:5] if one.routes["vllm"].kind == "native"],
    ),
    (
        "which no engine serves",
        DEFAULT,
        lambda b: [one["rank"] for one in b["best"] if one["serving"] == "none"],
        lambda a: [
            rank
            for rank, one in enumerate(a.front[:5], start=1)
            if all(
                one.route(engine.id, catalog=load()).kind == "none"
                for engine in load().engines
                if "text" in engine.models
            )
        ],
    ),
    ("snapshot", DEFAULT, lambda b: b["evidence"]["snapshot"], lambda a: a.query.snapshot),
    ("catalog", DEFAULT, lambda b: b["evidence"]["catalog"], lambda _: load().catalog_version),
    (
        "what to raise when nothing fits",
        NOTHING,
        lambda b: re.findall(r"(\d+\.\d+) GiB", b["relax"][0])[0],
        lambda a: f"{least_of_all(a) / 2**30:.2f}",
    ),
    (
        "best of images",
        IMAGES,
        lambda b: (b["best"][0]["title"], value(b["best"][0], "dino_similarity")),
        lambda a: (a.best.title, a.best.values["dino_similarity"]),
    ),
    (
        "what is optimised, and which way",
        IMAGES,
        lambda b: b["objectives"],
        lambda a: {one.id: one.better for one in a.metrics if one.id in a.query.objectives},
    ),
]


@pytest.mark.parametrize(
    ("asked", "read", "known"), [case[1:] for case in EXAM], ids=[case[0] for case in EXAM]
)
def test_an_exam_on_the_brief_answer(
    run: Command, asked: dict[str, Any], read: Callable[..., Any], known: Callable[..., Any]
) -> None:
    words = ["-b", asked["benchmark"], "--peft-version", "any"]
    for name, one in asked.items():
        if name.startswith("max_"):
            words += ["--max", f"{name.removeprefix('max_')}={one}"]
        elif one is True:
            words.append(f"--{name}")
        elif name != "benchmark":
            words += [f"--{name}", one]
    _, out, _ = run("recommend", *words, "--json", "--brief")
    assert len(out.encode()) <= 4096
    told, right = read(json.loads(out)), known(recommend(**asked, peft_version="any"))
    if isinstance(right, float):
        assert told == pytest.approx(right, rel=1e-4)
    elif isinstance(right, tuple):
        assert told == (right[0], pytest.approx(right[1], rel=1e-4))
    else:
        assert told == right


def test_the_exam_has_twenty_questions() -> None:
    assert len(EXAM) == 20


def test_pages_for_agents_name_every_method() -> None:
    catalog = load()
    text = llms_text(catalog)
    for method in catalog.methods:
        assert f"methods/{method.id}.md" in text
        page = method_markdown(catalog, method)
        assert page.startswith(f"## {method.title}"[:4])
        assert "## What it can do" in page or "### What it can do" in page
