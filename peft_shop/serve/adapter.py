"""What a server has to cope with: an adapter's method, variants, ranks and traits.

An adapter is a run's, a method's as such, or one that lies in a folder, of which only plain data is
read: `adapter_config.json`, the names of the tensors, and which tokens were added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.engines import FORMATS, OTHER_FORMAT
from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import AdapterError, Problem, nearest_names
from peft_shop.serve import folders
from peft_shop.serve.bases import UNKNOWN_BASE, Base, base_of_folder
from peft_shop.serve.fields import RANK, is_number, pattern, whole
from peft_shop.serve.targets import Targets, targets_of
from peft_shop.serve.traits import TRAITS
from peft_shop.upstream.targets import wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Modality
    from peft_shop.catalog.methods import Method, Variant
    from peft_shop.catalog.runs import Run
    from peft_shop.records import Json

__all__ = [
    "CONFIG_FILE",
    "Adapter",
    "adapter_of_method",
    "adapter_of_run",
    "read_adapter",
    "variants_of",
]

CONFIG_FILE: Final = folders.CONFIG
_HEAD: Final = "lm_head"
_VOCABULARY: Final = (".lm_head.weight", ".embed_tokens.weight", ".wte.weight")
"""Ends of names of tensors that have a row for every token."""
_OLD_TYPES: Final = {
    "BONE": "Bone was in peft up to 0.18.1 and is MiSS now: convert the folder with "
    "scripts/convert-bone-to-miss.py of peft's repository"
}
"""Methods of earlier releases of peft, and what became of them."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as a server meets it.

    Attributes:
        name: as it is shown.
        method: identifier of the method, or `full_finetuning`.
        variants: recognised variants.
        config: fields of the peft configuration that are set.
        stated: whether `config` is that of one adapter; a method as such has no ranks.
        models: kind of model that it adapts; `None` where that is open.
        base: what is known of its base; `None` where nobody asks about one.
        tensors: names of its tensors; empty where they were not read.
        rows: rows of the vocabulary that it was trained with, as far as its files tell.
        renamed: whether its keys are those that the engine reads, whatever peft's are.
    """

    name: str
    method: str
    variants: tuple[str, ...]
    config: Mapping[str, Json]
    stated: bool = True
    models: Modality | None = None
    base: Base | None = None
    tensors: tuple[str, ...] = ()
    rows: int | None = None
    renamed: bool = False

    @property
    def format(self) -> str:
        """Topic of what the method saves."""
        return self.method if self.method in FORMATS else OTHER_FORMAT

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of a LoRA adapter, that of most layers first; empty where they are open."""
        if not self.stated or self.method != PLAIN:
            return ()
        return (
            whole(self.config, "r", RANK),
            *(rank for rank in pattern(self.config, "rank_pattern").values() if rank >= 1),
        )

    @property
    def alpha(self) -> float | None:
        """`lora_alpha` of a LoRA adapter; `None` where it is open."""
        if not self.stated or self.method != PLAIN:
            return None
        value = self.config.get("lora_alpha", RANK)
        return float(value) if is_number(value) else None

    @cached_property
    def traits(self) -> tuple[str, ...]:
        """Identifiers of the traits that it has, in the order of `TRAITS`."""
        return tuple(name for name, has in TRAITS.items() if has(self))

    @cached_property
    def targets(self) -> Targets:
        """Modules that it adapts, as far as they are known."""
        return targets_of(self.config, self.tensors, self.base)

    @cached_property
    def strangers(self) -> tuple[str, ...]:
        """Adapted modules that the base does not have, with every index as `*`.

        None where the tensors were not read or the base's modules are not known.
        """
        known = self.base.names if self.base is not None else frozenset()
        if not known or not self.targets.from_tensors:
            return ()
        # of fused experts peft saves the module that holds them
        holders = {name.rpartition(".")[0] for name in known}
        modules = {
            place.removeprefix("base_model.model.").removesuffix(".base_layer")
            for place in self.targets.places
        }
        return tuple(sorted(modules - known - holders))

    @property
    def added_tokens(self) -> bool | None:
        """Whether the vocabulary was extended for it; `None` where the base does not tell."""
        if self.rows is None:
            return False
        known = self.base.vocabulary if self.base is not None else None
        return None if known is None else self.rows > known

    def on(self, base: Base, config: Mapping[str, Json] | None = None) -> Adapter:
        """The same adapter on a base that is known better, such as the user's own model.

        Args:
            base: the base.
            config: the configuration for it; the adapter's own where there is none.
        """
        chosen = self.config if config is None else _set_fields(config)
        return replace(self, base=base, models=None, config=chosen)

    def converted(self, rank: int | None, *, renamed: bool = False) -> Adapter:
        """The LoRA that a conversion makes of it: scale 1, whole modules kept.

        Args:
            rank: its rank; `None` where that is open.
            renamed: whether the conversion also writes the keys that the engine reads.
        """
        kept = {key: self.config[key] for key in _KEPT if key in self.config}
        if self.method == "trainable_tokens":
            kept.setdefault("target_modules", ["embed_tokens"])  # peft's own choice
        ranks = {} if rank is None else {"r": rank, "lora_alpha": rank}
        return replace(
            self,
            method=PLAIN,
            variants=(),
            config=kept | ranks,
            stated=rank is not None,
            tensors=(),
            renamed=renamed,
        )

    def saved_against_start(self) -> Adapter:
        """The LoRA that saving against the untrained adapter makes of it: twice the rank.

        As `save_pretrained(path_initial_model_for_weight_conversion=...)` of peft 0.21.2 does.
        """
        config = {key: value for key, value in self.config.items() if key != "init_lora_weights"}
        if self.stated:
            config["r"] = 2 * whole(config, "r", RANK)
            factor = math.sqrt(2) if config.get("use_rslora") is True else 2
            config["lora_alpha"] = factor * (self.alpha or RANK)
            for name in ("rank_pattern", "alpha_pattern"):
                if name in config:
                    config[name] = {key: 2 * v for key, v in pattern(config, name).items()}
        return replace(self, method=PLAIN, variants=(), config=config, tensors=())


_KEPT: Final = (
    "exclude_modules",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "target_modules",
    "task_type",
)


# --- where adapters come from ---


def adapter_of_run(run: Run, models: Modality | None = None) -> Adapter:
    """The adapter that a run trained; `models` is what its benchmark runs on."""
    config = {**run.recipe.resolved, **run.recipe.config}
    set_fields = _set_fields(config)
    return Adapter(run.experiment, run.method, run.variants, set_fields, models=models)


def _set_fields(config: Mapping[str, Json]) -> dict[str, Json]:
    """Fields with a value; what peft writes out in full counts as unset."""
    return {key: value for key, value in config.items() if value not in (None, [], {})}


def adapter_of_method(
    method: Method, variants: Iterable[str] = (), models: Modality | None = None
) -> Adapter:
    """Adapters of a method and some of its variants as such: what their settings imply."""
    chosen = tuple(variant for variant in method.variants if variant.id in set(variants))
    config: dict[str, Json] = {}
    for variant in chosen:
        config |= _implied(variant)
    name = " + ".join([method.id, *(variant.id for variant in chosen)])
    ids = tuple(variant.id for variant in chosen)
    return Adapter(name, method.id, ids, config, stated=False, models=models)


def _implied(variant: Variant) -> dict[str, Json]:
    """Fields that a recipe of the variant must have, with a value that they may have."""
    found: dict[str, Json] = {}
    for condition in variant.when:
        if condition.config is None:
            continue
        if condition.one_of is not None:
            found[condition.config] = condition.one_of[0]
        elif condition.prefix is not None:
            found[condition.config] = condition.prefix
        elif condition.is_set is None:
            found[condition.config] = condition.equals
        elif condition.is_set:
            found[condition.config] = "set"
    return found


def read_adapter(catalog: Catalog, path: str | PathLike[str], *, weights: bool = False) -> Adapter:
    """The adapter in a folder that peft saved, or whose `adapter_config.json` is named.

    Args:
        catalog: knows the methods.
        path: the folder or file.
        weights: whether to read the names of the tensors too, and which tokens were added.

    Raises:
        AdapterError: there is no such file, it is no configuration of a method that the catalog
            knows, or the tensors are none; lists every mistake.
    """
    file = Path(path)
    if file.is_dir():
        file /= CONFIG_FILE
    config = folders.document(file)
    kinds = {method.peft_type: method for method in catalog.methods}
    kind = config.get("peft_type")
    problems = [Problem(str(file), *complaint) for complaint in folders.complaints(config)]
    if not isinstance(kind, str) or kind not in kinds:
        message = (
            "missing" if kind is None else f"the catalog knows no method {folders.shown(kind)}"
        )
        problems.append(Problem(str(file), "peft_type", message, _nearest(kind, kinds)))
    if problems:
        raise AdapterError("cannot read the adapter", problems)
    method = kinds[str(kind)]
    set_fields = _set_fields(config)
    shapes = folders.tensors(file.parent) if weights else {}
    known = targets_of(set_fields, shapes, UNKNOWN_BASE)
    # other methods' tensors have other ends, but stand in the same blocks
    places = known.places if known.from_tensors else {*known.places, *map(wildcard, shapes)}
    base = base_of_folder(set_fields, [*places, *(known.names or ())])
    return Adapter(
        file.resolve().parent.name,
        method.id,
        variants_of(method, set_fields),
        set_fields,
        base=base,
        tensors=tuple(shapes),
        rows=_rows(file.parent, shapes) if weights else None,
    )


def _nearest(kind: object, kinds: Iterable[str]) -> str:
    """What a type that peft does not know may be meant to be."""
    if isinstance(kind, str) and kind.upper() in _OLD_TYPES:
        return _OLD_TYPES[kind.upper()]
    near = nearest_names(str(kind)[:80], kinds)
    return f"did you mean {near[0]!r}?" if near else "is it a configuration that peft saved?"


def _rows(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the vocabulary, where an embedding or a head was trained or saved."""
    rows = [
        shape[1] if name.endswith("lora_embedding_A") else shape[0]
        for name, shape in shapes.items()
        if len(shape) == 2
        and (
            name.endswith(
                ("lora_embedding_A", ".lm_head.weight", ".embed_tokens.weight", ".wte.weight")
            )
            or (_HEAD in name and name.endswith("lora_B.weight"))
        )
    ]
    if rows:
        highest = folders.highest_token(folder)
        rows.append(0 if highest is None else highest + 1)
    return max(rows, default=None)


def variants_of(method: Method, config: Mapping[str, Json]) -> tuple[str, ...]:
    """Variants that the set fields of a configuration make; what the training makes is not seen."""
    return tuple(
        variant.id
        for variant in method.variants
        if variant.when
        and all(
            condition.config is not None and condition.met_by(config.get(condition.config))
            for condition in variant.when
        )
    )
