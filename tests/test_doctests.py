"""Every example in a docstring says what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import peft_shop

MODULES = [
    module.name
    for module in pkgutil.walk_packages(peft_shop.__path__, "peft_shop.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["peft_shop", *MODULES])
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    outcome = doctest.testmod(module)
    assert outcome.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        test
        for name in ["peft_shop", *MODULES]
        for test in finder.find(importlib.import_module(name))
        if test.examples
    ]
    assert len(examples) > 10
