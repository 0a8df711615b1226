"""Source of what a text script trains on: the benchmark's data set, or a file of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.source import literal

if TYPE_CHECKING:
    from peft_shop.catalog.runs import Training

__all__ = ["CHAT", "TRAIN_FILE", "Reading", "reading_of"]

TRAIN_FILE: Final = "train_file"
"""Key in `Training.options`: the file of rows that a run of a trial was trained on."""
CHAT: Final = "chat"
"""Key in `Training.options`: whether its texts bring the special tokens of a chat template."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a script comes by its batches.

    Attributes:
        plain_imports: modules of the standard library that it needs.
        modules: names to import by module.
        dataset: constants that people change.
        encoding: definition of `encode`, which makes one batch of rows.
        loader: statements that make `loader`.
    """

    plain_imports: tuple[str, ...]
    modules: dict[str, list[str]]
    dataset: str
    encoding: str
    loader: str


_DATASET: Final = Template("""\
DATASET_ID = $dataset
PROMPT = "Question: {query}\\nAnswer: "  # names in braces are columns of the data set
ANSWER = "response"  # the column that follows the prompt\
""")
_ENCODING: Final = """\
def encode(rows):
    texts = [PROMPT.format(**row) + row[ANSWER] + tokenizer.eos_token for row in rows]
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return batch\
"""
_LOADER: Final = """\
data = load_dataset(DATASET_ID, split="train")
loader = DataLoader(data, batch_size=BATCH_SIZE * ACCUMULATION, shuffle=True, collate_fn=collate)\
"""
_OWN_DATASET: Final = Template("""\
# a JSON object a line: "prompt" (may be empty) and "completion"
TRAIN_FILE = $train_file\
""")
_OWN_ENCODING: Final = Template('''\
def ids_and_labels(row):
    """Ids and labels of one row; what stands in the prompt is not predicted."""
    ids = tokenizer(row["prompt"] + row["completion"]$special)["input_ids"][:MAX_LENGTH]
    given = tokenizer(row["prompt"]$special)["input_ids"] if row["prompt"] else []
    return ids, [-100] * min(len(given), len(ids)) + ids[len(given) :]


def encode(rows):
    encoded = [ids_and_labels(row) for row in rows]
    longest = max(len(ids) for ids, _ in encoded)
    padded = [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in encoded]
    real = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in encoded]
    predicted = [labels + [-100] * (longest - len(labels)) for _, labels in encoded]
    columns = {"input_ids": padded, "attention_mask": real, "labels": predicted}
    return BatchEncoding({name: torch.tensor(column) for name, column in columns.items()})''')
_OWN_LOADER: Final = """\
with open(TRAIN_FILE, encoding="utf-8") as lines:
    data = [json.loads(line) for line in lines]
set_seed(SEED)  # whatever was drawn while the model was made
loader = DataLoader(
    data,
    batch_size=BATCH_SIZE * ACCUMULATION,
    shuffle=True,
    collate_fn=collate,
    generator=torch.Generator().manual_seed(SEED),  # the same batches for every method
)"""


def reading_of(training: Training, dataset: str) -> Reading:
    """How a script of these settings comes by its batches.

    Args:
        training: names the file of the user's own, if any.
        dataset: source of the identifier of the benchmark's data set.
    """
    file = training.options.get(TRAIN_FILE)
    if file is None:
        return Reading(
            plain_imports=("itertools",),
            modules={"datasets": ["load_dataset"]},
            dataset=_DATASET.substitute(dataset=dataset),
            encoding=_ENCODING,
            loader=_LOADER,
        )
    special = ", add_special_tokens=False" if training.options.get(CHAT) else ""
    return Reading(
        plain_imports=("itertools", "json"),
        modules={"transformers": ["BatchEncoding"]},
        dataset=_OWN_DATASET.substitute(train_file=literal(str(file))),
        encoding=_OWN_ENCODING.substitute(special=special),
        loader=_OWN_LOADER,
    )
