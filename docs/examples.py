"""Runs the examples of README and docs, and writes what they print back into the pages.

Three kinds of blocks are run, from top to bottom:

- a `python` block; all of a page share one namespace. A `text` block right below it is what it
  prints;
- a `console` block: lines that start with `$ peft-shop` are commands, the others what they print;
- the last line of a `sh` block, where a `text` block right below shows its output.

A line `...` in an output stands for any lines. Every page runs in a folder of its own with a copy
of the repository's sources, so that examples may write files.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 80
"""Columns of the terminal on which commands are shown."""
COPIED = ("catalog", "data", "docs", "peft_shop", "README.md")
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: first word behind the fence.
        tag: the words after it.
        text: its lines.
        start: offset of `text` in the page.
        line: line number of `text` in the page, from 1.
    """

    language: str
    tag: str
    text: str
    start: int
    line: int


@dataclass(frozen=True)
class Example:
    """Something that runs.

    Attributes:
        page: the page's path inside the repository.
        line: where it stands.
        code: Python code, or a command line.
        shown: what the page says it prints; `None` where it says nothing.
        start: offset of `shown` in the page.
        end: offset behind it.
    """

    page: str
    line: int
    kind: str
    code: str
    shown: str | None
    start: int
    end: int


@dataclass(frozen=True)
class Outcome:
    """What an example printed."""

    example: Example
    printed: str

    @property
    def fits(self) -> bool:
        """Whether the page shows what was printed."""
        return self.example.shown is None or matches(self.example.shown, self.printed)


def pages() -> list[Path]:
    """README and every page of docs, the generated reference included."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """Fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        language, _, tag = match[1].strip().partition(" ")
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(language, tag.strip(), match[2], match.start(2), line))
    return found


def examples(text: str, page: str) -> list[Example]:
    """Everything that runs on a page, in order; blocks tagged `notest` are left out."""
    found: list[Example] = []
    listed = blocks(text)
    for block, after in zip_longest(listed, listed[1:]):
        if block.tag.startswith("notest"):
            continue
        shown = after if after is not None and _is_output(text, block, after) else None
        if block.language == "console":
            found += _commands(block, page)
            continue
        code = block.text
        if block.language == "sh" and shown is not None:
            # the lines before it set up an environment, which is there already
            code = code.strip().rsplit("\n", 1)[-1].replace(".venv/bin/", "")
        elif block.language != "python":
            continue
        start = shown.start if shown else 0
        found.append(
            Example(
                page,
                block.line,
                "python" if block.language == "python" else "command",
                code,
                shown.text if shown else None,
                start,
                start + len(shown.text) if shown else 0,
            )
        )
    return found


def _is_output(text: str, block: Block, after: Block) -> bool:
    between = text[block.start + len(block.text) : after.start]
    return after.language == "text" and re.fullmatch(r"```\s*```text[^\n]*\n", between) is not None


def _commands(block: Block, page: str) -> Iterator[Example]:
    offset, line = block.start, block.line
    command, started, output, output_start = "", 0, "", 0

    def example() -> Example:
        code = re.sub(r"\\\n\s*", "", command).strip()
        return Example(
            page, started, "command", code, output, output_start, output_start + len(output)
        )

    for text in block.text.splitlines(keepends=True):
        if text.startswith("$ "):
            if command:
                yield example()
            command, started, output, output_start = text[2:], line, "", offset + len(text)
        elif command.endswith("\\\n") and not output:
            command, output_start = command + text, offset + len(text)
        else:
            output += text
        offset += len(text)
        line += 1
    if command:
        yield example()


def matches(shown: str, printed: str) -> bool:
    """Whether `shown`, with `...` lines for any lines, is what was `printed`."""
    wanted = [line.rstrip() for line in shown.strip("\n").split("\n")]
    pattern = "".join(r"(?:.*\n)*?" if w == "..." else re.escape(w) + r"\n" for w in wanted)
    got = "\n".join(line.rstrip() for line in printed.strip("\n").split("\n")) + "\n"
    return re.fullmatch(pattern, got) is not None


def refreshed(shown: str, printed: str) -> str:
    """`printed` with lines left out as in `shown`: as many stay before and after the `...`."""
    new = [line.rstrip() for line in printed.strip("\n").split("\n")]
    old = shown.strip("\n").split("\n")
    if "..." in old:
        head = old.index("...")
        tail = len(old) - 1 - (len(old) - 1 - old[::-1].index("..."))
        if head + tail < len(new):
            new = [*new[:head], "...", *new[len(new) - tail :]]
    return "\n".join(new) + "\n"


def run_page(page: Path, folder: Path) -> list[Outcome]:
    """Runs every example of `page` in `folder`, which must be empty."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.is_file():
            shutil.copy(source, folder / name)
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    namespace: dict[str, Any] = {"__name__": "__page__"}
    with chdir(folder):
        return [
            Outcome(
                example,
                run_python(example, namespace)
                if example.kind == "python"
                else run_command(example.code)[1],
            )
            for example in examples(text, name)
        ]


def run_python(example: Example, namespace: dict[str, Any]) -> str:
    """What a block prints; it fails with the page's own line numbers."""
    code = compile("\n" * (example.line - 1) + example.code, example.page, "exec")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, namespace)  # noqa: S102 - the project's own examples
    return printed.getvalue()


def run_command(command: str) -> tuple[int, str]:
    """Exit code of a `peft-shop` command run in this process, and all that it prints."""
    from peft_shop.__main__ import main  # noqa: PLC0415 - the pages alone need no CLI

    words = shlex.split(command)
    if words[:1] != ["peft-shop"]:
        raise ValueError(f"only `peft-shop` runs in examples: {command!r}")
    if words[1:3] == ["catalog", "compile"] and not {"-o", "--output", "--check"} & set(words):
        raise ValueError(f"this would write into the package: {command!r}")
    printed = io.StringIO()
    code: object = 0
    with (
        patch.object(sys, "argv", words),
        patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
    return (code if isinstance(code, int) else 0 if code is None else 1), printed.getvalue()


def refresh(page: Path, folder: Path) -> bool:
    """Writes what the examples of `page` print into it; whether anything changed."""
    outcomes = run_page(page, folder)
    text = page.read_text(encoding="utf-8")
    new = text
    for outcome in reversed(outcomes):
        example = outcome.example
        if example.shown is None or outcome.fits:
            continue
        output = refreshed(example.shown, outcome.printed)
        new = new[: example.start] + output + new[example.end :]
    if new == text:
        return False
    page.write_text(new, encoding="utf-8")
    return True
