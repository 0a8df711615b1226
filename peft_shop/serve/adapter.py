"""What a server has to cope with: an adapter's method, variants, ranks and traits.

An adapter is a run's, a method's as such, or one that lies in a folder; of a folder only
`adapter_config.json` is read, as plain data.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.engines import FORMATS, OTHER_FORMAT
from peft_shop.errors import AdapterError, Problem, nearest_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Modality
    from peft_shop.catalog.methods import Method, Variant
    from peft_shop.catalog.runs import Run
    from peft_shop.records import Json

__all__ = [
    "CONFIG_FILE",
    "TRAITS",
    "Adapter",
    "adapter_of_method",
    "adapter_of_run",
    "read_adapter",
    "variants_of",
]

CONFIG_FILE: Final = "adapter_config.json"
_MAX_BYTES: Final = 8 * 2**20
"""Lists of token indices can be long; a larger file is no configuration."""
_LORA: Final = "lora"
_RANK: Final = 8
"""Default of both `r` and `lora_alpha` in peft's `LoraConfig`."""
_EMBEDDINGS: Final = frozenset(
    ("embed_in", "embed_out", "embed_tokens", "lm_head", "tok_embeddings", "word_embeddings", "wte")
)
_HEADS: Final = frozenset(("classifier", "score"))
_HEADED_TASKS: Final = frozenset(("SEQ_CLS", "TOKEN_CLS"))
"""Tasks for which peft saves the head without being told."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as a server meets it.

    Attributes:
        name: as it is shown.
        method: identifier of the method, or `full_finetuning`.
        variants: recognised variants.
        config: fields of the peft configuration that are set.
        stated: whether `config` is that of one adapter; a method as such has no ranks.
        models: kind of model that it adapts; `None` where that is open.
    """

    name: str
    method: str
    variants: tuple[str, ...]
    config: Mapping[str, Json]
    stated: bool = True
    models: Modality | None = None

    @property
    def format(self) -> str:
        """Topic of what the method saves."""
        return self.method if self.method in FORMATS else OTHER_FORMAT

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of a LoRA adapter, that of most layers first; empty where they are open."""
        if not self.stated or self.method != _LORA:
            return ()
        return (
            _whole(self.config, "r", _RANK),
            *(rank for rank in _pattern(self.config, "rank_pattern").values() if rank >= 1),
        )

    @property
    def alpha(self) -> float | None:
        """`lora_alpha` of a LoRA adapter; `None` where it is open."""
        if not self.stated or self.method != _LORA:
            return None
        value = self.config.get("lora_alpha", _RANK)
        return float(value) if _is_number(value) else None

    @property
    def traits(self) -> tuple[str, ...]:
        """Identifiers of the traits that it has, in the order of `TRAITS`."""
        return tuple(name for name, has in TRAITS.items() if has(self))

    def converted(self, rank: int | None) -> Adapter:
        """The LoRA that a conversion makes of it: scale 1, whole modules kept."""
        kept = {key: self.config[key] for key in _KEPT if key in self.config}
        if self.method == "trainable_tokens":
            kept.setdefault("target_modules", ["embed_tokens"])  # peft's own choice
        ranks = {} if rank is None else {"r": rank, "lora_alpha": rank}
        return Adapter(self.name, _LORA, (), kept | ranks, rank is not None, self.models)

    def saved_against_start(self) -> Adapter:
        """The LoRA that saving against the untrained adapter makes of it: twice the rank.

        As `save_pretrained(path_initial_model_for_weight_conversion=...)` of peft 0.21.2 does.
        """
        config = {key: value for key, value in self.config.items() if key != "init_lora_weights"}
        if self.stated:
            config["r"] = 2 * _whole(config, "r", _RANK)
            factor = math.sqrt(2) if config.get("use_rslora") is True else 2
            config["lora_alpha"] = factor * (self.alpha or _RANK)
            for name in ("rank_pattern", "alpha_pattern"):
                if name in config:
                    config[name] = {key: 2 * v for key, v in _pattern(config, name).items()}
        return Adapter(self.name, _LORA, (), config, self.stated, self.models)


_KEPT: Final = ("modules_to_save", "task_type", "target_modules")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(config: Mapping[str, Json], name: str, default: int) -> int:
    value = config.get(name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _pattern(config: Mapping[str, Json], name: str) -> dict[str, Any]:
    value = config.get(name)
    return {k: v for k, v in value.items() if _is_number(v)} if isinstance(value, dict) else {}


def _names(value: object) -> tuple[str, ...]:
    """Last parts of module names; of a pattern, the text itself."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple | set | frozenset):
        return ()
    return tuple(str(item).rpartition(".")[2] for item in items)


# --- traits ---


def _lora(test: Callable[[Mapping[str, Json]], bool]) -> Callable[[Adapter], bool]:
    return lambda adapter: adapter.method == _LORA and test(adapter.config)


def _is_on(name: str) -> Callable[[Adapter], bool]:
    return _lora(lambda config: config.get(name) is True)


def _is_given(*names: str) -> Callable[[Adapter], bool]:
    return _lora(lambda config: any(config.get(name) not in (None, [], {}, ()) for name in names))


def _starts(*starts: str) -> Callable[[Adapter], bool]:
    def test(config: Mapping[str, Json]) -> bool:
        start = config.get("init_lora_weights")
        # "pissa_niter_16" is PiSSA too
        return isinstance(start, str) and (
            start in starts or start.partition("_niter_")[0] in starts
        )

    return _lora(test)


def _is_scaled(adapter: Adapter) -> bool:
    """Whether some layer's lora_alpha / r is not 1; for a method as such nobody knows: yes."""
    if adapter.method != _LORA or adapter.config.get("use_rslora") is True:
        return False
    if not adapter.stated:
        return True
    ranks, alphas = (_pattern(adapter.config, f"{name}_pattern") for name in ("rank", "alpha"))
    usual, alpha = _whole(adapter.config, "r", _RANK), adapter.alpha
    return alpha != usual or any(
        ranks.get(key, usual) != alphas.get(key, alpha) for key in {*ranks, *alphas}
    )


def _adapts_embeddings(adapter: Adapter) -> bool:
    target = adapter.config.get("target_modules")
    if isinstance(target, str):
        return any(name in target for name in _EMBEDDINGS)
    return any(name in _EMBEDDINGS for name in _names(target))


def _saved(adapter: Adapter) -> frozenset[str]:
    saved = set(_names(adapter.config.get("modules_to_save")))
    if adapter.config.get("task_type") in _HEADED_TASKS:
        saved |= _HEADS
    return frozenset(saved)


def _has_patterns(name: str) -> Callable[[Adapter], bool]:
    # EVA writes both patterns when it starts, whatever the recipe says
    by_eva = _starts("eva")
    given = _is_given(name)
    return lambda adapter: given(adapter) or by_eva(adapter)


TRAITS: Final[dict[str, Callable[[Adapter], bool]]] = {
    "scale": _is_scaled,
    "rslora": _is_on("use_rslora"),
    "dora": _is_on("use_dora"),
    "lora_bias": _is_on("lora_bias"),
    "changed_base": _starts("pissa", "olora", "corda"),
    "lora_ga": _starts("lora_ga"),
    "loftq": _starts("loftq"),
    "extra_tensors": _is_given("kasa_config", "velora_config", "monteclora_config"),
    "kasa": _is_given("kasa_config"),
    "alora": _is_given("alora_invocation_tokens"),
    "qalora": _is_on("use_qalora"),
    "bdlora": _is_given("use_bdlora"),
    "arrow": _is_given("arrow_config"),
    "rank_pattern": _has_patterns("rank_pattern"),
    "alpha_pattern": _has_patterns("alpha_pattern"),
    "layer_replication": _is_given("layer_replication"),
    "bias": lambda adapter: adapter.config.get("bias") not in (None, "none", False),
    "embeddings": _adapts_embeddings,
    "saved_head": lambda adapter: bool(_saved(adapter) & _HEADS),
    "saved_embeddings": lambda adapter: bool(_saved(adapter) & _EMBEDDINGS),
    "saved_modules": lambda adapter: bool(_saved(adapter) - _HEADS - _EMBEDDINGS),
    "trainable_tokens": lambda adapter: bool(adapter.config.get("trainable_token_indices")),
    "parameters": _is_given("target_parameters"),
    "miss_bat": lambda adapter: (
        adapter.method == "miss" and adapter.config.get("init_weights") == "bat"
    ),
    "sampling": lambda adapter: (
        adapter.method == "pvera" and adapter.config.get("sample_at_inference") is True
    ),
}
"""What an adapter can have that a server or a conversion stumbles over, by topic."""


# --- where adapters come from ---


def adapter_of_run(run: Run, models: Modality | None = None) -> Adapter:
    """The adapter that a run trained; `models` is what its benchmark runs on."""
    config = {**run.recipe.resolved, **run.recipe.config}
    set_fields = {key: value for key, value in config.items() if value not in (None, [], {})}
    return Adapter(run.experiment, run.method, run.variants, set_fields, models=models)


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


def read_adapter(catalog: Catalog, path: str | PathLike[str]) -> Adapter:
    """The adapter in a folder that peft saved, or whose `adapter_config.json` is named.

    Nothing but that file is read, and nothing in it is executed.

    Raises:
        AdapterError: there is no such file, or it is no configuration of a method that the
            catalog knows; lists every mistake.
    """
    file = Path(path)
    if file.is_dir():
        file /= CONFIG_FILE
    config = _document(file)
    kinds = {method.peft_type: method for method in catalog.methods}
    kind = config.get("peft_type")
    problems = [Problem(str(file), *complaint) for complaint in _complaints(config)]
    if not isinstance(kind, str) or kind not in kinds:
        near = nearest_names(str(kind), kinds)
        hint = f"did you mean {near[0]!r}?" if near else "is it a configuration that peft saved?"
        message = "missing" if kind is None else f"the catalog knows no method {kind!r}"
        problems.append(Problem(str(file), "peft_type", message, hint))
    if problems:
        raise AdapterError("cannot read the adapter", problems)
    method = kinds[str(kind)]
    set_fields = {key: value for key, value in config.items() if value not in (None, [], {})}
    variants = variants_of(method, set_fields)
    return Adapter(file.resolve().parent.name, method.id, variants, set_fields)


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


def _document(file: Path) -> dict[str, Json]:
    """The JSON object in a file of reasonable size."""

    def fail(message: str, hint: str = "") -> AdapterError:
        return AdapterError("cannot read the adapter", [Problem(str(file), "", message, hint)])

    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise fail(reason, f"name a folder that peft saved, with {CONFIG_FILE} in it") from error
    if len(text) > _MAX_BYTES:
        raise fail(f"more than {_MAX_BYTES // 2**20} MiB: too large for a configuration")
    try:
        found = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise fail("not JSON: nested too deeply") from error
    except ValueError as error:
        raise fail(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise fail(f"expected a JSON object, got {type(found).__name__}")
    return found


def _refuse(constant: str) -> None:
    msg = f"{constant} is not a number"
    raise ValueError(msg)


def _complaints(config: Mapping[str, Json]) -> Iterable[tuple[str, str]]:
    """Fields that a route depends on and that have no value peft could have written."""
    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "r": ("a whole number of at least 1", _is_rank),
        "lora_alpha": ("a number", _is_number),
        "rank_pattern": ("an object of whole numbers of at least 1", _is_table(_is_rank)),
        "alpha_pattern": ("an object of numbers", _is_table(_is_number)),
        "use_rslora": ("true or false", _is_flag),
        "use_dora": ("true or false", _is_flag),
        "use_qalora": ("true or false", _is_flag),
        "lora_bias": ("true or false", _is_flag),
        "modules_to_save": ("a list of names", _is_list),
        "target_modules": ("a name, a pattern or a list of names", _is_target),
    }
    for name, (expected, is_right) in checks.items():
        value = config.get(name)
        # prompt methods and others use 0 or null where they have no rank
        if value is None or (name == "r" and value == 0 and config.get("peft_type") != "LORA"):
            continue
        if name == "rank_pattern" and config.get("peft_type") == "ADALORA":
            continue  # which of the ranks are left, as true and false
        if not is_right(value):
            yield name, f"expected {expected}, got {_shown(value)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_target(value: object) -> bool:
    return isinstance(value, str) or _is_list(value)


def _is_table(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))
