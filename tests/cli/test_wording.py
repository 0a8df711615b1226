"""Errors speak of options in a shell, and of arguments in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from peft_shop.ask.keywords import KEYWORDS
from peft_shop.cli.app import app
from peft_shop.cli.wording import in_shell, option_of
from peft_shop.errors import CatalogError, InputError, Keyword

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_keyword_has_its_option() -> None:
    command: Any = get_command(app)
    known = {name for one in command.commands["recommend"].params for name in one.opts}
    for name in KEYWORDS:
        assert option_of(name) in known, name
    assert option_of("max_peak_memory") == "--max peak_memory"
    assert option_of("min_train_time") == "--min train_time"
    assert option_of("weight of x") == "weight of x"


def test_a_keyword_is_spelt_for_the_place() -> None:
    value = Keyword("max_peak_memory", "24 GiB")
    error = InputError("say ", value, " or ", Keyword("model"), keyword="task_types")
    assert str(error) == "task_types: say max_peak_memory='24 GiB' or model="
    assert in_shell(error) == "--task-type: say --max peak_memory='24 GiB' or --model"
    assert in_shell(InputError("{model} \\1 ", Keyword("device", "a b"))) == (
        "{model} \\1 --device 'a b'"
    )
    assert in_shell(CatalogError("broken")) == "broken"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "T4"], "--device: a forecast is about the model that you name: give --model"),
        (["--training", "batch_size=2"], "--training: a forecast is about"),
        (["--adapt", "total_steps=2"], "--adapt: options are about the model"),
        (
            ["--max", "peak_memory=24"],
            "--max peak_memory: 24 has no unit: --max peak_memory=24G",
        ),
        (["--max", "memory=24GB"], "--max memory: unknown metric 'memory'; did you mean"),
        (["--min", "test_accuracy=50"], "--min test_accuracy=50%, or 0.5?"),
        (["--max", "peak_memory=3GiB", "--min", "peak_memory=4GiB"], "--min peak_memory=4GiB is"),
        (["--floor", "x"], "--floor: cannot read 'x'"),
        (["--era", "x"], "unknown era"),
    ],
)
def test_the_command_line_says_options(
    run: Callable[..., tuple[int, str, str]], arguments: list[str], said: str
) -> None:
    code, out, err = run("recommend", *arguments)
    assert (code, out) == (2, "")
    assert said in err
