"""Fixtures that several rooms share."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from peft_shop.catalog.catalog import Catalog
from peft_shop.catalog.features import FEATURE_IDS

if TYPE_CHECKING:
    from collections.abc import Callable

# No test reads or writes what the user's own questions left.
os.environ["PEFT_SHOP_CACHE"] = "off"

# A change is judged by the same examples everywhere; `--hypothesis-profile=search` looks for new
# ones. No deadline: a busy machine is no mistake.
if hasattr(providers, "_get_local_constants"):
    # constants of whatever modules are loaded would make examples depend on which tests came before
    providers._get_local_constants = providers.Constants
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

_VERSION = 'catalog_version = "2026.11.0"\n'
_LORA = """\
title = "LoRA"
peft_type = "LORA"
config_class = "LoraConfig"
summary = "Learns the product of two thin matrices beside each weight; the usual first choice."
family = "low_rank"
task_types = ["CAUSAL_LM", "IMAGE"]
paper.title = "LoRA: Low-Rank Adaptation of Large Language Models"
paper.year = 2021
paper.url = "https://arxiv.org/abs/2106.09685"
aliases = ["locon"]
notes = ["The rank r sets its size."]

[[variants]]
id = "rslora"
title = "rsLoRA"
summary = "Scales by the root of the rank."
when = [{ config = "use_rslora", equals = true }]

[[variants]]
id = "lora_fa"
title = "LoRA-FA"
summary = "Trains one of the two matrices."
when = [{ training = "optimizer", equals = "lora-fa" }]
"""
_CPT = """\
title = "CPT"
peft_type = "CPT"
config_class = "CPTConfig"
summary = "Trains the embeddings of a worked example in front of the input; for very few examples."
family = "prompt"
task_types = ["CAUSAL_LM"]
no_paper_because = "This stands for any method without a paper."

[overrides.merging]
support = "no"
because = "Prompt tokens are no weights."
"""
_BENCHMARKS = """\
[[metrics]]
id = "peak_memory"
field = "peak_memory_bytes"
title = "Peak memory"
unit = "bytes"
better = "lower"
scope = "memory"
description = "Most memory at any time."
tie = 1000.0

[[metrics]]
id = "train_time"
field = "train_seconds"
title = "Training time"
unit = "seconds"
better = "lower"
scope = "time"
description = "Time that training took."

[[metrics]]
id = "test_accuracy"
field = "test_accuracy"
title = "Test accuracy"
unit = "fraction"
better = "higher"
scope = "score"
description = "Share of right answers."

[[benchmarks]]
id = "sums"
title = "Sums"
aliases = ["Sums"]
model_id = "some/model"
modality = "text"
description = "Adds numbers."
headline = "test_accuracy"
sample_size = 500
metrics = ["peak_memory", "train_time", "test_accuracy"]
floor = 0.1
floor_because = "Guessing scores 0.05."

[[benchmarks.eras]]
id = "old"
title = "old decoding"
transformers_below = "5.0.0"

[[benchmarks.eras]]
id = "new"
title = "new decoding"
"""
_SOURCES = """\
[[sources]]
id = "lab"
project = "a laboratory"
licence = "Apache-2.0"
date = 2026-01-01
taken = "All of it."
"""
_SNAPSHOTS = """\
[[snapshots]]
id = "2026-01"
date = "2026-01-31"
source = "lab"

[[snapshots]]
id = "2026-02"
date = "2026-02-28"
source = "lab"
"""
_HISTORY: dict[str, Any] = {
    "releases": ["0.3.0", "0.9.0"],
    "methods": {
        "cpt": {"since": "0.9.0", "fields": {"num_virtual_tokens": "0.9.0"}, "variants": {}},
        "lora": {
            "since": "0.3.0",
            "fields": {"r": "0.3.0", "bias": "0.3.0", "use_rslora": "0.9.0"},
            "variants": {"lora_fa": "0.9.0", "rslora": "0.9.0"},
        },
    },
}


def observation(method: str, config_class: str, category: str, **support: str) -> dict[str, Any]:
    """Observed file of `method`, all features `no` but those named, without their dots."""
    capabilities: dict[str, Any] = {}
    for feature in FEATURE_IDS:
        found = support.get(feature.rpartition(".")[2], "no")
        capabilities[feature] = {"support": found, "level": "trained"}
        if found in {"partial", "unknown"}:
            capabilities[feature]["note"] = "Needs a device that was not at hand."
    capabilities["merging"] |= {"level": "verified", "measured": {"deviation": 1e-06}}
    return {
        "method": method,
        "config_class": config_class,
        "category": category,
        "environments": {"cpu": {"peft": "0.9.0", "python": "3.11", "torch": "2.13.0"}},
        "capabilities": capabilities,
    }


def run(experiment: str, memory: float, score: float, **changes: Any) -> dict[str, Any]:
    """Run of the benchmark `sums`; `changes` replace its members."""
    training = {
        "model_id": "some/model",
        "optimizer": "AdamW",
        "learning_rate": 0.0001,
        "max_steps": 100,
        "batch_size": 4,
        "max_length": 64,
        "dtype": "bfloat16",
    }
    return {
        "benchmark": "sums",
        "experiment": experiment,
        "created_at": "2026-01-02T03:04:05+00:00",
        "method": "lora",
        "era": "new",
        "snapshots": ["2026-01", "2026-02"],
        "metrics": {"peak_memory_bytes": memory, "train_seconds": 60.5, "test_accuracy": score},
        "curve": {"steps": [50, 100], "scores": [0.2, 0.3]},
        "recipe": {"peft_type": "LORA", "config": {"r": 8, "bias": None}, "training": training},
        "provenance": {
            "source": "lab",
            "commit": "c" * 40,
            "file": f"results/{experiment}.json",
            "sha256": "a" * 64,
            "packages": {"peft": "0.9.0", "torch": "2.13.0", "transformers": "5.1.0"},
            "accelerator": "Some GPU",
            "seed": 0,
        },
    } | changes


@dataclass(frozen=True)
class Folders:
    """Small folders `catalog` and `data` that break no rule."""

    catalog: Path
    data: Path

    def write(self, name: str, text: str) -> Path:
        """Replaces a file, such as `data/sources.toml`."""
        path = self.catalog.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Replaces a JSON file."""
        return self.write(name, json.dumps(value))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replaces a piece of text that must be there."""
        path = self.catalog.parent / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def edit_json(self, name: str, *place: str | int, value: Any) -> None:
        """Sets the member at `place` of a JSON file; `None` removes it."""
        path = self.catalog.parent / name
        document = json.loads(path.read_text(encoding="utf-8"))
        here = document
        for key in place[:-1]:
            here = here[key]
        if value is None:
            del here[place[-1]]
        else:
            here[place[-1]] = value
        path.write_text(json.dumps(document), encoding="utf-8")

    def edit_run(self, index: int, *place: str | int, value: Any) -> None:
        """Sets the member at `place` of one run."""
        runs = small_runs()
        here: Any = runs[index]
        for key in place[:-1]:
            here = here[key]
        here[place[-1]] = value
        self.write_runs(*runs)

    def add_run(self, experiment: str, memory: float, score: float, **changes: Any) -> None:
        """Adds a run."""
        self.write_runs(*small_runs(), run(experiment, memory, score, **changes))

    def write_runs(self, *runs: dict[str, Any]) -> Path:
        """Replaces the runs of the benchmark `sums`."""
        return self.write("data/runs/sums.jsonl", "".join(json.dumps(one) + "\n" for one in runs))


def small_runs() -> list[dict[str, Any]]:
    """Runs of the small folders: two on the front, one behind, one of each sort left out of it."""
    flags = [{"code": "broken_config", "reason": "The rank was 0."}]
    wide = run("lora/wide", 3_000, 0.5, variants=["rslora"], created_at="2026-01-03T00:00:00Z")
    wide["recipe"]["config"]["use_rslora"] = True
    full = {"peft_type": None, "training": run("x", 1, 1)["recipe"]["training"]}
    return [
        run("lora/thin", 2_000, 0.4),
        wide,
        run("lora/waste", 4_000, 0.45),
        run("lora/nothing", 1_000, 0.01),
        run("lora/broken", 500, 0.9, flags=flags),
        run("full", 500, 0.9, method="full_finetuning", recipe=full),
    ]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Small source folders of a catalog, which a test may change."""
    made = Folders(tmp_path / "catalog", tmp_path / "data")
    made.write("catalog/version.toml", _VERSION)
    made.write("catalog/curated/lora.toml", _LORA)
    made.write("catalog/curated/cpt.toml", _CPT)
    lora = observation("lora", "LoraConfig", "adapter", linear="yes", bnb_4bit="unknown")
    lora["capabilities"]["merging"]["support"] = "yes"
    lora["variants"] = {
        "rslora": {"capabilities": {"hot_swapping": {"support": "yes", "level": "trained"}}}
    }
    lora["options"] = ["bias"]
    made.write_json("catalog/observed/lora.json", lora)
    cpt = observation("cpt", "CPTConfig", "prompt_learning", bnb_4bit="yes")
    cpt["capabilities"]["merging"]["support"] = "yes"
    made.write_json("catalog/observed/cpt.json", cpt)
    made.write_json("catalog/observed/history.json", _HISTORY)
    made.write("data/benchmarks.toml", _BENCHMARKS)
    made.write("data/sources.toml", _SOURCES)
    made.write("data/snapshots.toml", _SNAPSHOTS)
    made.write_runs(*small_runs())
    return made


# --- raw result files, as the suite writes them ---

_RESULT: dict[str, Any] = {
    "run_info": {
        "created_at": "2026-08-01T10:00:00+00:00",
        "total_time": 1200.5,
        "experiment_name": "lora/llama-3.2-3B-rank8",
        "peft_branch": "main",
        "train_config": {
            "model_id": "meta-llama/Llama-3.2-3B",
            "dtype": "bfloat16",
            "max_seq_length": 768,
            "batch_size": 4,
            "batch_size_eval": 50,
            "max_steps": 5000,
            "eval_steps": 250,
            "compile": False,
            "use_gc": False,
            "query_template": "Question: {query} Think step by step.\nAnswer:",
            "seed": 0,
            "grad_norm_clip": 1.0,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": 0.0001, "weight_decay": 0.1},
            "lr_scheduler": "cosine",
            "use_amp": False,
            "autocast_adapter_dtype": True,
            "generation_kwargs": {"max_length": 800, "max_new_tokens": 300},
            "attn_implementation": None,
        },
        "peft_config": {
            "task_type": None,
            "peft_type": "LORA",
            "peft_version": "0.20.0@UNKNOWN",
            "base_model_name_or_path": "meta-llama/Llama-3.2-3B",
            "inference_mode": False,
            "r": 8,
            "lora_alpha": 16,
            "target_modules": ["v_proj", "q_proj"],
        },
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_reserved_avg": 13_000_000_000,
        "accelerator_memory_max": 22_000_000_000,
        "accelerator_memory_reserved_99th": 20_000_000_000,
        "train_time": 1000.25,
        "file_size": 9_000_000,
        "num_trainable_params": 2_293_760,
        "num_total_params": 3_215_043_584,
        "status": "success",
        "metrics": [
            {"step": 250, "valid accuracy": 0.3, "train loss": 1.0, "train time": 40.25},
            {"step": 500, "valid accuracy": 0.4, "train loss": 0.8, "train time": 40.5},
            {
                "step": 500,
                "test accuracy": 0.45,
                "train loss": 0.75,
                "train samples": 2000,
                "train total tokens": 419_805,
                "forgetting": 0.1,
            },
        ],
    },
    "meta_info": {
        "model_info": {"sha": "13afe512", "created_at": "2024-09-18T15:23:48+00:00"},
        "package_info": {
            "transformers-version": "5.13.1",
            "peft-version": "0.20.0",
            "peft-commit-hash": "514b9e6d",
            "torch-version": "2.13.0+cu130",
        },
        "system_info": {"system": "Linux", "machine": "x86_64", "accelerator": "NVIDIA L40S"},
    },
}


@dataclass(frozen=True)
class Suite:
    """A data folder with the project's own definitions and no runs, and result files to read."""

    root: Path
    data: Path
    catalog: Path

    def result(self, *edits: tuple[str, Any]) -> dict[str, Any]:
        """A sound result of MetaMathQA; an edit sets, or with `...` removes, a dotted place."""
        document = copy.deepcopy(_RESULT)
        for place, value in edits:
            here: Any = document
            *parents, last = (int(key) if key.isdigit() else key for key in place.split("/"))
            for key in parents:
                here = here[key]
            if value is ...:
                del here[last]
            else:
                here[last] = value
        return document

    def write(self, name: str, *edits: tuple[str, Any]) -> Path:
        """Writes a result file under the root and gives its path."""
        return self.write_text(name, json.dumps(self.result(*edits), indent=1))

    def write_text(self, name: str, text: str) -> Path:
        """Writes any file under the root and gives its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """An empty place for result files beside a data folder with the project's definitions."""
    made = Suite(tmp_path / "results", tmp_path / "data", tmp_path / "catalog")
    made.root.mkdir()
    made.data.mkdir()
    for name in ("rules.toml", "benchmarks.toml", "sources.toml"):
        shutil.copy(Path(__file__).parents[1] / "data" / name, made.data / name)
    return made


# --- the committed catalog, changed ---


def altered(catalog: Catalog, **changes: Any) -> Catalog:
    """`catalog` with members replaced; `model_copy` would keep what the old one has derived."""
    return Catalog(**{name: getattr(catalog, name) for name in Catalog.model_fields} | changes)


@pytest.fixture(scope="session")
def alter() -> Callable[..., Catalog]:
    """The function `altered`, for tests that need a catalog with a difference."""
    return altered


@pytest.fixture(name="run")
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of the command with these arguments."""
    from peft_shop.__main__ import main

    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["peft-shop", *arguments])
        try:
            code = main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
