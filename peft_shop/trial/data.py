"""Files of examples -> rows of prompt and completion, divided so that nothing is tested that was
trained on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import CatalogError, InputError, MissingExtraError, Problem
from peft_shop.files import compact_json, parse_json, read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from peft_shop.trial.records import Asked

__all__ = ["Divided", "Example", "divide", "read_examples", "written"]

_LARGEST: Final = 2**31
"""Bytes of a file of examples; larger ones can be given as a folder of `datasets`."""
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
_MOST_PROBLEMS: Final = 20
_TENTH: Final = 10

Example = tuple[str, str]
"""Prompt, which may be empty, and completion."""


@dataclass(slots=True)
class Divided:
    """The data of a trial.

    Attributes:
        train, valid, test: examples.
        general: text for forgetting; `None` where there is none.
        chat: whether the texts bring the special tokens of a chat template.
        notes: what happened to the data, for people.
    """

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    general: list[Example] | None = None
    chat: bool = False
    notes: list[str] = field(default_factory=list)


def read_examples(path: str, tokenizer: Any) -> tuple[list[Example], bool]:
    """Examples of a file, and whether they bring the special tokens of a chat template.

    Args:
        path: `.jsonl`, `.json` (a list), `.csv`, `.tsv`, `.txt` (paragraphs, or lines where no
            empty line stands between them), `.parquet`, or a folder that `datasets` saved.
        tokenizer: of the model; its chat template writes conversations, and a completion ends with
            its end-of-text token.

    Raises:
        CatalogError: rows that are no examples; lists the first of them.
        InputError: no such file, or of a kind that is not read.
        MissingExtraError: the kind needs `datasets`, which is not installed.
    """
    rows = _rows(Path(path))
    if not rows:
        raise InputError(f"{path}: no example in it; {_ROWS_HINT}")
    examples: list[Example] = []
    problems: list[Problem] = []
    kinds: set[bool] = set()
    for number, row in rows:
        try:
            chat, example = _example(row, tokenizer)
        except ValueError as error:
            problems.append(Problem(path, f"row {number}", str(error), _ROWS_HINT))
            if len(problems) >= _MOST_PROBLEMS:
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
    whole, chat = read_examples(asked.train, tokenizer)
    notes: list[str] = []
    given: dict[str, list[Example] | None] = {"valid": None, "test": None, "general": None}
    for name in given:
        path = getattr(asked, name)
        if path is not None:
            examples, theirs = read_examples(path, tokenizer)
            if theirs != chat and name != "general":
                raise InputError(f"{path}: rows of another kind than those of {asked.train}")
            given[name] = list(dict.fromkeys(examples))
    unique = list(dict.fromkeys(whole))
    if len(unique) < len(whole):
        notes.append(f"{len(whole) - len(unique)} repeated examples of {asked.train} are left out")
    held = {example for name in ("valid", "test") for example in given[name] or ()}
    train = [example for example in unique if example not in held]
    if len(train) < len(unique):
        notes.append(
            f"{len(unique) - len(train)} examples of {asked.train} are in the held-out files too "
            "and are not trained on"
        )
    valid, test = given["valid"], given["test"]
    if test is not None and valid is not None:
        shared = set(test) & set(valid)
        valid = [example for example in valid if example not in shared]
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
        notes=notes,
    )
    for name in ("train", "valid", "test"):
        if not getattr(divided, name):
            raise InputError(
                f"no example is left for {name}: {len(unique)} different ones in {asked.train}; "
                "give more, or a file of its own"
            )
    return divided


def _share(example: Example) -> int:
    """Which tenth an example belongs to: by its content, so that order and copies do not count."""
    return int(_digest(example)[:8], 16) % _TENTH


def _digest(example: Example) -> str:
    return hashlib.sha256(compact_json(list(example)).encode()).hexdigest()


def _fewest(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples, chosen by their content."""
    return sorted(examples, key=_digest)[:most]


def _rows(path: Path) -> list[tuple[int, Any]]:
    """Rows with their numbers, from 1 on.

    Raises:
        CatalogError: the file breaks its format.
        InputError: it cannot be read.
    """
    readers: dict[str, Callable[[str, Path], Iterable[tuple[int, Any]]]] = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".txt": _text,
    }
    if path.is_dir() or path.suffix == ".parquet":
        return _by_datasets(path)
    read = readers.get(path.suffix.lower())
    if read is None:
        known = ", ".join([*readers, ".parquet"])
        raise InputError(
            f"{path}: examples are read from {known} and from folders that `datasets` saved"
        )
    try:
        content = read_bounded(path, _LARGEST, "a file of examples").decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from error
    return list(read(content, path))


def _jsonl(content: str, path: Path) -> Iterable[tuple[int, Any]]:
    rows, problems = [], []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, parse_json(line)))
        except ValueError as error:
            problems.append(Problem(str(path), f"row {number}", f"not JSON: {error}"))
    if problems:
        raise CatalogError("cannot read the examples", problems[:_MOST_PROBLEMS])
    return rows


def _json(content: str, path: Path) -> Iterable[tuple[int, Any]]:
    try:
        rows = parse_json(content)
    except ValueError as error:
        problem = Problem(str(path), "", f"not JSON: {error}", "one object a line is called .jsonl")
        raise CatalogError("cannot read the examples", [problem]) from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of rows; {_ROWS_HINT}")
    return enumerate(rows, start=1)


def _csv(content: str, path: Path) -> Iterable[tuple[int, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    return enumerate(csv.DictReader(io.StringIO(content), delimiter=delimiter), start=1)


def _text(content: str, _: Path) -> Iterable[tuple[int, Any]]:
    pieces = [piece.strip() for piece in content.replace("\r\n", "\n").split("\n\n")]
    if len([piece for piece in pieces if piece]) <= 1:
        pieces = content.splitlines()
    texts = [piece for piece in pieces if piece.strip()]
    return enumerate(({"text": text} for text in texts), start=1)


def _by_datasets(path: Path) -> list[tuple[int, Any]]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    try:
        import datasets  # noqa: PLC0415 - only for what it alone reads
    except ImportError as error:
        raise MissingExtraError("datasets", "trial", f"reading {path}") from error
    try:
        if path.is_dir():
            rows = datasets.load_from_disk(str(path))
        else:
            rows = datasets.Dataset.from_parquet(str(path))
        return list(enumerate(rows, start=1))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _example(row: Any, tokenizer: Any) -> tuple[bool, Example]:
    """Whether a row is a conversation, and its prompt and completion.

    Raises:
        ValueError: it is no example; says why.
    """
    if not isinstance(row, dict):
        raise ValueError(f"expected columns, got {type(row).__name__}")  # noqa: TRY004 - a row
    if isinstance(row.get("messages"), list):
        return True, ("", _written(row["messages"], tokenizer))
    for prompt, completion in _PAIRS:
        if row.get(prompt) is None or row.get(completion) is None:
            continue
        if isinstance(row[prompt], list) and isinstance(row[completion], list):
            opening = _written(row[prompt], tokenizer, opened=True)
            whole = _written([*row[prompt], *row[completion]], tokenizer)
            if not whole.startswith(opening):
                raise ValueError("the chat template writes the prompt otherwise with its answer")
            return True, (opening, whole.removeprefix(opening))
        asked = _string(row, prompt)
        if prompt == "instruction" and row.get("input"):
            asked = f"{asked}\n{_string(row, 'input')}"
        return False, (asked, _ended(_string(row, completion), tokenizer))
    if "text" in row:
        return False, ("", _ended(_string(row, "text"), tokenizer))
    raise ValueError(f"columns {', '.join(map(repr, sorted(map(str, row)))) or 'none'}")


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
    lines = (
        json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False)
        for prompt, completion in examples
    )
    return "".join(f"{line}\n" for line in lines).encode()
