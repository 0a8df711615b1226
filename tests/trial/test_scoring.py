"""Scores of answers, choices and classes are what they say, and foreign code does not run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.errors import CatalogError, InputError
from peft_shop.trial.asking import write_asked
from peft_shop.trial.data import divide
from peft_shop.trial.preparing import Prepared
from peft_shop.trial.records import Asked, Code
from peft_shop.trial.scoring import Judge, own_function
from peft_shop.trial.trust import demand_trust, source_of_score, trust

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

HALF = "def half(prompt, answer, reference):\n    return len(answer) / len(reference)\n"
ORDER: dict[str, Any] = {
    "kind": "exact_match",
    "max_new_tokens": 4,
    "stop": [],
    "max_length": 8,
    "chat": False,
    "choices": [],
    "labels": [],
}


class Words:
    """A tokenizer of words: 0 is the end, 1 is padding."""

    eos_token_id, pad_token_id, unk_token_id = 0, 1, None
    all_special_ids = (0, 1)

    def __init__(self) -> None:
        self.words = ["</s>", "<pad>"]

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        del add_special_tokens
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return {"input_ids": [self.words.index(word) for word in text.split()]}

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        kept = (each for each in ids if not skip_special_tokens or each not in self.all_special_ids)
        return " ".join(self.words[each] for each in kept)


class Echo:
    """A model that goes on with its last two words, for ever or up to an end."""

    generation_config = "its own"

    def __init__(self, ends: bool) -> None:
        self.ends, self.seen = ends, {}

    def generate(self, **asked: Any) -> Any:
        import torch

        self.seen = asked
        assert self.generation_config is asked["generation_config"]
        ids = asked["input_ids"]
        tail = torch.cat([ids[:, -2:], ids[:, -2:] * 0 if self.ends else ids[:, -2:]], dim=1)
        return torch.cat([ids, tail], dim=1)


def judge(model: Any = None, losses: Any = None, **order: Any) -> Judge:
    return Judge(
        order={**ORDER, **order},
        model=model,
        tokenizer=Words(),
        device="cpu",
        encode=lambda rows: rows,
        losses=losses,
    )


ROWS = [
    {"prompt": "x a b", "completion": "a b </s>"},
    {"prompt": "a b", "completion": "b a </s>"},
]


def test_an_answer_counts_up_to_its_end_and_is_generated_greedily() -> None:
    model = Echo(ends=True)
    assert judge(model).scores(ROWS, 2) == [1.0, 0.0]
    settings = model.seen["generation_config"]
    assert (settings.do_sample, settings.num_beams, settings.max_new_tokens) == (False, 1, 4)
    assert settings.eos_token_id == [0]
    assert model.generation_config == "its own", "it is put back"
    # padding stands on the left, so that answers follow their prompts
    assert model.seen["input_ids"][1, 0] == Words.pad_token_id
    assert model.seen["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]


def test_an_answer_that_goes_on_is_cut_at_a_stop_string() -> None:
    assert judge(Echo(ends=False)).scores(ROWS[:1], 1) == [0.0]
    assert judge(Echo(ends=False), stop=[" a b"]).scores(ROWS[:1], 1) == [1.0]


def test_a_choice_is_right_where_it_is_likelier_than_every_other() -> None:
    sums = {"a": 2.0, "b": 1.0, "c": 1.5}

    def losses(rows: list[dict[str, Any]]) -> list[tuple[float, int]]:
        return [(sums[row["completion"]], 1) for row in rows]

    rows = [
        {"prompt": "q", "completion": "b"},
        {"prompt": "q", "completion": "c"},
        {"prompt": "q", "completion": "c", "choices": ["a", "c"]},
    ]
    found = judge(losses=losses, kind="choice", choices=["a", "b", "c"])
    assert found.scores(rows, 2) == [0.0 + (name == "b") for name in "bc"] + [1.0]
    sums["c"] = 1.0
    assert found.scores(rows[:1], 2) == [0.0], "as likely as another one is not right"


def own(folder: Path, source: str = HALF, **more: Any) -> dict[str, Any]:
    file = folder / "score.py"
    file.write_text(source, encoding="utf-8")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"kind": "own", "file": str(file), "sha256": digest, "function": "half", **more}


def test_a_function_of_ones_own_scores(tmp_path: Path) -> None:
    assert judge(Echo(ends=True), **own(tmp_path)).scores(ROWS, 1) == [1.0, 1.0]
    words = own(tmp_path, "def half(prompt, answer, reference):\n    return 'many'\n")
    with pytest.raises(InputError, match="half gave 'many', which is no number"):
        judge(Echo(ends=True), **words).scores(ROWS, 1)


def test_what_was_frozen_is_what_runs(tmp_path: Path) -> None:
    order = own(tmp_path)
    with pytest.raises(InputError, match="changed since the trial began"):
        own_function({**order, "sha256": "0" * 64})
    ran = tmp_path / "ran"
    Path(order["file"]).write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(InputError, match="changed since the trial began"):
        own_function(order)
    assert not ran.exists()


def test_code_from_elsewhere_has_to_be_allowed(
    tmp_path: Path, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    digest = hashlib.sha256(HALF.encode()).hexdigest()
    code = Code(file="data/score.py", sha256=digest, function="half")
    protocol = made.protocol().model_copy(update={"code": code})
    with pytest.raises(InputError, match=rf"half of .*score.py, sha256 {digest}.*--allow-code"):
        demand_trust(tmp_path, protocol)
    demand_trust(tmp_path, protocol, allow_code=True)
    with pytest.raises(InputError, match="--allow-code"):
        demand_trust(tmp_path, protocol)
    trust(HALF.encode())
    demand_trust(tmp_path, protocol)


def test_a_calibration_runs_no_code_that_was_not_allowed(
    tmp_path: Path,
    made: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    source = tmp_path / "half.py"
    digest = hashlib.sha256(HALF.encode()).hexdigest()
    code = Code(file="data/score.py", sha256=digest, function="half")
    protocol = made.protocol()
    asked = protocol.asked.model_copy(update={"score": f"{source}:half"})
    protocol = protocol.model_copy(update={"code": code, "asked": asked})
    folder = tmp_path / "t"
    folder.mkdir()
    write_asked(folder, asked)
    prepared = Prepared(protocol, {"data/score.py": HALF.encode()})
    monkeypatch.setattr("peft_shop.trial.trial.prepare", lambda *_: prepared)
    calibrated: list[object] = []
    monkeypatch.setattr("peft_shop.trial.trial.calibrate", lambda *each: calibrated.append(each))
    ended, _, told = run("trial", "plan", str(folder), "--calibrate")
    assert ended == 2
    # nothing is frozen, so what is to be read is where it was named
    told = "".join(told.split())
    assert f"halfof{source},sha256{digest}" in told
    assert "--allow-code" in told
    assert not calibrated
    ended, _, _ = run("trial", "plan", str(folder), "--calibrate", "--allow-code")
    assert ended == 0
    assert calibrated == [(folder, protocol, prepared.files)]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def other(a, b, c): ...\n", "no function half; there are: other"),
        ("def half(\n", "not Python"),
    ],
)
def test_a_score_file_is_looked_at_and_not_run(tmp_path: Path, source: str, says: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{source}", encoding="utf-8")
    with pytest.raises(InputError, match=says):
        source_of_score(f"{file}:half")
    assert not (tmp_path / "ran").exists()


# --- rows with classes ---


def classes(tmp_path: Path, rows: list[dict[str, Any]], **more: Any) -> Asked:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Asked(model="/m", train=str(path), task="seq_cls", **more)


def test_texts_with_classes_are_divided_by_the_text(tmp_path: Path) -> None:
    rows = [{"text": f"t{n % 100}", "label": n % 3, "text_pair": "p"} for n in range(300)]
    divided = divide(classes(tmp_path, rows), None)
    assert divided.labels == ("0", "1", "2")
    parts = [{each.content for each in part} for part in (divided.train, divided.test)]
    assert not parts[0] & parts[1], "the same text with another label is the same text"
    assert divided.train[0].row["text_pair"] == "p"
    assert set(divided.train[0].row) == {"text", "text_pair", "label"}


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 11} for n in range(300)]
    assert divide(classes(tmp_path, rows), None).labels == tuple(map(str, range(11)))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "a", "label": 0.5}], "'label' is neither text nor a whole number"),
        ([{"text": "a"}], "row 1"),
        ([{"text": f"t{n}", "label": 1} for n in range(60)], "two different labels"),
        (
            [
                {"text": f"t{n}", "label": n % 2, **({"text_pair": "p"} if n % 3 else {})}
                for n in range(60)
            ],
            "some rows have a `text_pair` and some have none",
        ),
    ],
)
def test_what_is_no_classification_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises((CatalogError, InputError), match=says):
        divide(classes(tmp_path, rows), None)


def test_a_class_that_nothing_trains_is_named(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(60)]
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"text": "b", "label": "rare"}), encoding="utf-8")
    with pytest.raises(InputError, match="no example to train on has the label 'rare'"):
        divide(classes(tmp_path, rows, test=str(test)), None)


@pytest.mark.parametrize(
    "stated",
    [
        {"task": "seq_cls", "score": "exact_match"},
        {"task": "causal_lm", "score": "accuracy"},
        {"score": "file.txt:f"},
        {"score": "file.py:not a name"},
        {"task": "seq_cls", "general": "/g"},
    ],
)
def test_scores_belong_to_tasks(stated: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"score|general"):
        Asked(model="/m", train="/t", **stated)


@pytest.mark.parametrize(
    ("score", "metric"),
    [("exact_match", "exact_match"), ("choice", "choice_accuracy"), ("f.py:Half", "score_half")],
)
def test_bounds_hold_for_scores_of_ones_own(
    made: SimpleNamespace, tmp_path: Path, score: str, metric: str, run: Callable[..., Any]
) -> None:
    from peft_shop import recommend
    from peft_shop.catalog.export import dump
    from peft_shop.trial.evidence import catalog_of

    file = tmp_path / "mine.json"
    protocol = made.protocol()
    asked = protocol.asked.model_copy(update={"score": score})
    own = Code(file="data/score.py", sha256="0" * 64, function="Half") if ":" in score else None
    protocol = protocol.model_copy(update={"asked": asked, "code": own})
    marks = {"lora/a": (1.0, 0.0, 1.0, 1.0), "miss/b": (1.0, 0.0, 0.0, 0.0)}
    results = made.carried_out(protocol, lambda job: 9.0 - len(job.contestant))
    for name, result in results.items():
        items = marks.get(result.job.contestant, (0.0,) * 4)
        scored = {"score": sum(items) / 4, "score_items": items}
        measured = result.measured.model_copy(update=scored)
        results[name] = result.model_copy(update={"measured": measured})
    catalog = catalog_of(protocol, results)
    assert catalog.benchmarks[0].headline == metric
    assert any(pair.metric == metric and pair.sd > 0 for pair in catalog.pairings)
    answer = recommend(catalog=catalog, peft_version="any", **{f"min_{metric}": 0.5})
    assert answer.best.method == "lora"
    assert {each.method for each in (*answer.front, *answer.ties)} == {"lora"}
    file.write_bytes(dump(catalog))
    assert run("recommend", "--catalog", str(file), "--min", f"{metric}=0.5")[0] == 0
