"""Trainable parameters of runs that recorded none, counted on a model without weights.

`python -m peft_shop.curate.calibration.counting` writes `data/computed.json`; needs torch,
transformers and peft. A count is no measurement: it is kept apart from what runs recorded, with
the versions that counted.
"""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.curate.intake.ledger import read_runs
from peft_shop.errors import ConfigError
from peft_shop.files import write_all
from peft_shop.records import Record, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.runs import Run

__all__ = ["COMPUTED", "Computed", "count_parameters"]

COMPUTED: Final = "computed.json"
"""Inside the data folder."""
_FIELD: Final = "trainable_parameters"
_LAYERS: Final = 32
_PERIOD: Final = 4
"""Layers after which the kinds of attention repeat."""
_BY_LAYER: Final = frozenset({"BOFT", "SHIRA"})
"""Methods that share nothing between layers and are slow on whole models."""
_BY_WEIGHT: Final = frozenset({"ADAMSS"})
"""Methods whose count depends on the weights."""
_QWEN: Final = {
    "vocab_size": 248320,
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "architectures": ["Qwen3_5ForCausalLM"],
}
"""Sizes of the text model of Qwen3.5-4B; no configuration of a run names a layer beside it."""


class Computed(Record):
    """`data/computed.json`: figures that were computed where runs recorded none.

    Attributes:
        by: what computed them, with versions.
        trainable_parameters: by benchmark and run; absent where it cannot be told.
    """

    by: Text
    trainable_parameters: dict[str, dict[str, int]]


def count_parameters(runs: Iterable[Run]) -> dict[str, int]:
    """Trainable parameters by run, of those adapters that can be counted without weights.

    Raises:
        MissingExtraError: peft, torch or transformers is not installed.
    """
    from peft_shop.forecast.exact import exact_counts
    from peft_shop.model.inspection import inspect_model

    targets = {layers: inspect_model(_model(layers)) for layers in (_LAYERS, _PERIOD)}
    known: dict[str, int | None] = {}
    found: dict[str, int] = {}
    for run in runs:
        kind = run.recipe.peft_type
        if run.method == FULL_FINETUNING or kind is None or kind in _BY_WEIGHT:
            continue
        config: dict[str, Any] = {"peft_type": kind, **copy.deepcopy(dict(run.recipe.config))}
        if kind == "ADALORA":  # asked for since; no parameter depends on it
            config["total_step"] = run.recipe.training.max_steps
        key = json.dumps(config, sort_keys=True)
        if key not in known:
            layers = _PERIOD if kind in _BY_LAYER else _LAYERS
            known[key] = None
            with warnings.catch_warnings(), contextlib.suppress(ConfigError):
                warnings.simplefilter("ignore")  # peft's advice to whoever trains
                counts = exact_counts(targets[layers], config)
                known[key] = counts.trainable_parameters * _LAYERS // layers
        count = known[key]
        if count is not None:
            found[run.id] = count
    return found


def _model(layers: int) -> Any:
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

    return Qwen3_5TextConfig(**_QWEN, num_hidden_layers=layers, dtype="bfloat16")


def main(data: Path) -> None:
    """Count for every run of `rlmath` on file, and write the file."""
    runs = [run for run in read_runs(data).values() if _FIELD not in run.metrics]
    mine = [run for run in runs if run.benchmark == "rlmath"]
    counted = count_parameters(mine)
    by = f"peft {version('peft')}, transformers {version('transformers')}"
    record = Computed(by=by, trainable_parameters={"rlmath": dict(sorted(counted.items()))})
    content = json.dumps(record.model_dump(mode="json"), indent=1) + "\n"
    write_all({data / COMPUTED: content.encode()})


if __name__ == "__main__":
    main(Path("data"))
