"""Every architecture of the installed transformers and diffusers, held against independent facts.

One process takes minutes; the figures of the committed page must come out again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))  # its scripts are not a package

pytest.importorskip("diffusers")

import architecture_pages as pages  # noqa: E402 - found through the line above
import architecture_sweep as sweep  # noqa: E402 - as above
from architecture_exceptions import EXCEPTIONS  # noqa: E402 - as above

if TYPE_CHECKING:
    from architecture_sweep import Verdict

FEW = (
    "LlamaForCausalLM", "GPTNeoXForCausalLM", "FalconForCausalLM", "Qwen3MoeForCausalLM",
    "T5ForConditionalGeneration", "BertForTokenClassification", "DebertaV2Model", "ViTModel",
    "Wav2Vec2ForCTC", "UNet2DConditionModel", "SD3Transformer2DModel",
)  # fmt: skip


def everything() -> list[sweep.Architecture]:
    return [*sweep.architectures(), *sweep.backbones()]


@pytest.mark.filterwarnings("ignore")  # what they warn of at construction is not ours to judge
@pytest.mark.parametrize("name", FEW)
def test_common_architectures_break_nothing(name: str) -> None:
    (found,) = [one for one in everything() if one.class_name == name]
    verdict = sweep.judge(found)
    assert (verdict.problem, verdict.broken) == ("", {})
    assert verdict.layers > 0


def test_every_exception_has_a_reason_and_an_invariant() -> None:
    for invariant, pattern, text in EXCEPTIONS:
        assert invariant in sweep.INVARIANTS
        assert re.compile(pattern)
        assert len(text) > 10


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return pages.inspect_all(jobs=2)


@pytest.mark.slow
def test_hundreds_are_built_and_break_nothing_without_a_reason(verdicts: list[Verdict]) -> None:
    built = [one for one in verdicts if not one.problem]
    assert len(built) > 1500
    faults = {
        (one.architecture.class_name, name): text
        for one in built
        for name, text in one.broken.items()
        if pages.reason(one, name) is None
    }
    assert not faults


@pytest.mark.slow
def test_no_exception_is_left_that_nothing_needs(verdicts: list[Verdict]) -> None:
    assert not pages.unneeded(verdicts)


@pytest.mark.slow
def test_the_committed_page_has_these_figures(verdicts: list[Verdict]) -> None:
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page(verdicts)
