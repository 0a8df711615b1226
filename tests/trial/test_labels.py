"""What a trial's script predicts of a row is what TRL's trainer does."""

from __future__ import annotations

import importlib.util
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog.runs import Training
from peft_shop.scripts.data import CHAT, TRAIN_FILE, reading_of
from peft_shop.trial.data import divide, read_examples, written
from peft_shop.trial.records import Asked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LETTERS = "abcde  \n"
LONGEST = 48


def text(draw: random.Random) -> str:
    return "a" + "".join(draw.choices(LETTERS, k=draw.randrange(1, 40)))


def turns(draw: random.Random, number: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text(draw)} for place in range(number)]


def plain(draw: random.Random) -> dict[str, Any]:
    return {"prompt": text(draw), "completion": text(draw)}


def conversation(draw: random.Random) -> dict[str, Any]:
    return {"messages": turns(draw, draw.randrange(2, 6))}


def opened(draw: random.Random) -> dict[str, Any]:
    messages = turns(draw, 2 * draw.randrange(1, 3))
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def continued(draw: random.Random) -> dict[str, Any]:
    return {"text": text(draw)}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer of pairs of letters, so that tokens reach across boundaries."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    marks = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}
    made = Tokenizer(models.BPE(unk_token=marks["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    special = ["<unk>", "</s>", "<|user|>", "<|assistant|>"]
    made.train_from_iterator(
        [text(random.Random(seed)) for seed in range(300)],
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **marks)
    found.chat_template = TEMPLATE
    return found


def ours(path: Path, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of every row by the functions that a script has."""
    examples, chat = read_examples(str(path), tokenizer)
    options = {TRAIN_FILE: "rows.jsonl", **({CHAT: True} if chat else {})}
    training = Training(
        model_id="m",
        optimizer="AdamW",
        learning_rate=1.0,
        max_steps=1,
        batch_size=1,
        max_length=LONGEST,
        dtype="float32",
        options=options,
    )
    reading = reading_of(training, "")
    names: dict[str, Any] = {"tokenizer": tokenizer, "MAX_LENGTH": LONGEST}
    imports = "\n".join(f"import {module}" for module in reading.plain_imports)
    exec(f"{imports}\n{reading.encoding}", names)  # noqa: S102 - source that scripts have
    rows = [json.loads(line) for line in written(examples).decode().split("\n")[:-1]]
    return [names["ids_and_labels"](row) for row in rows]


def theirs(path: Path, tokenizer: Any, folder: Path) -> list[tuple[list[int], list[int]]]:
    """The same as TRL's trainer has them."""
    import datasets
    import transformers
    import trl

    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    settings = trl.SFTConfig(
        output_dir=str(folder), max_length=LONGEST, report_to=[], use_cpu=True, bf16=False
    )
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    trainer = trl.SFTTrainer(
        model=model,
        args=settings,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


@pytest.mark.parametrize("make", [plain, conversation, opened, continued])
@pytest.mark.filterwarnings("default")
def test_labels_are_those_of_trl(
    make: Callable[[random.Random], dict[str, Any]], tokenizer: Any, tmp_path: Path
) -> None:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("TRL is not installed: pip install 'trl==1.16.0' 'datasets>=4.7'")
    draw = random.Random(make.__name__)
    path = tmp_path / "rows.jsonl"
    rows = [make(draw) for _ in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mine = ours(path, tokenizer)
    # TRL leaves out rows of which nothing is left to predict
    predicted = [row for row in mine if any(label != -100 for label in row[1])]
    assert len(predicted) > 150
    assert predicted == theirs(path, tokenizer, tmp_path / "out")
    if make is plain:
        alone = [tokenizer(row["prompt"])["input_ids"] for row in rows]
        merged = [ids[: len(given)] != given for (ids, _), given in zip(mine, alone, strict=True)]
        assert any(merged), "tokens that reach across the boundary are among them"


@pytest.mark.parametrize("make", [plain, conversation])
def test_no_test_row_is_trained_on(
    make: Callable[[random.Random], dict[str, Any]], tokenizer: Any, tmp_path: Path
) -> None:
    draw = random.Random(make.__name__)
    rows = [make(draw) for _ in range(150)]
    path = tmp_path / "rows.jsonl"
    repeated = [*rows, *rows[:50]]
    path.write_text("".join(json.dumps(row) + "\n" for row in repeated), encoding="utf-8")
    divided = divide(Asked(model="/m", train=str(path)), tokenizer)
    train = {(each.prompt, each.completion) for each in divided.train}
    for part in (divided.valid, divided.test):
        assert part
        assert not train & {(each.prompt, each.completion) for each in part}
    assert any(note.startswith("50 repeated examples") for note in divided.notes)
