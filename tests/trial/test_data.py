"""Examples are divided by their content: nothing is tested that was trained on."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.errors import CatalogError, InputError
from peft_shop.trial.data import Example, divide, read_examples, written
from peft_shop.trial.records import Asked

if TYPE_CHECKING:
    from pathlib import Path


class Tokenizer:
    """Enough of a tokenizer to write examples."""

    eos_token = "</s>"  # noqa: S105 - no secret
    chat_template = "yes"

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        text = "".join(f"<{each['role']}>{each['content']}</s>" for each in messages)
        return text + ("<assistant>" if add_generation_prompt else "")


def asked(folder: Path, rows: list[dict[str, Any]], **more: Any) -> Asked:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Asked(model="/m", train=str(path), **more)


@pytest.mark.parametrize("seed", range(5))
def test_parts_share_nothing_whatever_the_order(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = [{"prompt": f"q{draw.randrange(150)}", "completion": "a"} for _ in range(300)]
    divided = divide(asked(tmp_path, rows), Tokenizer())
    parts = [divided.train, divided.valid, divided.test]
    everything = [example for part in parts for example in part]
    assert len(everything) == len(set(everything)) == len({row["prompt"] for row in rows})
    draw.shuffle(rows)
    again = divide(asked(tmp_path, rows), Tokenizer())
    assert sorted(again.train) == sorted(divided.train)
    assert again.valid == divided.valid
    assert again.test == divided.test
    assert any("repeated" in note for note in divided.notes)


def test_held_out_files_are_not_trained_on(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}"} for number in range(100)]
    (tmp_path / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[:30]), encoding="utf-8"
    )
    divided = divide(asked(tmp_path, rows, test=str(tmp_path / "test.jsonl")), Tokenizer())
    assert len(divided.test) == 30
    assert not set(divided.test) & {*divided.train, *divided.valid}
    assert any("30 examples" in note for note in divided.notes)


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"text": "a"}, (False, ("", "a</s>"))),
        ({"text": "a</s>"}, (False, ("", "a</s>"))),
        ({"prompt": "q", "completion": "a"}, (False, ("q", "a</s>"))),
        ({"question": "q", "answer": "a"}, (False, ("q", "a</s>"))),
        (
            {"instruction": "do", "input": "this", "output": "done"},
            (False, ("do\nthis", "done</s>")),
        ),
        ({"instruction": "do", "input": "", "output": "done"}, (False, ("do", "done</s>"))),
        (
            {"messages": [{"role": "user", "content": "q"}]},
            (True, ("", "<user>q</s>")),
        ),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            (True, ("<user>q</s><assistant>", "a</s>")),
        ),
    ],
)
def test_rows_as_people_have_them(
    tmp_path: Path, row: dict[str, Any], example: tuple[bool, tuple[str, str]]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    examples, chat = read_examples(str(tmp_path / "rows.jsonl"), Tokenizer())
    assert (chat, (examples[0].prompt, examples[0].completion)) == example


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "row 2.*'txt'"),
        ("a.jsonl", '{"text": "a"}\nnot json\n', "row 2"),
        ("a.jsonl", '{"text": 3}\n', "row 1.*not text"),
        ("a.jsonl", '{"text": " "}\n', "empty"),
        ("a.jsonl", "[1]\n", "list"),
        ("a.json", '{"text": "a"}', "list of rows"),
        ("a.jsonl", "", "no example"),
        ("a.docx", "x", r"\.jsonl"),
        ("a.csv", "x,y\n1,2\n", "'x'"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}\n', "role.*content"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"messages": [{"role": "user", "content": "q"}]}\n',
            "some rows are conversations",
        ),
    ],
)
def test_what_is_no_example_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises((CatalogError, InputError), match=says):
        read_examples(str(tmp_path / name), Tokenizer())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_rows_are_read_from_regular_files(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe, not a regular file"):
        read_examples(str(tmp_path / name), Tokenizer())


def test_text_files_are_paragraphs_or_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("one\ntwo\n", encoding="utf-8")
    paragraphs, _ = read_examples(str(tmp_path / "a.txt"), Tokenizer())
    lines, _ = read_examples(str(tmp_path / "b.txt"), Tokenizer())
    assert [example.completion for example in paragraphs] == ["one\ntwo</s>", "three</s>"]
    assert [example.completion for example in lines] == ["one</s>", "two</s>"]


def test_what_is_written_is_one_object_a_line() -> None:
    examples = [Example("q\u2028\n", "a\r"), Example("", '"')]
    lines = written(examples).decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [
        {"prompt": each.prompt, "completion": each.completion} for each in examples
    ]
