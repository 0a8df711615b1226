"""Sources -> the one catalog file, byte for byte the same from the same sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.catalog import SCHEMA_VERSION, Catalog
from peft_shop.catalog.export import dump
from peft_shop.catalog.features import FEATURE_IDS, FEATURES
from peft_shop.catalog.methods import Capability, Method, Variant
from peft_shop.catalog.store import CATALOG_RESOURCE
from peft_shop.catalog.tried import TriedModel
from peft_shop.curate.publish.names import MODULE, names_module
from peft_shop.curate.sources.rules import broken
from peft_shop.curate.sources.sources import read_sources
from peft_shop.errors import CatalogError
from peft_shop.files import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.methods import Curated, Fidelity, Observation
    from peft_shop.catalog.runs import Run
    from peft_shop.curate.calibration.counting import Computed
    from peft_shop.curate.sources.sources import Entry, MethodHistory, Sources

__all__ = ["ARTIFACT", "compile_catalog", "dump", "outputs", "write"]

ARTIFACT: Final = Path(__file__).parents[2] / CATALOG_RESOURCE
"""The committed catalog, which comes with the package."""
_COUNTED: Final = "trainable_parameters"


def compile_catalog(catalog: Path, data: Path) -> Catalog:
    """The catalog that the sources in the folders `catalog` and `data` make.

    Raises:
        CatalogError: a file breaks its format, or records contradict each other in a way that
            readers rely on; lists every mistake.
    """
    sources = read_sources(catalog, data)
    problems = [violation.problem for violation in broken(sources, integrity=True)]
    if problems:
        raise CatalogError("the catalog's sources contradict each other", problems)
    order = {entry.record.id: place for place, entry in enumerate(sources.benchmarks)}
    runs = sorted(
        (_run(entry.record, sources.computed) for entry in sources.runs),
        key=lambda run: (order[run.benchmark], run.experiment, run.created_at),
    )
    return Catalog(
        schema_version=SCHEMA_VERSION,
        catalog_version=sources.version,
        peft_version=_peft_version(sources),
        files=sources.files,
        features=FEATURES,
        metrics=tuple(entry.record for entry in sources.metrics),
        benchmarks=tuple(entry.record for entry in sources.benchmarks),
        sources=tuple(entry.record for entry in sources.sources),
        snapshots=tuple(
            sorted((e.record for e in sources.snapshots), key=lambda snap: (snap.date, snap.id))
        ),
        methods=tuple(_method(method, sources) for method in sorted(sources.curated)),
        runs=tuple(runs),
        # the runs behind an estimate would be a tenth of the file; `data/noise.json` has them
        noise=tuple(entry.record.model_copy(update={"runs": ()}) for entry in sources.noise),
        era_shifts=tuple(entry.record for entry in sources.era_shifts),
        engines=tuple(sources.engines[name].record for name in sorted(sources.engines)),
        conversions=tuple(entry.record for entry in sources.conversions),
        trainers=tuple(sources.trainers[name].record for name in sorted(sources.trainers)),
        forecasts=sources.forecasts,
        tried=tuple(_tried(sources)),
    )


def _tried(sources: Sources) -> Iterator[TriedModel]:
    """What came of every method on each tiny model, without the reasons that adapting tells."""
    if sources.readiness is None:
        return
    matrix = sources.readiness.record
    for name, findings in sorted(matrix.architectures.items()):
        cells = {method: matrix.cells(name)[method] for method in matrix.methods}
        yield TriedModel(
            architecture=findings.class_name,
            title=findings.title,
            refused=tuple(m for m, cell in cells.items() if cell.status == "refused"),
            failed={
                m: "; ".join(cell.reasons) for m, cell in cells.items() if cell.status == "failed"
            },
        )


def outputs(catalog: Catalog, path: Path = ARTIFACT) -> dict[Path, bytes]:
    """Files that compiling to `path` writes; the package's own come with the names for editors."""
    files = {path: dump(catalog)}
    if path == ARTIFACT:
        files[MODULE] = names_module(catalog)
    return files


def write(catalog: Catalog, path: Path = ARTIFACT) -> bool:
    """Writes `outputs`, all or nothing; says whether anything changed."""
    return bool(write_all(outputs(catalog, path)))


def _peft_version(sources: Sources) -> str:
    """The peft version of the observations; the rule `one-peft` has seen that it is one."""
    found = {
        environment.peft
        for entry in sources.observed.values()
        for environment in entry.record.environments.values()
    }
    if not found:
        raise CatalogError("no method was ever probed; run: peft-shop catalog probe")
    return found.pop()


def _run(run: Run, known: Entry[Computed] | None) -> Run:
    """The run without its validation curve, a hash that its commit makes superfluous, and noise.

    No answer needs them, and they do not compress: together they would be a fifth of the file's
    gzipped budget. They stay in `data/runs`, whose own hashes are in the catalog. Times are told
    to the millisecond: the digits of the clock beyond it are a thousandth of their noise. What was
    computed where a run recorded nothing is added, and marked.
    """
    metrics = {
        name: round(value, 3) if name.endswith("_seconds") else value
        for name, value in run.metrics.items()
    }
    computed: dict[str, str] = {}
    if known is not None and _COUNTED not in metrics:
        count = known.record.trainable_parameters.get(run.benchmark, {}).get(run.id)
        if count is not None:
            metrics[_COUNTED], computed[_COUNTED] = count, known.record.by
    provenance = run.provenance
    if provenance.commit is not None:
        provenance = provenance.model_copy(update={"sha256": None})
    update = {"provenance": provenance, "curve": None, "metrics": metrics, "computed": computed}
    return run.model_copy(update=update)


def _method(method: str, sources: Sources) -> Method:
    curated = sources.curated[method].record
    observed = sources.observed[method].record
    history = sources.history.record.methods.get(method) if sources.history else None
    return Method(
        id=method,
        peft_type=curated.peft_type,
        config_class=curated.config_class,
        title=curated.title,
        summary=curated.summary,
        family=curated.family,
        category=observed.category,
        task_types=curated.task_types,
        paper=curated.paper,
        aliases=curated.aliases,
        notes=curated.notes,
        prompt=curated.prompt,
        loop_needs=curated.loop_needs,
        own_loss=curated.own_loss,
        allocates=curated.allocates,
        capabilities={feature: _capability(feature, curated, observed) for feature in FEATURE_IDS},
        environments=dict(sorted(observed.environments.items())),
        options=observed.options,
        requires=observed.requires,
        initialisation=observed.initialisation,
        inference=observed.inference,
        fidelity=_fidelity(observed.fidelity),
        variants=tuple(_variant(variant, observed, history) for variant in curated.variants),
        since=history.since if history else None,
        fields=dict(sorted(history.fields.items())) if history else {},
    )


def _capability(feature: str, curated: Curated, observed: Observation) -> Capability:
    """What was observed, or what a curator decided instead."""
    seen = observed.capabilities[feature]
    override = curated.overrides.get(feature)
    if override is None:
        return seen
    return Capability(
        support=override.support,
        level="declared",
        note=override.because,
        source="curated",
        environment=seen.environment,
    )


def _variant(variant: Variant, observed: Observation, history: MethodHistory | None) -> Variant:
    """The curated variant with what the probe and the wheels say of it."""
    found = observed.variants.get(variant.id)
    differences = found.capabilities if found else {}
    return variant.model_copy(
        update={
            "capabilities": {
                feature: differences[feature] for feature in FEATURE_IDS if feature in differences
            },
            "fidelity": _fidelity(found.fidelity) if found else None,
            "since": history.variants.get(variant.id) if history else None,
        }
    )


def _fidelity(found: Fidelity | None) -> Fidelity | None:
    """What was measured, without the grid: rules were checked against it, and stand for it."""
    return None if found is None else found.model_copy(update={"grid": ()})
