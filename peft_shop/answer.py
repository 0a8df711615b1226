"""The answer as frozen records: a Recommendation and the candidates in it.

Records hold figures and reasons; what needs peft (`.config`) or a renderer is made on demand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError

from peft_shop.adapters import adapter_of_run
from peft_shop.diagnosis import problems_of
from peft_shop.errors import CatalogError, ConfigError, Problem, QueryError, UnknownNameError
from peft_shop.schema import (
    Benchmark,
    Capability,
    Failure,
    Finite,
    Metric,
    Name,
    Number,
    Query,
    Record,
    Run,
    Text,
)
from peft_shop.serving import Route, resolve_engine, route
from peft_shop.store import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    import pandas as pd
    from peft import PeftConfig
    from rich.console import Console, ConsoleOptions, RenderResult

    from peft_shop.schema import Catalog

__all__ = [
    "Baseline",
    "Candidate",
    "Difference",
    "Dominated",
    "Dropped",
    "FrontMember",
    "Recommendation",
    "Relaxation",
    "Tied",
    "Unmeasured",
]


class Candidate(Record):
    """A run as a query sees it.

    Attributes:
        name: experiment; the run's id where an experiment is there several times.
        title: method and variants for people, such as "LoRA (rsLoRA)".
        values: comparable figures by metric id, in base units.
        unusable: why a metric has no comparable figure, by metric id.
        sds: standard deviations of the noisy figures, by metric id.
        front_probability: probability of being on the front, re-run noise considered; `None`
            where it was not computed.
        configurations: how many configurations of this method the query looked at.
        pooled: number of runs behind the figures.
        notes: what was done to the figures, and the run's flags.
        routes: how it reaches the engines that the question names, by engine.
    """

    name: str
    title: Text
    method: Name
    variants: tuple[Name, ...] = ()
    run: Run
    values: dict[str, Number]
    unusable: dict[str, str] = Field(default_factory=dict)
    sds: dict[str, Finite] = Field(default_factory=dict)
    front_probability: Finite | None = None
    configurations: int = 1
    pooled: int = 1
    notes: tuple[str, ...] = ()
    routes: dict[str, Route] = Field(default_factory=dict)
    _benchmark: Benchmark | None = PrivateAttr(default=None)

    @property
    def config(self) -> PeftConfig:
        """The run's configuration as a new `PeftConfig` of the installed peft.

        Raises:
            MissingExtraError: peft is not installed.
            UnknownConfigKeyError: the installed peft does not know a key of the recipe.
        """
        from peft_shop.configs import build_config  # noqa: PLC0415 - peft only when asked for

        return build_config(self.run.recipe)

    @property
    def config_dict(self) -> dict[str, Any]:
        """The configuration as plain data: the type and the fields that differ from defaults."""
        from peft_shop.configs import config_dict  # noqa: PLC0415 - as above

        return config_dict(self.run.recipe)

    def route(self, engine: str, *, catalog: Catalog | None = None) -> Route:
        """How the run's adapter reaches `engine`, asked for in the question or not.

        Args:
            engine: its name or an alias.
            catalog: holds the facts; the embedded one by default.

        Raises:
            UnknownNameError: there is no such engine; names the nearest.
        """
        source = catalog if catalog is not None else load()
        name = resolve_engine(source, engine).id
        if catalog is None and name in self.routes:
            return self.routes[name]
        models = None if self._benchmark is None else self._benchmark.modality
        return route(source, adapter_of_run(self.run, models), name)

    @property
    def snippet(self) -> str:
        """A complete training script with the measured hyper-parameters."""
        from peft_shop.snippets import snippet  # noqa: PLC0415 - not needed for an answer

        if self._benchmark is None:
            raise ConfigError("a snippet needs the benchmark: take the candidate from an answer")
        return snippet(self.run, self._benchmark)

    def save(self, directory: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Path of the `adapter_config.json` written into `directory`, as peft writes it.

        Raises:
            ConfigError: a configuration is there already and `overwrite` is false.
            MissingExtraError: peft is not installed.
        """
        from peft_shop.configs import save_config  # noqa: PLC0415 - as above

        return save_config(self.run.recipe, Path(directory), overwrite=overwrite)


class Difference(Record):
    """Front member minus baseline, by metric id, in base units; missing where either is."""

    baseline: str
    values: dict[str, Number]


class FrontMember(Candidate):
    """A Pareto-optimal candidate.

    Attributes:
        why: what it beats and by how much, with the certainty.
        gives_up: what a neighbour on the front has that this one has not.
        versus: differences to the baselines.
        warning: why its lead may be luck, or `None`.
    """

    why: Text
    gives_up: Text
    versus: tuple[Difference, ...] = ()
    warning: Text | None = None


class Tied(Candidate):
    """A candidate that no other significantly dominates, though it is not on the front."""

    dominated_by: str
    because: Text


class Dominated(Candidate):
    """A kept candidate that a front member dominates."""

    dominated_by: str


class Unmeasured(Record):
    """A method that meets every capability constraint but has no run here."""

    method: Name
    title: Text
    summary: Text
    capabilities: dict[str, Capability]


class Dropped(Record):
    """A candidate that fails constraints; all of them are listed."""

    name: str
    title: Text
    method: Name
    variants: tuple[Name, ...] = ()
    run: Run | None = None
    failures: tuple[Failure, ...]


class Baseline(Candidate):
    """Something well known on the same benchmark, for orientation; never a candidate itself."""

    kind: Literal["lora", "full_finetuning"]


class Relaxation(Record):
    """What giving up one constraint would admit.

    Attributes:
        constraint: the option to relax.
        admits: how many candidates fail nothing else.
        example: the best of them.
        suggestion: what to write instead, in words.
    """

    constraint: str
    admits: int
    example: str
    suggestion: Text


class Recommendation(Record):
    """The answer to one query; iterating yields the front, best first.

    `front`, `ties`, `dominated`, `unmeasured` and `dropped` are disjoint and together are all
    candidates.

    Attributes:
        query: the question with every default filled in.
        benchmark: what was measured.
        metrics: the metrics of the benchmark, for units and directions.
        front: Pareto-optimal candidates, in the order of `query.rank_by`.
        ties: candidates statistically indistinguishable from the front.
        dominated: the other kept ones.
        unmeasured: methods that qualify but were never measured on this benchmark.
        dropped: the rest, with every constraint that each fails.
        baselines: plain LoRA and full fine-tuning.
        relaxations: for an empty front, which constraints to give up.
        warnings: what a reader must know before trusting the order.
        catalog_version: version of the catalog that answered.
        peft_version: version of peft that the catalog describes.
    """

    query: Query
    benchmark: Benchmark
    metrics: tuple[Metric, ...]
    front: tuple[FrontMember, ...]
    ties: tuple[Tied, ...] = ()
    dominated: tuple[Dominated, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    warnings: tuple[str, ...] = ()
    catalog_version: str
    peft_version: str

    def model_post_init(self, context: Any, /) -> None:  # noqa: ARG002 - pydantic's signature
        """Tells every candidate its benchmark, which snippets name."""
        for group in (self.front, self.ties, self.dominated, self.baselines):
            for candidate in group:
                candidate._benchmark = self.benchmark  # noqa: SLF001 - the answer owns them

    @property
    def best(self) -> FrontMember:
        """First member of the front.

        Raises:
            QueryError: the front is empty; says which constraints to relax.
        """
        if not self.front:
            advice = "; ".join(one.suggestion for one in self.relaxations)
            raise QueryError(f"nothing meets the constraints: {advice or 'nothing was measured'}")
        return self.front[0]

    def __iter__(self) -> Iterator[FrontMember]:  # type: ignore[override]  # the front, not fields
        return iter(self.front)

    def __len__(self) -> int:
        return len(self.front)

    def __bool__(self) -> bool:
        return bool(self.front)

    def __str__(self) -> str:
        from peft_shop.render import text  # noqa: PLC0415 - only when shown
        from peft_shop.views import answer_document  # noqa: PLC0415 - as above

        return text(answer_document(self), 100, colour=False)

    def __repr__(self) -> str:
        best = f", best {self.front[0].name}" if self.front else ""
        return f"<Recommendation for {self.benchmark.id}: {len(self.front)} on the front{best}>"

    def __getitem__(self, name: str | int) -> Candidate:
        """Member of the front by place, or any candidate with a run by name."""
        if isinstance(name, int):
            return self.front[name]
        # a baseline may be a candidate too, whose own record says more
        groups = (self.baselines, self.dominated, self.ties, self.front)
        found: dict[str, Candidate] = {one.name: one for group in groups for one in group}
        if name not in found:
            raise UnknownNameError("candidate", name, found, hint="dropped ones are in `.dropped`")
        return found[name]

    def to_json(self, *, indent: int | None = None) -> str:
        """The whole answer as JSON; `from_json` reads it back to an equal record."""
        return self.model_dump_json(indent=indent, exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Recommendation that `to_json` wrote.

        Raises:
            CatalogError: the text is not one; lists every mistake.
        """
        name = "recommendation"
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            problem = Problem(name, "", f"not a JSON document: {error}")
            raise CatalogError("cannot read the recommendation", [problem]) from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CatalogError(
                "cannot read the recommendation", problems_of(error, cls, data, name)
            ) from error

    def to_frame(self) -> pd.DataFrame:
        """Every candidate with a run, one a row, metrics in base units, absent as missing.

        Columns: place (`front`, `tie`, `dominated`, `dropped`, `baseline`), name, method,
        variants, front_probability, one per metric (by field, with its unit), reasons.
        """
        import pandas as pd

        from peft_shop.views import answer_records  # noqa: PLC0415 - only when shown

        return pd.DataFrame.from_records(answer_records(self))

    def _repr_html_(self) -> str:
        from peft_shop.render import html  # noqa: PLC0415 - only when shown
        from peft_shop.views import answer_document  # noqa: PLC0415 - as above

        return html(answer_document(self))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from peft_shop.render import renderables  # noqa: PLC0415 - only when shown
        from peft_shop.views import answer_document  # noqa: PLC0415 - as above

        yield from renderables(answer_document(self), width=options.max_width)
