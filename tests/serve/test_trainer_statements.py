"""What the catalog says of trainers, held to an account that was written down beside it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from peft_shop.catalog.store import load
from peft_shop.serve.recipes import TrainerRecipe
from peft_shop.serve.trainers import accepts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.serve.trainers import Acceptance

CATALOG = load()
ACCOUNT = tomllib.loads(
    (Path(__file__).parent / "trainer_statements.toml").read_text(encoding="utf-8")
)
VARIANTS = {variant.id for variant in CATALOG.method_by_id["lora"].variants}
TRIED_SINCE: Final = {"trl", "transformers"}
"""Tools that this project ran itself after the account: what was read then may be tried now."""
VALUES: Final[dict[str, Any]] = {
    "target_parameters": ["experts.gate_up_proj"],
    "modules_to_save": ["score"],
    "trainable_token_indices": [1],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 4},
}
CONFIGS: Final[dict[str, Any]] = {
    "head": {"target_modules": ["lm_head"]},
    "vocabulary": {"target_modules": ["embed_tokens"]},
    "experts_dropout": {"target_parameters": ["experts.gate_up_proj"], "lora_dropout": 0.1},
}


def recipe(name: str, when: str = "", config: dict[str, Any] | None = None) -> TrainerRecipe:
    """A recipe of a method or variant on a base in float32, with no more than a circumstance."""
    method, variants = ("lora", (name,)) if name in VARIANTS else (name, ())
    return TrainerRecipe(
        name=name,
        method=method,
        variants=variants,
        config=config if config is not None else CONFIGS.get(when, {}),
        quantized=when == "quantized",
        checkpointing=when == "checkpointing",
        half=when == "half",
    )


def fits(letter: str, taken: Acceptance, *, option: bool = False) -> bool:
    """Whether an answer is the one that was noted down."""
    whole = taken.verdict == "accepts"
    match letter.lower():
        case "y":
            return whole and not taken.own
        case "o":
            return whole
        case "s":  # either told, or cured
            return taken.verdict == "partly" or (whole and bool(taken.needs))
        case "n" | "e":
            refused = taken.verdict == ("partly" if option else "no")
            return refused or (whole and bool(taken.needs))
        case ".":
            return taken.verdict == ("partly" if option else "no")
    raise AssertionError(letter)


def cells() -> Iterator[tuple[str, str, str, str]]:
    """Trainer, circumstance, topic and what was noted down."""
    for table in ACCOUNT["tables"]:
        for topic, letters in (table["methods"] | table.get("options", {})).items():
            assert len(letters) == len(table["trainers"]), topic
            for trainer, letter in zip(table["trainers"], letters, strict=True):
                yield trainer, "", topic, letter
    for circumstance in ACCOUNT["circumstances"]:
        for trainer, answers in circumstance.items():
            if trainer != "when":
                for topic, letter in answers.items():
                    yield trainer, circumstance["when"], topic, letter


def test_the_account_is_about_every_trainer() -> None:
    told = [trainer for table in ACCOUNT["tables"] for trainer in table["trainers"]]
    assert sorted(told) == sorted(CATALOG.trainer_by_id)


@pytest.mark.parametrize(("name", "when", "topic", "letter"), list(cells()))
def test_the_catalog_agrees_with_the_account(name: str, when: str, topic: str, letter: str) -> None:
    trainer = CATALOG.trainer_by_id[name]
    if topic == "quantized_base":
        asked = recipe("lora", "quantized")
    elif topic in VALUES:
        asked = recipe("lora", config={topic: VALUES[topic]})
    else:
        asked = recipe(topic, when)
    taken = accepts(CATALOG, asked, trainer)
    assert fits(letter, taken, option=topic in VALUES), (taken.verdict, taken.needs)
    if letter == "o":
        assert taken.own
    # how it is known: nothing that was only read counts as tried
    known = {one.topic: one.value.partition(", ")[2] for one in taken.basis}
    level = known.get(when if when in known else topic)
    if level is None or letter == ".":
        return
    if letter.isupper():
        assert level != "declared"
    elif name not in TRIED_SINCE:
        assert level == "declared"
