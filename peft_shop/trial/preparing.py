"""What a user asks -> the protocol of a trial, with the examples divided and every script made."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError, InputError, MissingExtraError, PeftShopError
from peft_shop.model.inspection import inspect_model
from peft_shop.trial.choosing import Conditions, base_contestant, contestants, full_contestant
from peft_shop.trial.data import divide, written
from peft_shop.trial.records import Asked, Code, Job, Protocol, Split
from peft_shop.trial.running import script_of
from peft_shop.trial.sharing import PEFT_TASKS, answer_for, shared_setup
from peft_shop.trial.trust import demand_safetensors, source_of_score

if TYPE_CHECKING:
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.model.structure import Structure
    from peft_shop.trial.data import Divided
    from peft_shop.trial.records import Contestant

__all__ = ["Prepared", "model_files", "prepare", "usual_length", "versions"]

_PACKAGES: Final = ("peft-shop", "peft", "torch", "transformers")
CODE: Final = "data/score.py"
"""Where the copy of a score function lies in the trial's folder."""
_FEW: Final = 200
"""Test examples below which small differences cannot be seen."""
_CHUNK: Final = 2**20
_MOST_CHOICES: Final = 20
"""Different completions up to which they stand for choice in every row."""
_GPU_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """A protocol that is not frozen yet, and the files of its data.

    Attributes:
        protocol: of the trial.
        files: content by name inside the trial's folder.
    """

    protocol: Protocol
    files: dict[str, bytes]


def prepare(folder: Path, asked: Asked, answer: Recommendation | None = None) -> Prepared:
    """The protocol of a trial.

    Args:
        folder: of the trial.
        asked: what the user asked for.
        answer: whose candidates take part; the published order for the model by default.

    Raises:
        InputError: a file, a name or a number that cannot be.
        CatalogError: examples that cannot be read.
        ModelError: the model cannot be inspected.
        MissingExtraError: torch, peft or transformers is not installed.
    """
    model = Path(asked.model)
    if not model.is_dir():
        raise InputError(
            f"{asked.model}: a trial needs the folder of a model with its weights and tokenizer; "
            "download it first"
        )
    demand_safetensors(model)
    device, dtype, threads = _machine(asked)
    tokenizer = _tokenizer(model)
    divided = divide(asked, tokenizer)
    files, splits = _splits(divided)
    conditions = Conditions(
        asked=asked,
        train_file=str((folder / splits["train"].file).resolve()),
        chat=divided.chat,
        dtype=dtype,
        labels=divided.labels,
        accumulation=asked.accumulation or 1,
        gradient_checkpointing=asked.gradient_checkpointing or False,
    )
    code = _code(asked, files)
    target = inspect_model(str(model), task_type=PEFT_TASKS[asked.task])
    _check_length(asked, target.structure)
    conditions, told = shared_setup(conditions, answer)
    if answer is None:
        answer = answer_for(conditions)
    chosen, left_out = contestants(answer, conditions, load())
    everyone = [base_contestant(conditions), *chosen]
    if asked.full_finetuning:
        everyone.append(full_contestant(answer, conditions))
    protocol = Protocol(
        benchmark=_benchmark_id(folder),
        asked=asked,
        frozen_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        model_files=model_files(model),
        chat=divided.chat,
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        general=splits.get("general"),
        device=device,
        dtype=dtype,
        accumulation=conditions.accumulation,
        gradient_checkpointing=conditions.gradient_checkpointing,
        threads=threads,
        versions=versions(),
        contestants=tuple(everyone),
        notes=(*divided.notes, *_notes(divided), *_generating(asked, model), *told),
        labels=divided.labels,
        majority=_majority(divided) if divided.labels else None,
        choices=_choices(asked, divided),
        code=code,
    )
    return Prepared(_with_scripts(protocol, left_out), files)


def usual_length(model: Path) -> int | None:
    """The default length of an example [tokens], or what a model takes if that is less.

    `None` where nothing is known of the model.
    """
    usual: int = Asked.model_fields["max_length"].default
    try:
        longest = inspect_model(str(model)).structure.dimensions.max_positions
    except PeftShopError:  # told once the trial is prepared
        return None
    return usual if longest is None else min(usual, longest)


def _check_length(asked: Asked, model: Structure) -> None:
    """That the model takes texts as long as asked.

    Raises:
        InputError: it does not.
    """
    longest = model.dimensions.max_positions
    if longest is not None and asked.max_length > longest:
        raise InputError(
            f"max_length {asked.max_length} is more than the {longest} tokens that {asked.model} "
            f"takes; say --max-length {longest} or less"
        )


def _with_scripts(protocol: Protocol, left_out: dict[str, str]) -> Protocol:
    """The protocol without candidates that no script can train.

    Raises:
        InputError: none is left.
    """
    able: list[Contestant] = [protocol.base]
    for contestant in protocol.contestants[1:]:
        job = Job(
            stage="rates", contestant=contestant.name, learning_rate=contestant.rates[0], seed=0
        )
        try:
            script_of(protocol, job)
        except ConfigError as error:
            left_out[contestant.name] = str(error)
        else:
            able.append(contestant)
    if len(able) == 1:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(f"no candidate can take part: {reasons or 'none was chosen'}")
    return protocol.model_copy(update={"contestants": tuple(able), "left_out": left_out})


def model_files(model: Path) -> dict[str, str]:
    """sha256 of every file of a model's folder, by name.

    Raises:
        InputError: one cannot be read.
    """
    digests = {}
    for path in sorted(model.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256()
            try:
                with path.open("rb") as file:
                    while block := file.read(_CHUNK):
                        digest.update(block)
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}") from error
            digests[path.relative_to(model).as_posix()] = digest.hexdigest()
    return digests


def versions() -> dict[str, str]:
    """Versions of the packages that decide results."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine(asked: Asked) -> tuple[str, str, int]:
    """What trains, the data type of the base, and threads for each run."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "trial", "a trial") from error
    on_accelerator = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_accelerator else "cpu"
    dtype = asked.dtype
    if dtype == "auto":
        dtype = "bfloat16" if on_accelerator else "float32"
    return device, dtype, _GPU_THREADS if on_accelerator else 1


def _tokenizer(model: Path) -> Any:
    """The model's tokenizer.

    Raises:
        InputError: there is none.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", "trial", "a trial") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(model), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{model}: no tokenizer that can be read: {reason}") from error
    if tokenizer.eos_token is None and tokenizer.pad_token is None:
        raise InputError(f"{model}: its tokenizer has neither an end-of-text nor a padding token")
    return tokenizer


def _splits(divided: Divided) -> tuple[dict[str, bytes], dict[str, Split]]:
    """Content of the files of the data, and what a protocol says of them."""
    files, splits = {}, {}
    for part in ("train", "valid", "test", "general"):
        examples = getattr(divided, part)
        if examples is None:
            continue
        name = f"data/{part}.jsonl"
        files[name] = written(examples)
        digest = hashlib.sha256(files[name]).hexdigest()
        splits[part] = Split(file=name, sha256=digest, examples=len(examples))
    return files, splits


def _notes(divided: Divided) -> list[str]:
    number = len(divided.test)
    if number >= _FEW:
        return []
    text = f"only {number} test examples, fewer than {_FEW}: small differences stay undecided"
    return [text]


def _generating(asked: Asked, model: Path) -> list[str]:
    """That the model's own settings of generation do not count."""
    if asked.task != "causal_lm" or asked.scored_by in {"loss", "choice"}:
        return []
    ignored = "; the model's own generation_config.json is ignored"
    there = (model / "generation_config.json").is_file()
    return [
        f"answers are generated greedily, at most {asked.max_new_tokens} tokens each"
        + (ignored if there else "")
    ]


def _majority(divided: Divided) -> float:
    """Share of the test examples with the class that is most frequent in training."""
    counts = Counter(example.completion for example in divided.train)
    most = max(divided.labels, key=counts.__getitem__)
    return sum(example.completion == most for example in divided.test) / len(divided.test)


def _choices(asked: Asked, divided: Divided) -> tuple[str, ...]:
    """Completions that rows without choices of their own choose from.

    Raises:
        InputError: the score needs prompts, or choices, and there are none.
    """
    score = asked.scored_by
    if asked.task == "seq_cls" or score == "loss":
        return ()
    if not all(example.prompt for example in divided.test):
        raise InputError(
            f"{asked.train}: the score {score} needs rows with a prompt and a completion"
        )
    if score != "choice" or all(example.choices for example in divided.test):
        return ()
    examples = (*divided.train, *divided.valid, *divided.test)
    different = sorted({example.completion for example in examples})
    if not 2 <= len(different) <= _MOST_CHOICES:
        raise InputError(
            f"{asked.train}: the score choice needs a column `choices`, or 2 to {_MOST_CHOICES} "
            f"different completions; there are {len(different)}"
        )
    return tuple(different)


def _code(asked: Asked, files: dict[str, bytes]) -> Code | None:
    """The score function of the user's own, whose file is added to `files`; it is not run.

    Raises:
        InputError: the file cannot be read, or has no such function.
    """
    if ":" not in asked.scored_by:
        return None
    function = asked.scored_by.rpartition(":")[2]
    content = source_of_score(asked.scored_by)
    files[CODE] = content
    return Code(file=CODE, sha256=hashlib.sha256(content).hexdigest(), function=function)


def _benchmark_id(folder: Path) -> str:
    """Identifier of the trial's benchmark, from the folder's name."""
    name = "".join(
        letter if letter.isascii() and letter.isalnum() else "_"
        for letter in folder.resolve().name.lower()
    ).strip("_")
    return f"trial_{name}" if name and not name.startswith("trial") else name or "trial"
