"""Pictures: their marks are the data, and the same picture is the same bytes."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import InputError, MissingExtraError, recommend
from peft_shop.forecast.devices import device_of
from peft_shop.show.plots.answers import staircase
from peft_shop.show.plots.canvas import picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.ask.recommendation import Recommendation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def answer() -> Recommendation:
    return recommend("metamathqa", max_peak_memory="24GiB", peft_version="any")


def marks(ax: Any, gid: str) -> list[tuple[float, float]]:
    found = [one for one in ax.collections if one.get_gid() == gid]
    return [tuple(point) for one in found for point in one.get_offsets()]


def test_every_member_is_a_numbered_disc_at_its_figures(answer: Recommendation) -> None:
    ax = answer.plot()
    texts = [one.get_text() for one in ax.texts]
    for rank, one in enumerate(answer.front, start=1):
        (at,) = marks(ax, f"front-{rank}")
        assert at == pytest.approx(
            (one.values["peak_memory"] / 2**30, one.values["test_accuracy"] * 100)
        )
        assert str(rank) in texts
        assert one.title in texts
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Peak memory [GiB]", "Test accuracy [%]")
    assert {"plain LoRA"} <= set(texts)


def test_ties_and_beaten_are_marked_and_what_is_outside_is_counted(answer: Recommendation) -> None:
    ax = answer.plot()
    assert len(marks(ax, "ties")) == len(answer.ties)
    outside = [int(number) for number in re.findall(r"\d+", ax.get_title(loc="right"))]
    full = 1  # full fine-tuning is far to the right
    assert len(marks(ax, "beaten")) + sum(outside) - full == len(answer.dominated)
    bare = answer.plot(ties=False, beaten=False, baselines=False, labels="none")
    assert not marks(bare, "ties")
    assert not marks(bare, "beaten")
    assert [one.get_text() for one in bare.texts] == [
        str(rank) for rank in range(1, len(answer.front) + 1)
    ]


def test_the_line_between_the_attained_is_a_staircase(answer: Recommendation) -> None:
    ax = answer.plot()
    longest = max(ax.lines, key=lambda one: len(one.get_xdata()))
    corners = list(zip(longest.get_xdata(), longest.get_ydata(), strict=True))
    for (x, y), (u, v) in itertools.pairwise(corners):
        assert x == u or y == v, "a straight segment promises what nobody measured"
    for one in [*answer.ties, *answer.dominated]:
        across, up = one.values["peak_memory"] / 2**30, one.values["test_accuracy"] * 100
        reached = max((y for x, y in corners if x <= across + 1e-9), default=0.0)
        assert up <= reached + 1e-9


def test_a_staircase_of_points() -> None:
    assert staircase([(1, 2), (3, 5)], (9, 0)) == [(1, 0), (1, 2), (3, 2), (3, 5), (9, 5)]
    assert staircase([], (9, 0)) == []


def test_a_limit_of_the_question_is_a_dashed_line(answer: Recommendation) -> None:
    dashed = [one for one in answer.plot().lines if one.get_linestyle() == "--"]
    assert [one.get_xdata()[0] for one in dashed] == [24]


def test_three_objectives_make_every_pair() -> None:
    names = ["test_accuracy", "peak_memory", "train_time"]
    three = recommend("metamathqa", names, peft_version="any")
    figure: Any = three.plot().get_figure()
    labels = [
        (one.get_xlabel().split(" [")[0], one.get_ylabel().split(" [")[0]) for one in figure.axes
    ]
    assert labels == [
        ("Peak memory", "Test accuracy"),
        ("Training time as recorded", "Test accuracy"),
        ("Training time as recorded", "Peak memory"),
    ]
    one = three.plot("train_time", "test_accuracy")
    assert one.get_xlabel() == "Training time as recorded [min]"
    with pytest.raises(InputError, match="against itself"):
        three.plot("train_time", "train_time")
    with pytest.raises(InputError, match="did you mean 'peak_memory'"):
        three.plot("peak_memry")
    with pytest.raises(InputError, match="did you mean 'front'"):
        three.plot(labels="fronts")  # type: ignore[arg-type]  # a mistake on purpose


def test_the_same_picture_is_the_same_bytes(answer: Recommendation) -> None:
    first = picture(answer.plot(), Path("a.svg"))
    assert first == picture(answer.plot(), Path("b.svg"))
    assert b"<script" not in first
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        picture(answer.plot(), Path("a.jpg"))


def test_the_picture_of_the_readme_is_fresh(answer: Recommendation) -> None:
    import matplotlib as mpl

    committed = (ROOT / "docs" / "pictures" / "front.svg").read_bytes()
    fresh = picture(answer.plot(), Path("front.svg"))
    if f"Matplotlib {mpl.__version__}<" not in committed.decode():
        # another version draws the same marks with other bytes
        assert fresh.count(b'id="front-') == committed.count(b'id="front-') == len(answer.front)
        return
    assert fresh == committed, "run: python docs/pictures.py"


def test_an_empty_answer_is_still_a_picture() -> None:
    nothing = recommend("metamathqa", max_peak_memory="1GiB", peft_version="any")
    texts = [one.get_text() for one in nothing.plot().texts]
    assert "full fine-tuning" in texts or "nothing meets the constraints" in texts


def test_a_comparison_is_bars_of_its_figures(answer: Recommendation) -> None:
    comparison = answer.compare("lora", "shira", "cpt")
    ax = comparison.plot("test_accuracy")
    lora, shira, _ = comparison.subjects
    widths = [bar.get_width() for bar in ax.patches]
    known = [one.contender.values["test_accuracy"] * 100 for one in (lora, shira) if one.contender]
    assert widths == pytest.approx(known)
    assert "not known" in [one.get_text() for one in ax.texts]
    assert "lora/rank64-rslora" in str(comparison)
    assert "<table" in comparison._repr_html_()
    assert len(answer.compare().subjects) == len(answer.front)


def test_a_forecast_is_its_parts_stacked() -> None:
    from transformers import LlamaConfig

    from peft_shop.model.inspection import inspect_model

    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, architectures=["LlamaForCausalLM"])
    structure = inspect_model(config).structure
    found = recommend("metamathqa", peft_version="any")["lora/rank32"].forecast(structure)
    ax = found.plot("T4")
    widths = [bar.get_width() for bar in ax.patches]
    unit = 2**30 if "[GiB]" in ax.get_xlabel() else 2**20
    assert sum(widths) * unit == pytest.approx(found.peak_memory.value, rel=1e-6)
    (limit,) = [one for one in ax.lines if one.get_linestyle() == "--"]
    assert limit.get_xdata()[0] * unit == pytest.approx(device_of("T4").usable_bytes)


def test_an_absent_matplotlib_is_told_with_the_command(
    answer: Recommendation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'peft-shop\[plot\]'"):
        answer.plot()


def test_no_window_is_opened_and_pyplot_stays_away() -> None:
    code = (
        "import sys; from peft_shop import recommend; recommend(peft_version='any').plot();"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_commands_draw_into_files(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "front.png"
    code, _, err = run("recommend", "--plot", str(path))
    assert (code, err) == (0, f"wrote {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")
    code, out, err = run("recommend", "--plot", str(path))
    assert (code, out) == (2, "")
    assert "add --force" in err
    path = tmp_path / "bars.svg"
    path.write_text("mine")
    assert run("compare", "lora", "shira", "--plot", str(path), "--force")[0] == 0
    assert path.read_bytes().startswith(b"<?xml")
    code, _, err = run("recommend", "--plot", str(tmp_path / "front.pdf"))
    assert code == 2
    assert ".svg or .png" in err


# --- notebooks ---


@pytest.mark.parametrize(
    "asked",
    [
        {"benchmark": "metamathqa"},
        {"benchmark": "image_gen", "quantization": "bnb_4bit"},
        {"benchmark": "metamathqa", "max_peak_memory": "1GiB"},
        {"benchmark": "metamathqa", "serve": "vllm"},
        {"benchmark": "image_gen", "objectives": ["dino_similarity", "drift", "train_time"]},
    ],
)
def test_an_answer_in_a_notebook_is_small_and_has_its_four_sections(asked: dict[str, Any]) -> None:
    answer = recommend(**asked, peft_version="any")
    html = answer._repr_html_()
    assert len(html.encode()) < 10_000
    assert "<script" not in html
    assert html.count("<details>") == html.count("<summary>") == html.count("</details>") == 4
    for one in answer.front[:6]:
        assert answer.short(one) in html
    for one in answer.front:
        card = one._repr_html_()
        assert len(card.encode()) < 6_000
        assert one.config_dict["peft_type"] in card
        figures = one.values[answer.benchmark.headline]
        assert f"{100 * figures:.1f} %" in card or f"{figures:.3f}" in card


def test_names_that_are_offered_are_ours(answer: Recommendation) -> None:
    for one in (answer, answer.best):
        offered = dir(one)
        assert {"metrics" if one is answer else "snippet"} <= set(offered)
        assert not [name for name in offered if name.startswith(("model_", "_"))]
        assert all(hasattr(type(one), name) or name in type(one).model_fields for name in offered)
