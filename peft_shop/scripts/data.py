"""Source of what a text script trains on: the benchmark's data set, or a file of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.source import literal

if TYPE_CHECKING:
    from peft_shop.catalog.runs import Training

__all__ = ["CHAT", "LABELS", "TRAIN_FILE", "Reading", "reading_of"]

TRAIN_FILE: Final = "train_file"
"""Key in `Training.options`: the file of rows that a run of a trial was trained on."""
CHAT: Final = "chat"
"""Key in `Training.options`: whether its texts bring the special tokens of a chat template."""
LABELS: Final = "labels"
"""Key in `Training.options`: the classes that a run of a trial learned to tell apart."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a script comes by its batches.

    Attributes:
        plain_imports: modules of the standard library that it needs.
        modules: names to import by module.
        dataset: constants that people change.
        encoding: definition of `encode`, which makes one batch of rows.
        loader: statements that make `loader`.
        classes: whether a row has a class, and the model a head that names it.
    """

    plain_imports: tuple[str, ...]
    modules: dict[str, list[str]]
    dataset: str
    encoding: str
    loader: str
    classes: bool = False


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
    ids = tokenizer(row["prompt"] + row["completion"]$special)["input_ids"]
    given = tokenizer(row["prompt"]$special)["input_ids"] if row["prompt"] else []
    shared = len(os.path.commonprefix([given, ids]))  # tokens may reach across the boundary
    return ids[:MAX_LENGTH], ([-100] * shared + ids[shared:])[:MAX_LENGTH]


def encode(rows):
    encoded = [ids_and_labels(row) for row in rows]
    longest = max(len(ids) for ids, _ in encoded)
    padded = [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in encoded]
    real = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in encoded]
    predicted = [labels + [-100] * (longest - len(labels)) for _, labels in encoded]
    columns = {"input_ids": padded, "attention_mask": real, "labels": predicted}
    return BatchEncoding({name: torch.tensor(column) for name, column in columns.items()})''')
_CLASS_DATASET: Final = Template("""\
# a JSON object a line: "text", perhaps "text_pair", and "label"
TRAIN_FILE = $train_file
LABELS = $labels\
""")
_CLASS_ENCODING: Final = """\
def encode(rows):
    texts = [row["text"] for row in rows]
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    batch = tokenizer(
        texts, pairs, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    batch["labels"] = torch.tensor([LABELS.index(row["label"]) for row in rows])
    return batch\
"""
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
    labels = training.options.get(LABELS)
    if labels is not None:
        return Reading(
            plain_imports=("itertools", "json"),
            modules={},
            dataset=_CLASS_DATASET.substitute(
                train_file=literal(str(file)), labels=literal(labels, used=9)
            ),
            encoding=_CLASS_ENCODING,
            loader=_OWN_LOADER,
            classes=True,
        )
    special = ", add_special_tokens=False" if training.options.get(CHAT) else ""
    return Reading(
        plain_imports=("itertools", "json", "os"),
        modules={"transformers": ["BatchEncoding"]},
        dataset=_OWN_DATASET.substitute(train_file=literal(str(file))),
        encoding=_OWN_ENCODING.substitute(special=special),
        loader=_OWN_LOADER,
    )
