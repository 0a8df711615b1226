"""Rules about runs: what they refer to, and what a sound measurement looks like."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.curate.intake.assembly import era_of
from peft_shop.curate.intake.recipes import recognised
from peft_shop.curate.sources.violations import Finding, Rule, nearest, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.runs import Run
    from peft_shop.curate.sources.sources import Entry, Sources

__all__ = ["RULES"]

_STAND_INS: Final = frozenset({99_999_999})
"""Numbers that the benchmark suite writes where nothing was measured."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def _named(sources: Sources) -> Iterator[tuple[str, Entry[Run]]]:
    """Every run with the name that an exception would give it."""
    for entry in sources.runs:
        yield f"{entry.record.benchmark}:{entry.record.id}", entry


def _fields(sources: Sources) -> dict[str, dict[str, str]]:
    """Field of each metric of each benchmark, to its identifier."""
    fields = {entry.record.id: entry.record.field for entry in sources.metrics}
    return {
        entry.record.id: {
            fields[metric]: metric for metric in entry.record.metrics if metric in fields
        }
        for entry in sources.benchmarks
    }


@rule("run-references", integrity=True)
def run_references(sources: Sources) -> Iterator[Finding]:
    """A run's benchmark, method, variants, era, snapshots, metrics and source are on record."""
    methods = {*sources.curated, FULL_FINETUNING}
    variants = {
        method: {variant.id for variant in entry.record.variants}
        for method, entry in sources.curated.items()
    }
    eras = {e.record.id: {era.id for era in e.record.eras} for e in sources.benchmarks}
    fields = _fields(sources)
    snapshots = {entry.record.id for entry in sources.snapshots}
    origins = {entry.record.id for entry in sources.sources}
    for record, entry in _named(sources):
        run = entry.record
        references: list[tuple[str, str, str, set[str]]] = [
            ("benchmark", "benchmark", run.benchmark, set(fields)),
            ("method", "method", run.method, methods),
            ("source", "provenance.source", run.provenance.source, origins),
        ]
        references += [
            ("variant", f"variants[{i}]", variant, variants.get(run.method, set()))
            for i, variant in enumerate(run.variants)
        ]
        references += [
            ("snapshot", f"snapshots[{i}]", snapshot, snapshots)
            for i, snapshot in enumerate(run.snapshots)
        ]
        references += [
            ("metric", f"metrics.{field}", field, set(fields.get(run.benchmark, ())))
            for field in run.metrics
        ]
        if run.era is not None:
            references.append(("era", "era", run.era, eras.get(run.benchmark, set())))
        for kind, where, name, valid in references:
            if name not in valid:
                problem = entry.problem(where, f"unknown {kind} {name!r}", nearest(name, valid))
                yield record, problem


@rule("run-unique", integrity=True)
def run_unique(sources: Sources) -> Iterator[Finding]:
    """Benchmark, experiment and time of creation name one run."""
    seen: dict[str, Entry[Run]] = {}
    for record, entry in _named(sources):
        first = seen.setdefault(record, entry)
        if first is not entry:
            message = f"is the run of {first.path}: {first.where} again"
            yield record, entry.problem("created_at", message)


@rule("run-once-in-snapshot")
def run_once_in_snapshot(sources: Sources) -> Iterator[Finding]:
    """A snapshot holds one run of an experiment."""
    seen: dict[tuple[str, str, str], str] = {}
    for record, entry in _named(sources):
        run = entry.record
        for snapshot in run.snapshots:
            first = seen.setdefault((run.benchmark, run.experiment, snapshot), run.created_at)
            if first != run.created_at:
                message = f"snapshot {snapshot!r} has the run of {first} as well"
                yield record, entry.problem("snapshots", message)


@rule("run-headline")
def run_headline(sources: Sources) -> Iterator[Finding]:
    """A run has a headline score."""
    fields = {entry.record.id: entry.record.field for entry in sources.metrics}
    headlines = {e.record.id: fields.get(e.record.headline) for e in sources.benchmarks}
    for record, entry in _named(sources):
        field = headlines.get(entry.record.benchmark)
        if field is not None and field not in entry.record.metrics:
            yield record, entry.problem(f"metrics.{field}", "has no headline score")


@rule("plausible")
def plausible(sources: Sources) -> Iterator[Finding]:
    """No figure is a stand-in; sizes, times and counts are positive, fractions within 0 and 1."""
    metrics = {entry.record.field: entry.record for entry in sources.metrics}
    for record, entry in _named(sources):
        for field, value in entry.record.metrics.items():
            metric = metrics.get(field)
            if metric is None:
                continue
            place = f"metrics.{field}"
            if value in _STAND_INS:
                hint = "leave it out and flag the run `sentinel`"
                yield record, entry.problem(place, f"{value} stands for 'not measured'", hint)
            if metric.scope != "score" and value <= 0:
                yield record, entry.problem(place, f"{value} is not above 0")
            if metric.unit == "fraction" and not 0 <= value <= 1:
                yield record, entry.problem(place, f"{value} is not between 0 and 1")


@rule("flag-metrics")
def flag_metrics(sources: Sources) -> Iterator[Finding]:
    """A flag concerns figures that the run has; a removed stand-in, one that it lacks."""
    fields = _fields(sources)
    for record, entry in _named(sources):
        run = entry.record
        for index, flag in enumerate(run.flags):
            place = f"flags[{index}].metrics"
            for metric in flag.metrics:
                if metric not in fields.get(run.benchmark, {}):
                    hint = nearest(metric, fields.get(run.benchmark, {}))
                    yield record, entry.problem(place, f"unknown field {metric!r}", hint)
                elif (metric in run.metrics) == (flag.code == "sentinel"):
                    state = "is on record" if metric in run.metrics else "is not on record"
                    yield record, entry.problem(place, f"{flag.code}: {metric!r} {state}")
            if flag.code in {"artefact", "sentinel"} and not flag.metrics:
                yield record, entry.problem(place, f"{flag.code} must say which figures")


@rule("recipe-method")
def recipe_method(sources: Sources) -> Iterator[Finding]:
    """A recipe is of the run's method; full fine-tuning has no peft type and no configuration."""
    for record, entry in _named(sources):
        recipe = entry.record.recipe
        expected = FULL_FINETUNING if recipe.peft_type is None else recipe.peft_type.lower()
        if expected != entry.record.method:
            message = f"is {recipe.peft_type!r}, the run's method is {entry.record.method!r}"
            yield record, entry.problem("recipe.peft_type", message)
        if recipe.peft_type is None and (recipe.config or recipe.resolved):
            yield record, entry.problem("recipe.config", "full fine-tuning has no configuration")


@rule("recipe-fields")
def recipe_fields(sources: Sources) -> Iterator[Finding]:
    """A recipe's configuration has fields that its class has in the catalog's peft."""
    history = sources.history.record.methods if sources.history else {}
    for record, entry in _named(sources):
        known = history.get(entry.record.method)
        if known is None or not known.fields:
            continue
        for name in (*entry.record.recipe.config, *entry.record.recipe.resolved):
            if name not in known.fields:
                message = f"the configuration class has no field {name!r}"
                hint = nearest(name, known.fields)
                yield record, entry.problem(f"recipe.config.{name}", message, hint)


@rule("variants-current")
def variants_current(sources: Sources) -> Iterator[Finding]:
    """A run's variants are those that the catalog's conditions recognise in its recipe."""
    for record, entry in _named(sources):
        run = entry.record
        curated = sources.curated.get(run.method)
        expected = recognised(run.recipe, curated.record.variants) if curated else ()
        if run.variants != expected:
            message = f"are {list(run.variants)}, its recipe is of {list(expected)}"
            yield record, entry.problem("variants", message, "ingest its file again")


@rule("era-of-run")
def era_of_run(sources: Sources) -> Iterator[Finding]:
    """A run's era is the one of its transformers version; none where the benchmark has none."""
    benchmarks = {entry.record.id: entry.record for entry in sources.benchmarks}
    for record, entry in _named(sources):
        run = entry.record
        benchmark = benchmarks.get(run.benchmark)
        if benchmark is None:
            continue
        version = run.provenance.packages.get("transformers")
        if version is None and benchmark.eras:
            place = "provenance.packages.transformers"
            yield record, entry.problem(place, "is not on record: the era cannot be told")
            continue
        expected = era_of(benchmark, version or "")
        if run.era != expected:
            message = f"is {run.era!r}; transformers {version} belongs to {expected!r}"
            yield record, entry.problem("era", message)


@rule("curve")
def curve(sources: Sources) -> Iterator[Finding]:
    """A validation curve has a score a step, steps that grow and end within the training."""
    for record, entry in _named(sources):
        found = entry.record.curve
        if found is None:
            continue
        if not found.steps or len(found.steps) != len(found.scores):
            message = f"{len(found.steps)} steps and {len(found.scores)} scores"
            yield record, entry.problem("curve", message)
        elif list(found.steps) != sorted(set(found.steps)):
            yield record, entry.problem("curve.steps", "do not grow")
        elif found.steps[-1] > entry.record.recipe.training.max_steps:
            message = f"end at {found.steps[-1]}, after the training"
            yield record, entry.problem("curve.steps", message)


@rule("same-conditions")
def same_conditions(sources: Sources) -> Iterator[Finding]:
    """Runs of one snapshot share hardware, batch, length and precision, or carry a flag."""
    groups: dict[tuple[str, str], list[tuple[str, Entry[Run]]]] = {}
    for record, entry in _named(sources):
        for snapshot in entry.record.snapshots:
            groups.setdefault((entry.record.benchmark, snapshot), []).append((record, entry))
    reported: set[str] = set()
    for members in groups.values():
        counts = Counter(_conditions(entry.record) for _, entry in members)
        usual = max(counts, key=lambda conditions: (counts[conditions], str(conditions)))
        for record, entry in members:
            flagged = any(flag.code == "environment" for flag in entry.record.flags)
            if _conditions(entry.record) != usual and not flagged and record not in reported:
                reported.add(record)
                message = f"ran with {_conditions(entry.record)}, the others with {usual}"
                hint = "flag it `environment`"
                yield record, entry.problem("provenance.accelerator", message, hint)


def _conditions(run: Run) -> tuple[str, bool, int, int, str]:
    """What memory and time depend on besides the method."""
    training = run.recipe.training
    return (
        run.provenance.accelerator,
        training.gradient_checkpointing,
        training.batch_size,
        training.max_length,
        training.dtype,
    )


@rule("provenance")
def provenance(sources: Sources) -> Iterator[Finding]:
    """A run can be traced: full hashes, and the peft and torch versions that ran."""
    for record, entry in _named(sources):
        origin = entry.record.provenance
        if not _SHA256.fullmatch(origin.sha256 or ""):
            yield record, entry.problem("provenance.sha256", "is not a SHA-256 in hexadecimal")
        for name in ("commit", "peft_commit"):
            commit = getattr(origin, name)
            if commit is not None and not _COMMIT.fullmatch(commit):
                yield record, entry.problem(f"provenance.{name}", f"{commit!r} is no full commit")
        for package in ("peft", "torch"):
            if package not in origin.packages:
                place = f"provenance.packages.{package}"
                yield record, entry.problem(place, "is not on record")


RULES: Final[tuple[Rule, ...]] = (
    run_references,
    run_unique,
    run_once_in_snapshot,
    run_headline,
    plausible,
    flag_metrics,
    recipe_method,
    recipe_fields,
    variants_current,
    era_of_run,
    curve,
    same_conditions,
    provenance,
)
