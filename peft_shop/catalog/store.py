"""A catalog file -> Catalog; the only reader of catalog files.

The file that comes with the package is read once per process. A file of the user's is checked
whole: every mistake is reported with its dotted place, and references between records must
resolve, so that nothing above this room meets a name it does not know.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from peft_shop.catalog.catalog import SCHEMA_VERSION, Catalog
from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.engines import CIRCUMSTANCES, TOPIC_IDS, TRAIT_IDS
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.trainers import CONDITIONS, RECIPE_FIELDS, topics_of
from peft_shop.errors import (
    CatalogError,
    CatalogVersionError,
    InputError,
    Problem,
    nearest_names,
)
from peft_shop.files import read_bounded
from peft_shop.records import Record, parse_json, uncollected

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from os import PathLike

__all__ = ["CATALOG_RESOURCE", "READ_FROM", "TRIAL_CATALOG", "load", "parse"]

CATALOG_RESOURCE = "_catalog.json"
READ_FROM: Final = "read from"
"""Key in `Catalog.derived`: what the user named as its file."""
TRIAL_CATALOG: Final = "catalog.json"
"""The catalog in the folder of a trial."""
_MAX_BYTES = 64 * 2**20
"""No catalog comes near this size; a larger file is a mistake or an attack."""
_MOST_NODES: Final = 100_000
"""Values inside one record: the largest on file, a method, has a thousand."""
_ENOUGH: Final = 50
"""Mistakes after which a file is given up."""


def _records() -> dict[str, type[Record]]:
    """The lists of records that a catalog has, by name."""
    hints = get_type_hints(Catalog)
    return {
        key: get_args(hints[key])[0]
        for key in Catalog.model_fields
        if get_origin(hints[key]) is tuple and issubclass(get_args(hints[key])[0], Record)
    }


_RECORDS: Final = _records()


def load(path: str | PathLike[str] | None = None) -> Catalog:
    """Catalog in the file `path`, or the one that comes with the package.

    Raises:
        CatalogError: the file cannot be read or breaks the format; lists every mistake.
        CatalogVersionError: the file is of a newer schema than this version knows.
    """
    if path is None:
        return _embedded()
    try:
        file = Path(path)
        if file.is_dir():  # of a trial, which keeps its catalog there
            file /= TRIAL_CATALOG
        text = read_bounded(file, _MAX_BYTES, "a catalog")
    except TypeError:
        msg = (
            f"catalog: expected a Catalog or the path of a catalog file, not {type(path).__name__}"
        )
        raise InputError(msg) from None
    except ValueError as error:  # a null byte in the name
        problem = Problem(repr(path), "", str(error))
        raise CatalogError("cannot read the catalog", [problem]) from error
    except OSError as error:
        problem = Problem(
            str(file),
            "",
            error.strerror or "cannot be read",
            "give the path of a file made by `peft-shop catalog export`, or the folder of a trial",
        )
        raise CatalogError("cannot read the catalog", [problem]) from error
    catalog = parse(text, name=str(file))
    catalog.derived[READ_FROM] = str(Path(path))
    return catalog


@lru_cache(maxsize=1)
@uncollected()
def _embedded() -> Catalog:
    resource = files("peft_shop") / CATALOG_RESOURCE
    # written by `compile`, which has checked the references
    return Catalog.model_validate_json(resource.read_bytes())


@uncollected()
def parse(text: bytes, *, name: str = "catalog") -> Catalog:
    """Catalog that the JSON `text` holds; `name` stands for the file in errors.

    Raises:
        CatalogError: not a catalog; lists every mistake.
        CatalogVersionError: of a newer schema.
    """
    try:
        # what is not finite is told with its place, by the record that forbids it
        raw = parse_json(text, infinite=True)
    except ValueError as error:
        raise CatalogError(
            "cannot read the catalog", [Problem(name, "", f"not a JSON document: {error}")]
        ) from error
    if not isinstance(raw, dict) or "schema_version" not in raw:
        problem = Problem(
            name,
            "schema_version",
            "missing: this is not a peft-shop catalog",
            "make one with `peft-shop catalog compile`",
        )
        raise CatalogError("cannot read the catalog", [problem])
    version = str(raw["schema_version"])
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        problem = Problem(
            name,
            "schema_version",
            f"written for schema {version}, this version reads {SCHEMA_VERSION}",
            "upgrade peft-shop, or export the catalog again",
        )
        raise CatalogVersionError("cannot read the catalog", [problem])
    try:
        catalog = _validated(raw, name)
    except CatalogError as error:
        if not _is_newer(version):
            raise
        problem = Problem(
            name,
            "schema_version",
            f"written for schema {version}, which is newer than the {SCHEMA_VERSION} of this "
            "version and has what it does not know",
            "upgrade peft-shop: pip install -U peft-shop",
        )
        raise CatalogVersionError("cannot read the catalog", [problem, *error.problems]) from error
    problems = _dangling(catalog, name)
    if problems:
        raise CatalogError("the catalog contradicts itself", problems)
    return catalog


def _is_newer(version: str) -> bool:
    """Whether a schema of our major version has a minor one that came later."""
    minor, own = (text.partition(".")[2] for text in (version, SCHEMA_VERSION))
    return minor.isdecimal() and len(minor) < 6 and int(minor) > int(own)


def _validated(raw: dict[str, Any], name: str) -> Catalog:
    """The catalog that `raw` is, record by record, so that a hopeless file is given up early.

    Raises:
        CatalogError: it breaks the format; lists the first mistakes.
    """
    members = dict(raw)
    problems: list[Problem] = []
    for key, record in _RECORDS.items():
        items = raw.get(key)
        if not isinstance(items, list):
            continue
        made = []
        for index, item in enumerate(items):
            place = f"{key}[{index}]"
            if _nodes(item) > _MOST_NODES:
                problems.append(Problem(name, place, "far too large for one record"))
            else:
                try:
                    made.append(record.model_validate(item))
                except ValidationError as error:
                    problems += problems_of(error, record, item, name, within=place)
            if len(problems) > _ENOUGH:
                raise CatalogError("the catalog breaks its format", problems)
        members[key] = made
    unknown = sorted(set(raw) - set(Catalog.model_fields))
    for key in unknown[_ENOUGH:]:
        del members[key]
    try:
        catalog = Catalog.model_validate(members)
    except ValidationError as error:
        problems += problems_of(error, Catalog, raw, name)
    if problems:
        raise CatalogError("the catalog breaks its format", sorted(set(problems)))
    return catalog


def _nodes(value: Any) -> int:
    """How many values a JSON value holds, itself included; stops counting at `_MOST_NODES`."""
    count, level = 0, [value]
    while level and count <= _MOST_NODES:
        count += len(level)
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return count


class _References:
    """Collects references that lead nowhere and names that stand twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []

    def add(self, where: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.name, where, message, hint))

    def check(self, kind: str, value: str, valid: Collection[str], where: str) -> None:
        if value not in valid:
            near = nearest_names(value, valid)
            self.add(
                where, f"unknown {kind} {value!r}", f"did you mean {near[0]!r}?" if near else ""
            )

    def unique(self, kind: str, values: Iterable[str], where: str) -> None:
        seen: set[str] = set()
        for i, value in enumerate(values):
            if value in seen:
                self.add(f"{where}[{i}]", f"{kind} {value!r} stands here twice")
            seen.add(value)


def _dangling(catalog: Catalog, name: str) -> list[Problem]:
    """References that lead nowhere, and names that stand twice."""
    references = _References(name)
    references.unique("metric", (metric.id for metric in catalog.metrics), "metrics")
    references.unique("field", (metric.field for metric in catalog.metrics), "metrics")
    references.unique("benchmark", (benchmark.id for benchmark in catalog.benchmarks), "benchmarks")
    references.unique("method", (method.id for method in catalog.methods), "methods")
    references.unique("snapshot", (snapshot.id for snapshot in catalog.snapshots), "snapshots")
    if not catalog.benchmarks:
        references.add("benchmarks", "empty: there is nothing to recommend by")
    for i, benchmark in enumerate(catalog.benchmarks):
        where = f"benchmarks[{i}]"
        references.check("metric", benchmark.headline, benchmark.metrics, f"{where}.headline")
        for k, metric in enumerate(benchmark.metrics):
            references.check("metric", metric, catalog.metric_by_id, f"{where}.metrics[{k}]")
        for k, metric in enumerate(benchmark.objectives):
            references.check("metric", metric, benchmark.metrics, f"{where}.objectives[{k}]")
        for metric in benchmark.definitions:
            references.check("metric", metric, benchmark.metrics, f"{where}.definitions")
    features = {feature.id for feature in catalog.features}
    for i, method in enumerate(catalog.methods):
        where = f"methods[{i}].capabilities"
        for feature in method.capabilities:
            references.check("feature", feature, features, where)
        for feature in sorted(features - set(method.capabilities)):
            references.add(f"{where}.{feature}", "missing")
        for feature, capability in method.capabilities.items():
            references.check(
                "environment",
                capability.environment,
                method.environments,
                f"{where}.{feature}.environment",
            )
        for k, variant in enumerate(method.variants):
            for feature in variant.capabilities:
                references.check(
                    "feature", feature, features, f"methods[{i}].variants[{k}].capabilities"
                )
    _dangling_evidence(catalog, references)
    _dangling_noise(catalog, references)
    _dangling_engines(catalog, references)
    _dangling_trainers(catalog, references)
    return references.problems


def _dangling_evidence(catalog: Catalog, found: _References) -> None:
    """As `_dangling`, for runs and what is said about them."""
    snapshots = {snapshot.id for snapshot in catalog.snapshots}
    methods = {*catalog.method_by_id, FULL_FINETUNING}
    variants = {
        method.id: {variant.id for variant in method.variants} for method in catalog.methods
    }
    eras = {benchmark.id: [era.id for era in benchmark.eras] for benchmark in catalog.benchmarks}
    found.unique("run", (f"{run.benchmark}: {run.id}" for run in catalog.runs), "runs")
    for i, run in enumerate(catalog.runs):
        where = f"runs[{i}]"
        found.check("benchmark", run.benchmark, eras, f"{where}.benchmark")
        found.check("method", run.method, methods, f"{where}.method")
        for variant in run.variants:
            found.check("variant", variant, variants.get(run.method, ()), f"{where}.variants")
        if run.era is not None:
            found.check("era", run.era, eras.get(run.benchmark, ()), f"{where}.era")
        for field in run.metrics:
            found.check("metric", field, catalog.metric_by_field, f"{where}.metrics")
        for snapshot in run.snapshots:
            found.check("snapshot", snapshot, snapshots, f"{where}.snapshots")


def _dangling_noise(catalog: Catalog, found: _References) -> None:
    """As `_dangling`, for noise, shifts and pairings."""
    methods = {*catalog.method_by_id, FULL_FINETUNING}
    eras = {benchmark.id: [era.id for era in benchmark.eras] for benchmark in catalog.benchmarks}
    for i, noise in enumerate(catalog.noise):
        where = f"noise[{i}]"
        found.check("benchmark", noise.benchmark, eras, f"{where}.benchmark")
        found.check("metric", noise.metric, catalog.metric_by_id, f"{where}.metric")
        if noise.era is not None:
            found.check("era", noise.era, eras.get(noise.benchmark, ()), f"{where}.era")
        for k, method in enumerate(noise.methods):
            found.check("method", method, methods, f"{where}.methods[{k}]")
    for i, shift in enumerate(catalog.era_shifts):
        where = f"era_shifts[{i}]"
        found.check("benchmark", shift.benchmark, eras, f"{where}.benchmark")
        found.check("metric", shift.metric, catalog.metric_by_id, f"{where}.metric")
        for key, era in (("older", shift.older), ("newer", shift.newer)):
            found.check("era", era, eras.get(shift.benchmark, ()), f"{where}.{key}")
    experiments: dict[str, set[str]] = {name: set() for name in eras}
    for run in catalog.runs if catalog.pairings else ():
        experiments.setdefault(run.benchmark, set()).add(run.experiment)
    for i, pairing in enumerate(catalog.pairings):
        where = f"pairings[{i}]"
        found.check("benchmark", pairing.benchmark, eras, f"{where}.benchmark")
        found.check("metric", pairing.metric, catalog.metric_by_id, f"{where}.metric")
        for key, experiment in (("a", pairing.a), ("b", pairing.b)):
            known = experiments.get(pairing.benchmark, set())
            found.check("experiment", experiment, known, f"{where}.{key}")


def _dangling_engines(catalog: Catalog, found: _References) -> None:
    """As `_dangling`, for engines and conversions."""
    found.unique("engine", (engine.id for engine in catalog.engines), "engines")
    for i, engine in enumerate(catalog.engines):
        where = f"engines[{i}]"
        for topic in engine.facts:
            found.check("topic", topic, TOPIC_IDS, f"{where}.facts")
        for k, rule in enumerate(engine.rules):
            found.check("circumstance", rule.when, CIRCUMSTANCES, f"{where}.rules[{k}].when")
        for place, source in engine.cited():
            found.check("source", source, engine.sources, f"{where}.{place}.source")
    for i, conversion in enumerate(catalog.conversions):
        where = f"conversions[{i}]"
        if conversion.method is not None:
            found.check("method", conversion.method, catalog.method_by_id, f"{where}.method")
        for k, trait in enumerate(conversion.traits):
            found.check("trait", trait, TRAIT_IDS, f"{where}.traits[{k}]")
        for field in {name for term in conversion.rank for name in term if not name.isdecimal()}:
            found.check("default of a field", field, conversion.defaults, f"{where}.rank")


def _dangling_trainers(catalog: Catalog, found: _References) -> None:
    """As `_dangling`, for trainers."""
    topics = topics_of(catalog.methods)
    found.unique("trainer", (trainer.id for trainer in catalog.trainers), "trainers")
    for i, trainer in enumerate(catalog.trainers):
        where = f"trainers[{i}]"
        for topic in trainer.facts:
            found.check("topic", topic, topics, f"{where}.facts")
        for k, rule in enumerate(trainer.rules):
            found.check("circumstance", rule.when, CONDITIONS, f"{where}.rules[{k}].when")
            for topic in rule.topics:
                found.check("topic", topic, topics, f"{where}.rules[{k}].topics")
        for place, source in trainer.cited():
            found.check("source", source, trainer.sources, f"{where}.{place}.source")
        for place, fields in (("keys", trainer.keys), ("defaults", trainer.defaults)):
            for field in fields:
                found.check("field of a recipe", field, RECIPE_FIELDS, f"{where}.{place}")
