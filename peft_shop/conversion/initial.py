"""The way by the untrained adapter: for a LoRA whose start changed the base (PiSSA, OLoRA, CorDA).

The base was left as W - s B0 A0, and the adapter adds s B A to that. Against the original W the
change is s (B A - B0 A0), of rank 2 r, whatever the start computed; peft's own
`path_initial_model_for_weight_conversion` stores the same.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peft_shop.conversion.checking import with_adapter
from peft_shop.conversion.deltas import LayerChange, matrix, relative
from peft_shop.conversion.layers import kind_of
from peft_shop.conversion.reading import PREFIX, WEIGHTS_FILE, AdapterFolder, open_adapter
from peft_shop.errors import ConversionError
from peft_shop.serve.adapter import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.plan import Plan
    from peft_shop.records import Json

__all__ = ["Start", "open_start"]


@dataclass(frozen=True)
class Start:
    """A trained adapter and itself as it was before."""

    trained: AdapterFolder
    untrained: AdapterFolder

    def changes(self, base: BaseWeights, found: Plan) -> Iterator[LayerChange]:
        """The change of every layer against the original base."""
        for name in found.targets:
            after, scale = self._product(self.trained, name)
            before, _ = self._product(self.untrained, name)
            module = base.skeleton().get_submodule(name)
            kind = kind_of(module)
            if kind not in {"linear", "conv1d"}:
                raise ConversionError(
                    f"{name}: an untrained adapter helps with linear layers only; leave it away "
                    "where no other layer is adapted"
                )
            weight = base.weight(f"{name}.weight").to(torch.float64)
            delta = scale * (after - before)
            new = matrix(weight, kind) + delta
            size = relative(delta, weight)
            yield LayerChange(
                name=name,
                kind=kind,
                new={"weight": new.T if kind == "conv1d" else new},
                delta=delta,
                kernel=(),
                size=size,
                noise=2.0**-24 / size if size else 0.0,  # the start itself was computed in fp32
                bias=0.0,
            )

    def model(self, whole: Any) -> Any:
        """The base with the trained adapter as it was in training: W - s B0 A0 + s B A."""
        modules = dict(whole.named_modules())
        names = {key.removeprefix(PREFIX).partition(".lora_")[0] for key in self.trained.shapes}
        with torch.no_grad():
            for name in names & set(modules):
                product, scale = self._product(self.untrained, name)
                weight = modules[name].weight
                shift = (scale * product).to(weight.dtype)
                weight.sub_(shift.T if kind_of(modules[name]) == "conv1d" else shift)
        with tempfile.TemporaryDirectory() as folder:
            plain = dict(self.trained.config) | {"init_lora_weights": True}
            (Path(folder) / CONFIG_FILE).write_text(json.dumps(plain), encoding="utf-8")
            shutil.copyfile(self.trained.weights, Path(folder) / WEIGHTS_FILE)
            return with_adapter(whole, Path(folder))

    def _product(self, source: AdapterFolder, name: str) -> tuple[Any, float]:
        """B A of a layer, (out, in) in fp64, and the scale of the trained adapter."""
        keys = [f"{PREFIX}{name}.lora_{part}.weight" for part in "AB"]
        missing = [key for key in keys if key not in source.shapes]
        if missing:
            raise ConversionError(f"{source.weights}: there is no {missing[0]}")
        a, b = (tensor.double() for tensor in source.tensors(keys).values())
        return b @ a, _scale(self.trained.config, name, int(a.shape[0]))


def open_start(catalog: Catalog, trained: AdapterFolder, path: str | Path) -> Start:
    """The adapter's untrained self in the folder `path`.

    Raises:
        ConversionError: it is another adapter's, or the method needs none.
    """
    if not {"changed_base", "lora_ga"} & set(trained.adapter.traits):
        raise ConversionError(
            f"{path}: an untrained adapter is of use only where the start changed the base (PiSSA, "
            f"OLoRA, CorDA, LoRA-GA); {trained.folder} did not: leave it away"
        )
    untrained = open_adapter(catalog, path)
    if dict(untrained.shapes) != dict(trained.shapes):
        odd = min(set(untrained.shapes.items()) ^ set(trained.shapes.items()))
        raise ConversionError(
            f"{path}: not the same adapter before training: {odd[0]} {list(odd[1])} is in one of "
            "the two only"
        )
    return Start(trained, untrained)


def _scale(config: Mapping[str, Json], name: str, rank: int) -> float:
    """`lora_alpha / r` of one layer, or by the root of r with rsLoRA."""
    alpha = _of_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(pattern: Any, name: str, default: Any) -> Any:
    """Value of the first key that peft would match with the layer's name."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default
