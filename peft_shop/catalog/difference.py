"""What changed for a user from one catalog to another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.pareto import front

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Conversion, Engine
    from peft_shop.catalog.methods import Capability, Fidelity
    from peft_shop.catalog.runs import Run
    from peft_shop.catalog.trainers import Trainer

__all__ = [
    "CapabilityChange",
    "CatalogDifference",
    "FrontChange",
    "RecordChange",
    "RunChange",
    "ValueChange",
    "default_front",
    "diff",
]


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One value before and after; `None` where there was or is none."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class CapabilityChange:
    """A capability whose support or level of evidence changed.

    Attributes:
        variant: `None` where the method itself changed.
        old: support and level, such as `("yes", "trained")`; `None` where there was no entry.
    """

    method: str
    variant: str | None
    feature: str
    old: tuple[str, str] | None
    new: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class RecordChange:
    """An engine, a conversion or a fidelity on both sides that says something else."""

    name: str
    changes: tuple[ValueChange, ...]


@dataclass(frozen=True, slots=True)
class RunChange:
    """A run on both sides with other figures, another recipe, other flags, ..."""

    benchmark: str
    run: str
    changes: tuple[ValueChange, ...]


@dataclass(frozen=True, slots=True)
class FrontChange:
    """How the front of the default objectives changed on a benchmark's newest snapshot.

    Attributes:
        snapshots: newest snapshot before and after; `None` where there is none.
        entered: experiments that are on the front now.
        left: experiments that were on it.
        stayed: experiments that were and are on it.
    """

    benchmark: str
    snapshots: tuple[str | None, str | None]
    entered: tuple[str, ...]
    left: tuple[str, ...]
    stayed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CatalogDifference:
    """Everything that changed for a user; empty where nothing did.

    Attributes:
        versions: schema, catalog and peft versions that changed.
        methods_added: identifiers; `methods_removed` likewise.
        variants_added: `method/variant`; `variants_removed` likewise, of methods on both sides.
        fidelities_changed: by `method` or `method/variant`, of methods on both sides.
        engines_changed: what they load, what they ask of ranks, the version looked at; words
            that explain it are left out. `trainers_changed` likewise.
        conversions_added: `way:method:trait`; `conversions_removed` likewise.
        runs_added: `benchmark:experiment@created_at`; `runs_removed` likewise.
    """

    versions: tuple[ValueChange, ...] = ()
    methods_added: tuple[str, ...] = ()
    methods_removed: tuple[str, ...] = ()
    variants_added: tuple[str, ...] = ()
    variants_removed: tuple[str, ...] = ()
    capabilities: tuple[CapabilityChange, ...] = ()
    fidelities_changed: tuple[RecordChange, ...] = ()
    engines_added: tuple[str, ...] = ()
    engines_removed: tuple[str, ...] = ()
    engines_changed: tuple[RecordChange, ...] = ()
    conversions_added: tuple[str, ...] = ()
    conversions_removed: tuple[str, ...] = ()
    conversions_changed: tuple[RecordChange, ...] = ()
    trainers_added: tuple[str, ...] = ()
    trainers_removed: tuple[str, ...] = ()
    trainers_changed: tuple[RecordChange, ...] = ()
    benchmarks_added: tuple[str, ...] = ()
    benchmarks_removed: tuple[str, ...] = ()
    metrics_added: tuple[str, ...] = ()
    metrics_removed: tuple[str, ...] = ()
    snapshots_added: tuple[str, ...] = ()
    snapshots_removed: tuple[str, ...] = ()
    runs_added: tuple[str, ...] = ()
    runs_removed: tuple[str, ...] = ()
    runs_changed: tuple[RunChange, ...] = ()
    fronts: tuple[FrontChange, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed for a user."""
        return not any(getattr(self, field.name) for field in fields(self))


def diff(old: Catalog, new: Catalog) -> CatalogDifference:
    """What a user of `old` meets in `new`."""
    runs = {
        side: {(run.benchmark, run.id): run for run in catalog.runs}
        for side, catalog in (("old", old), ("new", new))
    }
    both = sorted(set(old.method_by_id) & set(new.method_by_id))
    variants = {
        side: {f"{m}/{v.id}" for m in both for v in catalog.method_by_id[m].variants}
        for side, catalog in (("old", old), ("new", new))
    }
    conversions = {
        side: {
            _conversion_name(conversion): _conversion(conversion)
            for conversion in catalog.conversions
        }
        for side, catalog in (("old", old), ("new", new))
    }
    return CatalogDifference(
        versions=tuple(
            ValueChange(name, getattr(old, name), getattr(new, name))
            for name in ("schema_version", "catalog_version", "peft_version")
            if getattr(old, name) != getattr(new, name)
        ),
        methods_added=_only(new.method_by_id, old.method_by_id),
        methods_removed=_only(old.method_by_id, new.method_by_id),
        variants_added=_only(variants["new"], variants["old"]),
        variants_removed=_only(variants["old"], variants["new"]),
        capabilities=tuple(_capability_changes(old, new, both)),
        fidelities_changed=tuple(_fidelity_changes(old, new, both)),
        engines_added=_only(new.engine_by_id, old.engine_by_id),
        engines_removed=_only(old.engine_by_id, new.engine_by_id),
        engines_changed=tuple(
            _record_changes(
                {name: _engine(engine) for name, engine in old.engine_by_id.items()},
                {name: _engine(engine) for name, engine in new.engine_by_id.items()},
            )
        ),
        conversions_added=_only(conversions["new"], conversions["old"]),
        conversions_removed=_only(conversions["old"], conversions["new"]),
        conversions_changed=tuple(_record_changes(conversions["old"], conversions["new"])),
        trainers_added=_only(new.trainer_by_id, old.trainer_by_id),
        trainers_removed=_only(old.trainer_by_id, new.trainer_by_id),
        trainers_changed=tuple(
            _record_changes(
                {name: _trainer(trainer) for name, trainer in old.trainer_by_id.items()},
                {name: _trainer(trainer) for name, trainer in new.trainer_by_id.items()},
            )
        ),
        benchmarks_added=_only(new.benchmark_by_id, old.benchmark_by_id),
        benchmarks_removed=_only(old.benchmark_by_id, new.benchmark_by_id),
        metrics_added=_only(new.metric_by_id, old.metric_by_id),
        metrics_removed=_only(old.metric_by_id, new.metric_by_id),
        snapshots_added=_only((s.id for s in new.snapshots), [s.id for s in old.snapshots]),
        snapshots_removed=_only((s.id for s in old.snapshots), [s.id for s in new.snapshots]),
        runs_added=_only(map(":".join, runs["new"]), list(map(":".join, runs["old"]))),
        runs_removed=_only(map(":".join, runs["old"]), list(map(":".join, runs["new"]))),
        runs_changed=tuple(_run_changes(runs["old"], runs["new"])),
        fronts=tuple(_front_changes(old, new)),
    )


def default_front(catalog: Catalog, benchmark: str) -> tuple[str | None, tuple[str, ...]]:
    """Newest snapshot of a benchmark and the experiments on its front, by name.

    The objectives are those that its questions have by default; runs below the floor, flagged runs
    and full fine-tuning are left out, as an unrestricted question does.
    """
    about = catalog.benchmark_by_id[benchmark]
    runs = catalog.runs_by_benchmark[benchmark]
    used = {name for run in runs for name in run.snapshots}
    dated = [(snap.date, snap.id) for snap in catalog.snapshots if snap.id in used]
    snapshot = max(dated)[1] if dated else None
    headline = catalog.metric_by_id[about.headline]
    objectives = [catalog.metric_by_id[name] for name in about.default_objectives]
    candidates = [
        run
        for run in runs
        if (snapshot is None or snapshot in run.snapshots)
        and _ranked(run, about, {headline.field, *(metric.field for metric in objectives)})
        and run.metrics[headline.field] >= about.floor
    ]
    costs = [
        [
            run.metrics[metric.field] * (1 if metric.better == "lower" else -1)
            for metric in objectives
        ]
        for run in candidates
    ]
    return snapshot, tuple(sorted({candidates[index].experiment for index in front(costs)}))


def _ranked(run: Run, benchmark: Benchmark, objectives: set[str]) -> bool:
    """Whether a run can stand on a front of `objectives` without being asked for."""
    newest = benchmark.eras[-1].id if benchmark.eras else None
    unfit = any(
        flag.code in {"broken_config", "artefact"}
        or not flag.metrics
        or objectives & set(flag.metrics)
        for flag in run.flags
    )
    measured = objectives <= set(run.metrics)
    return run.method != FULL_FINETUNING and run.era == newest and measured and not unfit


def _only(these: Iterable[str], not_these: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(these) - set(not_these)))


def _capability_changes(
    old: Catalog, new: Catalog, methods: Iterable[str]
) -> Iterator[CapabilityChange]:
    features = dict.fromkeys(feature.id for catalog in (old, new) for feature in catalog.features)
    for method in methods:
        before, after = old.method_by_id[method], new.method_by_id[method]
        sides: list[tuple[str | None, dict[str, Capability], dict[str, Capability]]]
        sides = [(None, before.capabilities, after.capabilities)]
        known = {variant.id: variant.capabilities for variant in before.variants}
        sides += [
            (variant.id, known[variant.id], variant.capabilities)
            for variant in after.variants
            if variant.id in known
        ]
        for variant, was, now in sides:
            for feature in features:
                pair = _level(was.get(feature)), _level(now.get(feature))
                if pair[0] != pair[1]:
                    yield CapabilityChange(method, variant, feature, *pair)


def _level(capability: Capability | None) -> tuple[str, str] | None:
    return None if capability is None else (capability.support, capability.level)


def _fidelity_changes(old: Catalog, new: Catalog, methods: Iterable[str]) -> Iterator[RecordChange]:
    """Of methods and variants, a variant without one of its own being as its method."""
    sides: list[dict[str, dict[str, Any]]] = []
    for catalog in (old, new):
        found: dict[str, dict[str, Any]] = {}
        for name in methods:
            method = catalog.method_by_id[name]
            found[name] = _fidelity(method.fidelity)
            for variant in method.variants:
                if variant.fidelity is not None:
                    found[f"{name}/{variant.id}"] = _fidelity(variant.fidelity)
        sides.append(found)
    before, after = sides
    for name in {*before} ^ {*after}:
        for side in sides:  # of one of them it has no fidelity of its own
            side.setdefault(name, side[name.partition("/")[0]])
    yield from _record_changes(before, after)


def _fidelity(fidelity: Fidelity | None) -> dict[str, Any]:
    return {} if fidelity is None else fidelity.model_dump(mode="json", exclude={"grid"})


def _engine(engine: Engine) -> dict[str, Any]:
    """What an engine does, flat, without the words that explain it."""
    flat: dict[str, Any] = {
        "version": engine.version,
        "models": list(engine.models),
        "whole_alpha": engine.whole_alpha,
    }
    for topic, fact in engine.facts.items():
        layout = "" if fact.layout == "peft" else f" ({fact.layout})"
        flat[topic] = f"{fact.value}{layout}" + (" if arranged for" if fact.needs else "")
    for kind, fact in engine.kinds.items():
        flat[f"base: {kind}"] = fact.value + (" if arranged for" if fact.needs else "")
    for group in engine.architectures:
        classes = f"classes: {group.value}"
        flat[classes] = flat.get(classes, 0) + len(group.names)
    for rule in engine.rules:
        about = " ".join([rule.when, *rule.names[:3]])
        flat[f"where: {about}"] = rule.value + (" if arranged for" if rule.needs else "")
    ranks = engine.ranks.model_dump(mode="json", exclude={"note", "source"}, exclude_defaults=True)
    return flat | {f"ranks.{name}": value for name, value in ranks.items()}


def _trainer(trainer: Trainer) -> dict[str, Any]:
    """What a trainer takes and how it is asked, flat, without the words that explain it."""
    flat: dict[str, Any] = {
        "version": trainer.version,
        "models": list(trainer.models),
        "file": trainer.file,
    }
    flat["retired"] = trainer.retired is not None
    for topic, fact in trainer.facts.items():
        flat[topic] = fact.value + (" if arranged for" if fact.needs else "")
    for rule in trainer.rules:
        about = " ".join([rule.when, *rule.topics[:3]])
        flat[f"where: {about}"] = rule.value + (" if arranged for" if rule.needs else "")
    flat |= {f"default: {name}": value for name, value in trainer.defaults.items()}
    return flat | {f"key: {name}": value for name, value in trainer.keys.items()}


def _conversion_name(conversion: Conversion) -> str:
    return ":".join([conversion.way, conversion.method or "any", *conversion.traits])


def _conversion(conversion: Conversion) -> dict[str, Any]:
    kept = {"verdict", "rank", "defaults", "initial_model", "level"}
    return conversion.model_dump(mode="json", include=kept)


def _record_changes(
    old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]
) -> Iterator[RecordChange]:
    for name in sorted(set(old) & set(new)):
        before, after = old[name], new[name]
        changes = tuple(
            ValueChange(key, before.get(key), after.get(key))
            for key in sorted(set(before) | set(after))
            if before.get(key) != after.get(key)
        )
        if changes:
            yield RecordChange(name, changes)


def _run_changes(
    old: dict[tuple[str, str], Run], new: dict[tuple[str, str], Run]
) -> Iterator[RunChange]:
    for key in sorted(set(old) & set(new)):
        before, after = _flat(old[key]), _flat(new[key])
        changes = tuple(
            ValueChange(name, before.get(name), after.get(name))
            for name in sorted(set(before) | set(after))
            if before.get(name) != after.get(name)
        )
        if changes:
            yield RunChange(*key, changes)


def _flat(run: Run) -> dict[str, Any]:
    """A run's members, those of its metrics, recipe and provenance by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in run.model_dump(mode="json").items():
        nested = name in {"metrics", "recipe", "provenance"}
        flat |= {f"{name}.{key}": item for key, item in value.items()} if nested else {name: value}
    return flat


def _front_changes(old: Catalog, new: Catalog) -> Iterator[FrontChange]:
    for benchmark in sorted(set(old.benchmark_by_id) & set(new.benchmark_by_id)):
        snapshot_before, before = default_front(old, benchmark)
        snapshot_after, after = default_front(new, benchmark)
        if (snapshot_before, before) != (snapshot_after, after):
            yield FrontChange(
                benchmark,
                (snapshot_before, snapshot_after),
                entered=_only(after, before),
                left=_only(before, after),
                stayed=tuple(sorted(set(before) & set(after))),
            )
