"""A name that people type -> the method, variant or run that it stands for: the one resolver.

Identifiers, titles, aliases, names in code, variants, combinations such as QLoRA and runs, whole
or in part, mean the same in every command and keyword. Case, spaces, dashes and signs are ignored.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from peft_shop.ask.contenders import in_snapshot, newest_snapshot
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.short_names import run_of_short
from peft_shop.errors import AmbiguousNameError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method, Variant
    from peft_shop.catalog.runs import Run

__all__ = [
    "Meaning",
    "current_runs",
    "fold",
    "is_method",
    "meaning_of",
    "method_meaning",
    "names_of_methods",
    "runs_called",
]

_FULL: Final = ("full_finetuning", "full fine-tuning", "full", "fft")
_MOST: Final = 12
"""Runs that an error lists."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name stands for.

    Attributes:
        name: as it was given.
        method: identifier of the method, or `full_finetuning`.
        variant: identifier of the variant that is meant; `None` for the method as such.
        quantization: backend of the base that the name implies.
        run: the run, where one is meant.
        title: of what is meant, for people.
    """

    name: str
    method: str
    variant: str | None = None
    quantization: str | None = None
    run: Run | None = None
    title: str = ""

    @property
    def remark(self) -> str:
        """What the name stands for, where it is not what it is called itself; may be empty."""
        if self.quantization is not None:
            return f"{self.name} is {self.title}: quantization={self.quantization}"
        known = {fold(self.title), fold(self.method), fold(self.variant or "")}
        return "" if self.run or fold(self.name) in known else f"{self.name} is {self.title}"

    @property
    def canonical(self) -> str:
        """The run, variant or method that is meant, as answers call it."""
        if self.run is not None:
            stamp = f"@{self.run.created_at}"
            return self.run.id if self.name.endswith(stamp) else self.run.experiment
        return self.variant or self.method

    def covers(self, run: Run) -> bool:
        """Whether a run is one of what is meant; QLoRA is plain LoRA."""
        if run.method != self.method or (self.run is not None and run is not self.run):
            return False
        if self.variant is not None:
            return self.variant in run.variants
        return self.quantization is None or not run.variants


_COMBINED: Final = {
    "QLoRA": Meaning("", "lora", None, "bnb_4bit", title="LoRA on a base quantized to 4 bit"),
    "QDoRA": Meaning("", "lora", "dora", "bnb_4bit", title="DoRA on a base quantized to 4 bit"),
}
"""Names of a method together with the base that it trains on."""


def fold(name: str) -> str:
    """The name without case, spaces and signs.

    >>> fold("(IA)³"), fold("LoRA+"), fold("LoRA-FA")
    ('ia3', 'loraplus', 'lorafa')
    """
    plain = unicodedata.normalize("NFKC", name).casefold().replace("+", "plus")
    return "".join(letter for letter in plain if letter.isalnum())


def current_runs(catalog: Catalog, benchmark: str, snapshot: str | None = None) -> tuple[Run, ...]:
    """Runs of `benchmark` in `snapshot` (`"all"` for every run), by default in the newest one."""
    when = snapshot or newest_snapshot(catalog, benchmark)
    return tuple(run for run in catalog.runs_by_benchmark[benchmark] if in_snapshot(run, when))


def meaning_of(
    catalog: Catalog,
    name: str,
    *,
    benchmarks: Sequence[str] | None = None,
    kind: str = "run or method",
    hint: str | None = None,
) -> Meaning:
    """What `name` stands for: a method, a variant, a combination or a run.

    Args:
        catalog: where to look.
        name: as people type it.
        benchmarks: whose runs may be meant; those of all when `None`.
        kind: what was expected, for the error.
        hint: the next step, for the error.

    Raises:
        UnknownNameError: nothing is called so; names the nearest of all kinds.
        AmbiguousNameError: several are; names them.
    """
    runs = _runs(catalog, benchmarks)
    exact = any(name in {run.id, run.experiment} for run in runs)
    if not exact and not run_of_short(catalog, name, runs):
        found = _index(catalog).get(_key(name), ())
        if len(found) == 1:
            return _named(found[0], name)
        if found:
            raise AmbiguousNameError("variant", name, map(_spelt, found))
    experiments = runs_called(catalog, name, benchmarks)
    if len(experiments) == 1:
        (run,) = experiments.values()
        return Meaning(name, run.method, run=run, title=run.experiment)
    if experiments:
        listed = [*list(experiments)[:_MOST], *(["..."] if len(experiments) > _MOST else [])]
        raise AmbiguousNameError("run", name, listed)
    valid = [run.experiment for run in _runs(catalog, benchmarks)]
    valid += names_of_methods(catalog)
    raise UnknownNameError(kind, name, valid, hint=hint, usual=catalog.method_by_id)


def is_method(catalog: Catalog, name: str) -> bool:
    """Whether `name` is one of a method, a variant or a combination."""
    return _key(name) in _index(catalog)


def method_meaning(
    catalog: Catalog,
    name: str,
    *,
    kind: str = "method",
    hint: str | None = "see `peft-shop methods`",
    keyword: str | None = None,
) -> Meaning:
    """As `meaning_of` where only a method, a variant or a combination can be meant."""
    found = _index(catalog).get(_key(name), ())
    if len(found) > 1:
        raise AmbiguousNameError("variant", name, map(_spelt, found), keyword=keyword)
    if not found or found[0].method == FULL_FINETUNING:
        valid = names_of_methods(catalog)
        usual = catalog.method_by_id
        raise UnknownNameError(kind, name, valid, hint=hint, keyword=keyword, usual=usual)
    return _named(found[0], name)


def runs_called(
    catalog: Catalog, name: str, benchmarks: Sequence[str] | None = None
) -> dict[str, Run]:
    """The newest run of every experiment that `name` stands for, by experiment.

    A run is called by its id, its experiment, its short name `lora/rank32`, or the end of its
    experiment: `rank32` of `lora/llama-3.2-3B-rank32`.
    """
    runs = _runs(catalog, benchmarks)
    called = (
        [run for run in runs if name in {run.id, run.experiment}]
        or run_of_short(catalog, name, runs)
        or _roughly_called(name, runs)
    )
    return _newest(catalog, called, one="@" in name) if called else {}


def _roughly_called(name: str, runs: Iterable[Run]) -> list[Run]:
    """Those of `runs` whose experiment is `name` but for case and gaps, else whose end it is."""
    plain = _plain(name)
    experiments = [(run, _plain(run.experiment)) for run in runs]
    return [run for run, experiment in experiments if experiment == plain] or [
        run for run, experiment in experiments if plain and _ends(experiment, plain)
    ]


def names_of_methods(catalog: Catalog) -> list[str]:
    """Names of methods and variants as people may type them, each once."""
    names: dict[str, str] = {}
    for method in catalog.methods:
        for name in (method.id, method.title, *method.aliases):
            names.setdefault(fold(name), name)
    for method in catalog.methods:
        for variant in method.variants:
            for name in (variant.id, variant.title):
                names.setdefault(fold(name), name)
    return [*names.values(), *_COMBINED]


def _runs(catalog: Catalog, benchmarks: Sequence[str] | None) -> list[Run]:
    return [run for run in catalog.runs if benchmarks is None or run.benchmark in benchmarks]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().casefold())


def _ends(experiment: str, name: str) -> bool:
    folder, slash, end = name.rpartition("/")
    if slash and not experiment.startswith(f"{folder}/"):
        return False
    return re.search(rf"[/-]{re.escape(end)}$", experiment) is not None


def _newest(catalog: Catalog, runs: Iterable[Run], *, one: bool) -> dict[str, Run]:
    """The newest run of each experiment, one that is current before others."""
    runs_by_name: dict[str, list[Run]] = {}
    for run in runs:
        # an experiment of the same name on another benchmark is another one
        runs_by_name.setdefault(run.id if one else f"{run.benchmark}\0{run.experiment}", []).append(
            run
        )
    newest = {}
    for same in runs_by_name.values():
        current = set(map(id, current_runs(catalog, same[0].benchmark)))
        chosen = max(
            [run for run in same if id(run) in current] or same,
            key=lambda run: datetime.fromisoformat(run.created_at).timestamp(),
        )
        several = chosen.experiment in newest
        newest[f"{chosen.experiment} ({chosen.benchmark})" if several else chosen.experiment] = (
            chosen
        )
    return newest


def _key(name: str) -> str:
    """`method:variant` keeps its colon."""
    head, colon, tail = name.partition(":")
    return f"{fold(head)}:{fold(tail)}" if colon else fold(name)


def _index(catalog: Catalog) -> dict[str, tuple[Meaning, ...]]:
    """Meanings by key, worked out once per catalog; a method goes before a variant of its name."""
    if "meanings" not in catalog.derived:
        methods: dict[str, Meaning] = {
            fold(name): Meaning("", FULL_FINETUNING, title="full fine-tuning") for name in _FULL
        }
        for method in catalog.methods:
            for name in (method.id, method.config_class, method.title, *method.aliases):
                methods.setdefault(fold(name), Meaning("", method.id, title=method.title))
        variants: dict[str, tuple[Meaning, ...]] = {}
        for method in catalog.methods:
            for variant in method.variants:
                meaning = Meaning("", method.id, variant.id, title=variant.title)
                for key in _keys_of_variant(method, variant):
                    variants[key] = (*variants.get(key, ()), meaning)
        for name, meaning in _COMBINED.items():
            known = catalog.method_by_id.get(meaning.method)
            if known is not None and meaning.variant in {None, *(v.id for v in known.variants)}:
                variants[fold(name)] = (meaning,)
        catalog.derived["meanings"] = variants | {key: (one,) for key, one in methods.items()}
    meanings: dict[str, tuple[Meaning, ...]] = catalog.derived["meanings"]
    return meanings


def _keys_of_variant(method: Method, variant: Variant) -> set[str]:
    own = {fold(variant.id), fold(variant.title)}
    return own | {f"{fold(method.id)}:{key}" for key in own}


def _named(meaning: Meaning, name: str) -> Meaning:
    return Meaning(name, meaning.method, meaning.variant, meaning.quantization, None, meaning.title)


def _spelt(meaning: Meaning) -> str:
    return f"{meaning.method}:{meaning.variant}"
