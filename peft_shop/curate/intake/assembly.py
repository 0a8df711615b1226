"""One checked result -> one run: method, variants, era, flags, provenance."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.methods import Curated
from peft_shop.catalog.runs import Flag, Provenance, Run
from peft_shop.curate.intake.layouts import SUITE, SUITE_SOURCE
from peft_shop.curate.intake.plausibility import implausible
from peft_shop.curate.intake.recipes import (
    changed_texts,
    deviations,
    peft_types,
    read_recipe,
    recognised,
)
from peft_shop.curate.intake.sheets import is_finite, kind_of, parse
from peft_shop.errors import CatalogError, InputError, Problem, nearest_names
from peft_shop.upstream.versions import version_key

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.methods import Variant
    from peft_shop.catalog.runs import Recipe
    from peft_shop.curate.intake.conventions import Conventions
    from peft_shop.curate.intake.layouts import Layout, ResultFile
    from peft_shop.curate.intake.results import Result

__all__ = ["Assembler", "era_of", "read_variants"]

_EXPERIMENT_FILE: Final = "adapter_config.json"


def read_variants(catalog: Path) -> dict[str, tuple[Variant, ...]]:
    """Variants by method, from `catalog/curated/*.toml`; empty where there is no such folder.

    Raises:
        CatalogError: a file breaks its format; all mistakes.
    """
    problems: list[Problem] = []
    variants: dict[str, tuple[Variant, ...]] = {}
    for path in sorted((catalog / "curated").glob("*.toml")):
        table: dict[str, Any] = {}
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            variants[path.stem] = Curated.model_validate(table).variants
        except OSError as error:
            problems.append(Problem(str(path), "", (error.strerror or "cannot be read").lower()))
        except ValidationError as error:
            problems += problems_of(error, Curated, table, str(path))
        except ValueError as error:
            problems.append(Problem(str(path), "", f"not TOML: {error}"))
    if problems:
        raise CatalogError("the curated catalog cannot be read:", problems)
    return variants


def era_of(benchmark: Benchmark, transformers: str) -> str | None:
    """Era of a benchmark that a run with this version of transformers belongs to.

    `None` where the benchmark has none, or the version cannot be read.
    """
    try:
        version = version_key(transformers)
    except InputError:
        return None
    for era in benchmark.eras:
        if era.transformers_below is None or version < version_key(era.transformers_below):
            return era.id
    return None


class Assembler:
    """Makes runs from results, by the conventions of the data folder and the catalog's variants."""

    def __init__(self, conventions: Conventions, catalog: Path) -> None:
        self.conventions = conventions
        self.variants = read_variants(catalog)
        self.methods = set(self.variants) or {name.lower() for name in peft_types()}

    def run(
        self, result: Result, layout: Layout
    ) -> tuple[Run | None, list[Problem], list[Problem]]:
        """The run, mistakes and notes; no run where this or the reading found a mistake."""
        experiment, problems = self._experiment(result, layout)
        recipe, mistakes, notes = read_recipe(result, experiment, self.conventions)
        problems += mistakes
        if recipe is not None:
            problems += implausible(result, recipe, self.conventions)
        if recipe is None or problems:
            return None, problems, notes
        method = FULL_FINETUNING if recipe.peft_type is None else recipe.peft_type.lower()
        if method != FULL_FINETUNING and method not in self.methods:
            near = nearest_names(method, self.methods)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            message = f"the catalog has no method {method!r}"
            place = "run_info.peft_config.peft_type"
            return None, [Problem(str(result.origin.path), place, message, hint)], notes
        if not result.sound:
            return None, [], notes
        benchmark = result.benchmark
        era = era_of(benchmark, result.packages["transformers"])
        if benchmark.eras and era is None:
            message = f"cannot read the version {result.packages['transformers']!r}"
            place = "meta_info.package_info.transformers-version"
            return None, [Problem(str(result.origin.path), place, message)], notes
        run = Run(
            benchmark=benchmark.id,
            experiment=result.experiment,
            created_at=result.created_at,
            method=method,
            variants=recognised(recipe, self.variants.get(method, ())),
            era=era,
            snapshots=tuple(sorted(result.origin.snapshots)),
            metrics=dict(sorted(result.metrics.items())),
            curve=result.curve,
            recipe=recipe,
            flags=self._flags(result),
            provenance=self._provenance(result, recipe),
        )
        return run, [], notes

    def _experiment(
        self, result: Result, layout: Layout
    ) -> tuple[dict[str, Any] | None, list[Problem]]:
        """The configuration file that the run was started from, where it is on record."""
        folder = layout.experiments.get(result.origin.task or "")
        if folder is None:
            return None, []
        path = folder / result.experiment / _EXPERIMENT_FILE
        if not path.is_file():
            return None, []
        try:
            value, problem = parse(path.read_bytes(), str(path))
        except OSError as error:
            return None, [Problem(str(path), "", (error.strerror or "cannot be read").lower())]
        if problem is None and not isinstance(value, dict):
            problem = Problem(str(path), "", f"expected an object, got {kind_of(value)}")
        if problem is None and not is_finite(value):
            problem = Problem(str(path), "", "holds a number that is not finite")
        return (None, [problem]) if problem is not None else (value, [])

    def _flags(self, result: Result) -> tuple[Flag, ...]:
        """Flags set by people, then those that the result itself gives reason for."""
        name = result.benchmark.id
        flags = [
            rule.flag(result.metrics)
            for rule in self.conventions.rules.flags
            if rule.applies(name, result.experiment, result.created_at)
        ]
        if result.sentinels:
            stand_ins = self.conventions.rules.sentinels
            listed = ", ".join(f"{field} = {stand_ins[field]}" for field in result.sentinels)
            reason = f"The suite wrote a stand-in where it could not measure ({listed}); removed."
            flags.append(Flag(code="sentinel", metrics=result.sentinels, reason=reason))
        environment = self._environment(result)
        return (*flags, environment) if environment is not None else tuple(flags)

    def _environment(self, result: Result) -> Flag | None:
        """Flag for a run on other hardware or under other settings than the reference."""
        name = result.benchmark.id
        rules = self.conventions.rules.benchmarks[name]
        reasons = []
        if result.accelerator != rules.accelerator:
            reasons.append(f"accelerator {result.accelerator} instead of {rules.accelerator}")
        names = dict.fromkeys((*rules.cost, *rules.score))
        reasons += [
            f"{rules.words.get(setting, setting)} {_shown(found)} instead of {_shown(reference)}"
            for setting, found, reference in deviations(result, rules, names)
        ]
        texts = changed_texts(result, rules)
        reasons += [f"another {setting}" for setting in texts]
        if not reasons:
            return None
        whole = bool(texts or deviations(result, rules, rules.score))
        costs = self.conventions.fields_of(name, "memory", "time")
        concerned = () if whole else tuple(field for field in costs if field in result.metrics)
        what = "Nothing" if whole else "Memory and time"
        reason = f"{what} of this run can be compared with the others: {'; '.join(reasons)}."
        if not whole:
            reason = f"{what} cannot be compared with the other runs: {'; '.join(reasons)}."
        return Flag(code="environment", metrics=concerned, reason=reason)

    def _provenance(self, result: Result, recipe: Recipe) -> Provenance:
        origin = self.place(result)
        forgetting = next(
            (
                rule.field
                for rule in self.conventions.rules.metrics
                if rule.key == "forgetting" and rule.applies(result.benchmark.id, result.created_at)
            ),
            None,
        )
        return Provenance(
            source=origin.source,
            commit=origin.commit,
            file=origin.file,
            sha256=result.sha256,
            packages=dict(sorted(result.packages.items())),
            peft_commit=result.peft_commit,
            peft_branch=result.peft_branch,
            worktree_dirty=result.worktree_dirty,
            accelerator=result.accelerator,
            platform=result.platform,
            seed=recipe.training.seed,
            model_revision=result.model_revision,
            forgetting_definition=forgetting,
        )

    def place(self, result: Result) -> ResultFile:
        """Where the file was taken from: the benchmark's own source, where it has one."""
        origin = result.origin
        rules = self.conventions.rules.benchmarks[result.benchmark.id]
        if rules.source is None or origin.source != SUITE_SOURCE:
            return origin
        named = f"{SUITE}/{self.conventions.folder_of(result.benchmark.id)}/"
        return replace(
            origin,
            source=rules.source,
            commit=origin.commit or self.conventions.sources[rules.source].commit,
            file=origin.file.replace(f"{SUITE}/{origin.task}/", named, 1),
        )


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
