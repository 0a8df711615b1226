"""Files of examples -> rows of prompt and completion, or of text and class, divided so that nothing
is tested that was trained on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from peft_shop.errors import CatalogError, InputError, Problem
from peft_shop.records import compact_json
from peft_shop.trial.rows import MOST_PROBLEMS, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.trial.records import Asked, Task

__all__ = ["Divided", "Example", "divide", "read_examples", "written"]

_PAIRS: Final = (
    ("prompt", "completion"),
    ("question", "answer"),
    ("query", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
)
"""Columns that people call a prompt and its completion."""
_ROWS_HINT: Final = (
    "a row has `text`, or `prompt` and `completion` (also question/answer, query/response, "
    "instruction/output), or `messages`"
)
_CLASS_HINT: Final = "a row has `text` and `label`, and perhaps `text_pair`"
_TENTH: Final = 10


class Example(NamedTuple):
    """One row.

    Attributes:
        prompt: may be empty; the text that has a class.
        completion: what is predicted; the class.
        choices: completions that a choice is between; empty where the row has none of its own.
        pair: second text of a classification; `None` without one.
        classified: whether the completion is a class.
    """

    prompt: str
    completion: str
    choices: tuple[str, ...] = ()
    pair: str | None = None
    classified: bool = False

    @property
    def content(self) -> tuple[str, ...]:
        """What makes two rows the same: the class of a text does not count."""
        if self.classified:
            return (self.prompt, *(() if self.pair is None else (self.pair,)))
        return (self.prompt, self.completion)

    @property
    def row(self) -> dict[str, Any]:
        """As scripts read it."""
        if not self.classified:
            choices = {"choices": list(self.choices)} if self.choices else {}
            return {"prompt": self.prompt, "completion": self.completion, **choices}
        pair = {} if self.pair is None else {"text_pair": self.pair}
        return {"text": self.prompt, **pair, "label": self.completion}


@dataclass(slots=True)
class Divided:
    """The data of a trial.

    Attributes:
        train, valid, test: examples.
        general: text for forgetting; `None` where there is none.
        chat: whether the texts bring the special tokens of a chat template.
        labels: classes, in order; empty where there are none.
        notes: what happened to the data, for people.
    """

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    general: list[Example] | None = None
    chat: bool = False
    labels: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def read_examples(
    path: str, tokenizer: Any, task: Task = "causal_lm"
) -> tuple[list[Example], bool]:
    """Examples of a file, and whether they bring the special tokens of a chat template.

    Args:
        path: `.jsonl`, `.json` (a list), `.csv`, `.tsv`, `.txt` (paragraphs, or lines where no
            empty line stands between them), `.parquet`, or a folder that `datasets` saved.
        tokenizer: of the model; its chat template writes conversations, and a completion ends with
            its end-of-text token.
        task: what rows are read for.

    Raises:
        CatalogError: rows that are no examples; lists the first of them.
        InputError: no such file, or of a kind that is not read.
        MissingExtraError: the kind needs `datasets`, which is not installed.
    """
    rows = rows_of(Path(path))
    hint = _ROWS_HINT if task == "causal_lm" else _CLASS_HINT
    if not rows:
        raise InputError(f"{path}: no example in it; {hint}")
    examples: list[Example] = []
    problems: list[Problem] = []
    kinds: set[bool] = set()
    for number, row in rows:
        try:
            if task == "seq_cls":
                chat, example = False, _classified(row)
            else:
                chat, example = _example(row, tokenizer)
        except ValueError as error:
            problems.append(Problem(path, f"row {number}", str(error), hint))
            if len(problems) >= MOST_PROBLEMS:
                break
        else:
            kinds.add(chat)
            examples.append(example)
    if len(kinds) > 1:
        problems.append(Problem(path, "", "some rows are conversations and some are not"))
    if problems:
        raise CatalogError("cannot read the examples", problems)
    return examples, kinds.pop()


def divide(asked: Asked, tokenizer: Any) -> Divided:
    """The data of a trial, divided by the content of the examples.

    Raises:
        CatalogError: rows that are no examples.
        InputError: a part has no example.
    """
    whole, chat = read_examples(asked.train, tokenizer, asked.task)
    notes: list[str] = []
    given = _held_out(asked, tokenizer, chat=chat)
    unique = list(dict.fromkeys(whole))
    if len(unique) < len(whole):
        notes.append(f"{len(whole) - len(unique)} repeated examples of {asked.train} are left out")
    held = {example.content for name in ("valid", "test") for example in given[name] or ()}
    train = [example for example in unique if example.content not in held]
    if len(train) < len(unique):
        notes.append(
            f"{len(unique) - len(train)} examples of {asked.train} are in the held-out files too "
            "and are not trained on"
        )
    valid, test = given["valid"], given["test"]
    if test is not None and valid is not None:
        shared = {example.content for example in test}
        kept = [example for example in valid if example.content not in shared]
        if len(kept) < len(valid):
            notes.append(
                f"{len(valid) - len(kept)} examples of {asked.valid} are in {asked.test} too and "
                "are only tested on"
            )
        valid = kept
    tenths: dict[int, list[Example]] = {}
    for example in train:
        tenths.setdefault(_share(example), []).append(example)
    if test is None:
        test = tenths.pop(0, [])
    if valid is None:
        valid = tenths.pop(1, [])
    train = [example for example in train if _share(example) in tenths]
    divided = Divided(
        train=train,
        valid=_fewest(valid, asked.valid_examples),
        test=_fewest(test, asked.test_examples),
        general=given["general"],
        chat=chat,
        labels=_labels([*train, *valid, *test], train, asked) if asked.task == "seq_cls" else (),
        notes=notes,
    )
    for name in ("train", "valid", "test"):
        if not getattr(divided, name):
            raise InputError(
                f"no example is left for {name}: {len(unique)} different ones in {asked.train}; "
                "give more, or a file of its own"
            )
    return divided


def _held_out(asked: Asked, tokenizer: Any, *, chat: bool) -> dict[str, list[Example] | None]:
    """Examples of the files besides the one that is trained on; `None` where there is no file.

    Raises:
        InputError: rows of another kind than those that are trained on.
    """
    given: dict[str, list[Example] | None] = {"valid": None, "test": None, "general": None}
    for name in given:
        path = getattr(asked, name)
        if path is not None:
            examples, theirs = read_examples(path, tokenizer, asked.task)
            if theirs != chat and name != "general":
                raise InputError(f"{path}: rows of another kind than those of {asked.train}")
            given[name] = list(dict.fromkeys(examples))
    return given


def _labels(everyone: Sequence[Example], train: Sequence[Example], asked: Asked) -> tuple[str, ...]:
    """Classes in order, numbers as numbers.

    Raises:
        InputError: there is one only, or one that nothing trains; or not all texts have a pair.
    """
    if len({example.pair is None for example in everyone}) > 1:
        raise InputError(f"{asked.train}: some rows have a `text_pair` and some have none")
    trained = {example.completion for example in train}
    unknown = {example.completion for example in everyone} - trained
    if len(trained) < 2:
        raise InputError(f"{asked.train}: a classification needs two different labels or more")
    if unknown:
        listed = ", ".join(map(repr, sorted(unknown)))
        raise InputError(f"{asked.train}: no example to train on has the label {listed}")
    numbers = all(label.lstrip("-").isdecimal() for label in trained)
    return tuple(sorted(trained, key=(lambda label: (int(label), label)) if numbers else None))


def _share(example: Example) -> int:
    """Which tenth an example belongs to: by its content, so that order and copies do not count."""
    return int(_digest(example)[:8], 16) % _TENTH


def _digest(example: Example) -> str:
    return hashlib.sha256(compact_json(list(example.content)).encode()).hexdigest()


def _fewest(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples, chosen by their content."""
    return sorted(examples, key=_digest)[:most]


def _example(row: Any, tokenizer: Any) -> tuple[bool, Example]:
    """Whether a row is a conversation, and its prompt and completion.

    Raises:
        ValueError: it is no example; says why.
    """
    if not isinstance(row, dict):
        raise ValueError(f"expected columns, got {type(row).__name__}")  # noqa: TRY004 - a row
    if isinstance(row.get("messages"), list):
        return True, Example("", _written(row["messages"], tokenizer))
    for prompt, completion in _PAIRS:
        if row.get(prompt) is None or row.get(completion) is None:
            continue
        if isinstance(row[prompt], list) and isinstance(row[completion], list):
            opening = _written(row[prompt], tokenizer, opened=True)
            whole = _written([*row[prompt], *row[completion]], tokenizer)
            if not whole.startswith(opening):
                raise ValueError("the chat template writes the prompt otherwise with its answer")
            return True, Example(opening, whole.removeprefix(opening))
        asked = _string(row, prompt)
        if prompt == "instruction" and row.get("input"):
            asked = f"{asked}\n{_string(row, 'input')}"
        right = _string(row, completion)
        choices = tuple(_ended(choice, tokenizer) for choice in _choices(row, right))
        return False, Example(asked, _ended(right, tokenizer), choices)
    if "text" in row:
        return False, Example("", _ended(_string(row, "text"), tokenizer))
    raise ValueError(f"columns {', '.join(map(repr, sorted(map(str, row)))) or 'none'}")


def _classified(row: Any) -> Example:
    """The text, or the pair of texts, and the class of a row.

    Raises:
        ValueError: it is no example; says why.
    """
    if not isinstance(row, dict):
        raise ValueError(f"expected columns, got {type(row).__name__}")  # noqa: TRY004 - a row
    if "text" not in row or row.get("label") is None:
        raise ValueError(f"columns {', '.join(map(repr, sorted(map(str, row)))) or 'none'}")
    label = row["label"]
    if not isinstance(label, str | int) or not str(label).strip():
        raise ValueError("'label' is neither text nor a whole number")
    pair = _string(row, "text_pair") if row.get("text_pair") is not None else None
    return Example(_string(row, "text"), str(label).strip(), pair=pair, classified=True)


def _choices(row: dict[str, Any], right: str) -> tuple[str, ...]:
    """The completions that a row has to choose from; empty where it names none.

    Raises:
        ValueError: they are no list of texts, or the right one is not among them.
    """
    choices = row.get("choices")
    if choices is None:
        return ()
    if not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
        raise ValueError("'choices' is no list of texts")
    if right not in choices or len(set(choices)) < 2:
        raise ValueError("'choices' needs two different texts or more, the completion among them")
    return tuple(dict.fromkeys(choices))


def _string(row: dict[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is {type(value).__name__}, not text")  # noqa: TRY004 - a row
    if not value.strip():
        raise ValueError(f"{column!r} is empty")
    return value


def _ended(text: str, tokenizer: Any) -> str:
    end = tokenizer.eos_token
    return text if end is None or text.endswith(end) else text + end


def _written(messages: Any, tokenizer: Any, *, opened: bool = False) -> str:
    """A conversation as the model's chat template has it.

    Raises:
        ValueError: there is no template, or it refuses.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("the model's tokenizer has no chat template for conversations")
    for message in messages:
        known = isinstance(message, dict) and isinstance(message.get("role"), str)
        if not known or not isinstance(message.get("content"), str):
            raise ValueError("a message needs a `role` and a `content`, both text")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
    except Exception as error:
        raise ValueError(f"the chat template refuses it: {error}") from error
    return str(text)


def written(examples: Iterable[Example]) -> bytes:
    """Examples as a script reads them: an object a line."""
    lines = (json.dumps(example.row, ensure_ascii=False) for example in examples)
    return "".join(f"{line}\n" for line in lines).encode()
