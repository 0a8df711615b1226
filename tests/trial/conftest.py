"""Made-up protocols and results, whose figures a test decides, and a tiny model with a text."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from peft_shop.catalog.runs import Recipe, Training
from peft_shop.trial.records import BASE, Asked, Contestant, Job, Protocol, Split
from peft_shop.trial.results import Measured, Result
from peft_shop.trial.stages import next_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

SPLIT = Split(file="data/train.jsonl", sha256="0" * 64, examples=10)


def made_training(rate: float) -> Training:
    return Training(
        model_id="/m",
        optimizer="AdamW",
        learning_rate=rate,
        max_steps=10,
        batch_size=8,
        max_length=64,
        dtype="float32",
        options={"train_file": "/t/data/train.jsonl"},
    )


def made_contestant(name: str, rates: Sequence[float]) -> Contestant:
    return Contestant(
        name=name,
        title=name,
        method=name.partition("/")[0],
        recipe=Recipe(peft_type="LORA", config={"r": 8}, training=made_training(rates[0])),
        rates=tuple(rates),
    )


def made_protocol(
    names: Sequence[str] = ("lora/a", "miss/b", "vera/c"),
    *,
    rates: Sequence[float] = (0.0001, 0.0003, 0.0009),
    seeds: int = 3,
) -> Protocol:
    base = Contestant(
        name=BASE,
        title="base",
        method="full_finetuning",
        recipe=Recipe(peft_type=None, training=made_training(0.0)),
        rates=(0.0,),
    )
    return Protocol(
        benchmark="trial_made",
        asked=Asked(model="/m", train="/t.jsonl", rates=len(rates), seeds=seeds),
        frozen_at="2026-01-02T03:04:05Z",
        model_files={"config.json": "1" * 64},
        train=SPLIT,
        valid=SPLIT,
        test=SPLIT,
        general=SPLIT,
        device="cpu",
        dtype="float32",
        versions={"peft": "0.21.2"},
        contestants=(base, *(made_contestant(name, rates) for name in names)),
    )


def made_measured(loss: float, *, valid: float | None = None, items: int = 4) -> Measured:
    scored = loss if valid is None else valid
    return Measured(
        test_loss=loss,
        valid_loss=scored,
        general_loss=4.0 - loss / 10,
        train_loss=loss,
        tokens=100,
        trainable_parameters=10,
        total_parameters=100,
        step_seconds=2.0,
        cpu_seconds=1.0,
        checkpoint_bytes=40,
        device="cpu",
        test_items=((loss * 5, 5),) * items,
        valid_items=((scored * 5, 5),) * items,
    )


def made_result(
    protocol: Protocol, job: Job, measured: Measured | None, outcome: str = "finished"
) -> Result:
    return Result(
        id=job.id(protocol),
        protocol=protocol.digest,
        job=job,
        outcome=outcome if measured is None else "finished",  # type: ignore[arg-type]
        measured=measured,
        created_at=f"2026-01-02T03:04:05.{job.seed:06d}Z",
    )


def carried_out(
    protocol: Protocol,
    loss: Callable[[Job], float | None],
    done: Mapping[str, Result] | None = None,
    *,
    order: random.Random | None = None,
    most: int = 10_000,
) -> dict[str, Result]:
    """Results of a whole trial, or of its first `most` runs; `None` is a run that diverged."""
    results = dict(done or {})
    while len(results) < most and (jobs := next_jobs(protocol, results)):
        job = jobs[0] if order is None else order.choice(jobs)
        value = loss(job)
        measured = None if value is None else made_measured(value)
        results[job.id(protocol)] = made_result(protocol, job, measured, "diverged")
    return results


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """Makers of protocols and results."""
    return SimpleNamespace(
        protocol=made_protocol,
        measured=made_measured,
        result=made_result,
        carried_out=carried_out,
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `model`, a random Llama with a tokenizer of words, and `train.jsonl`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("trial-tiny")
    words = [f"w{number}" for number in range(60)]
    vocabulary = {word: number for number, word in enumerate(["<unk>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"unk_token": "<unk>", "eos_token": "</s>"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
    made.save_pretrained(folder / "model")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
        )
    ).save_pretrained(folder / "model")
    draw = random.Random(0)
    rows = []
    for _ in range(200):
        start = draw.randrange(40)
        rows.append(
            {
                "prompt": f"w{start} w{start + 1} ",
                "completion": " ".join(f"w{start + step}" for step in range(2, 8)),
            }
        )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    general = "\n\n".join(" ".join(draw.choices(words, k=12)) for _ in range(20))
    (folder / "general.txt").write_text(general, encoding="utf-8")
    return folder
