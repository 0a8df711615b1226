"""The answer to one question as a frozen record; renderers are loaded only when it is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from pydantic import PrivateAttr, ValidationError

from peft_shop.ask.candidates import Candidate, LiveModel
from peft_shop.ask.places import (
    Baseline,
    Dominated,
    Dropped,
    FrontMember,
    Relaxation,
    Tied,
    TooClose,
    Unmeasured,
)
from peft_shop.ask.query import Query
from peft_shop.catalog.benchmarks import Benchmark, Metric
from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.short_names import shortened
from peft_shop.catalog.store import load
from peft_shop.errors import CatalogError, ConfigError, Problem, QueryError, UnknownNameError
from peft_shop.forecast.records import NothingFits, Setup
from peft_shop.records import Record, own_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import Console, ConsoleOptions, RenderResult

    from peft_shop.ask.comparison import Comparison
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.model.inspection import Target

Section: TypeAlias = Literal["why", "ties", "left-out", "sure", "all"]
"""What stands behind the first screen."""

__all__ = ["Recommendation"]


class _Again:
    """How an answer is asked for again, and of what: goes with a record, is no part of it."""

    __slots__ = ("ask", "catalog")

    def __init__(
        self,
        ask: Callable[[], Recommendation] | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        self.ask = ask
        self.catalog = catalog

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Again)

    def __hash__(self) -> int:
        return hash(_Again)


class Recommendation(Record):
    """The answer to one query; iterating yields the front, best first.

    `front`, `ties`, `dominated`, `too_close`, `unmeasured` and `dropped` are disjoint and together
    are all candidates.

    Attributes:
        query: the question with every default filled in.
        benchmark: what was measured.
        metrics: the metrics of the benchmark, for units and directions.
        front: Pareto-optimal candidates, in the order of `query.rank_by`.
        ties: candidates statistically indistinguishable from the front.
        dominated: the other kept ones.
        too_close: measured candidates that may fit the device or may not, best score first.
        unmeasured: methods that qualify but were never measured on this benchmark.
        dropped: the rest, with every constraint that each fails.
        baselines: plain LoRA and full fine-tuning.
        relaxations: for an empty front, which constraints to give up.
        setup: training settings under which most candidates fit, with the peak of plain LoRA;
            memory is compared under them. `None` where none was looked for or nothing fits.
        nothing_fits: what to do where nothing fits.
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
    too_close: tuple[TooClose, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    setup: Setup | None = None
    nothing_fits: NothingFits | None = None
    warnings: tuple[str, ...] = ()
    catalog_version: str
    peft_version: str
    _again: _Again = PrivateAttr(default_factory=_Again)

    def model_post_init(self, context: Any, /) -> None:  # noqa: ARG002 - pydantic's signature
        """Tells every candidate its benchmark, which snippets name, and its model."""
        live = LiveModel(self.query.model)
        for candidate in self.candidates:
            candidate._benchmark = self.benchmark  # noqa: SLF001 - the answer owns them
            candidate._model = live  # noqa: SLF001 - as above
            if self.query.memory is not None:
                candidate._device = self.query.memory.text  # noqa: SLF001 - as above

    @property
    def yardstick(self) -> Baseline | None:
        """The best plain LoRA on the same benchmark; `None` where none was measured there."""
        return next((line for line in self.baselines if line.is_yardstick), None)

    @property
    def candidates(self) -> Iterator[Candidate]:
        """Every kept candidate that was measured, and the baselines."""
        for group in (self.front, self.ties, self.dominated, self.too_close, self.baselines):
            yield from group

    def about(self, target: Target) -> Self:
        """The same answer, whose candidates know the model itself besides its structure."""
        live = LiveModel(target)
        for candidate in self.candidates:
            candidate._model = live  # noqa: SLF001 - the answer owns them
        return self

    def asked_by(self, ask: Callable[[], Recommendation], catalog: Catalog | None = None) -> Self:
        """The same answer, which knows how to be asked for again, and of which catalog."""
        self._again = _Again(ask, catalog)
        return self

    @property
    def catalog(self) -> Catalog:
        """The catalog that answered; for an answer that was read from JSON, the embedded one."""
        return load() if self._again.catalog is None else self._again.catalog

    def short(self, candidate: Candidate | Dropped) -> str:
        """Short name of a candidate, such as `lora/rank64-rslora`; unique on its benchmark."""
        return (
            candidate.name
            if candidate.run is None
            else shortened(self.catalog, candidate.run, candidate.name)
        )

    def preflighted(self) -> Recommendation:
        """The answer with a preflight for every member of the front.

        What a preflight refuses cannot work on the model: the question is asked again without it,
        until all of the front works.

        Raises:
            ConfigError: the question was not about a model, or only about its structure.
        """
        recommendation: Recommendation = self
        while True:
            front = []
            for member in recommendation.front:
                try:
                    front.append(member.model_copy(update={"preflighted": member.preflight()}))
                except ConfigError:
                    if self._again.ask is None or not member.is_refused():
                        raise
                    break
            else:
                return recommendation.model_copy(update={"front": tuple(front)})
            recommendation = self._again.ask()

    @property
    def best(self) -> FrontMember:
        """First member of the front.

        Raises:
            QueryError: the front is empty; says which constraints to relax.
        """
        if not self.front and self.too_close:
            names = ", ".join(candidate.name for candidate in self.too_close[:3])
            raise QueryError(f"nothing surely fits; too close to call: {names} (`.too_close`)")
        if not self.front:
            advice = "; ".join(relaxation.suggestion for relaxation in self.relaxations)
            raise QueryError(f"nothing meets the constraints: {advice or 'nothing was measured'}")
        return self.front[0]

    def __iter__(self) -> Iterator[FrontMember]:  # type: ignore[override]  # the front, not fields
        return iter(self.front)

    def __len__(self) -> int:
        return len(self.front)

    def __dir__(self) -> list[str]:
        """Names of ours; the base class's own stay callable."""
        return own_names(self)

    def __bool__(self) -> bool:
        return bool(self.front)

    @property
    def kept(self) -> Iterator[Candidate | Unmeasured]:
        """Everything that meets every constraint, measured or not."""
        for group in (self.front, self.ties, self.dominated, self.too_close, self.unmeasured):
            yield from group

    @property
    def surely(self) -> bool | None:
        """Whether something surely fits the device; `None` where that is not to be told.

        Without a device: whether anything meets the constraints.
        """
        if self.query.fit == "off":
            return bool(self.front) or (not self.query.ranked and bool(self.unmeasured))
        setups = [candidate.setup for candidate in self.kept]
        if any(setup is not None and setup.fits == "yes" for setup in setups):
            return True
        # what is not known beside much that is known not to fit promises nothing
        return None if any(setups) or (setups and self.nothing_fits is None) else False

    def text(self, *sections: Section, width: int = 80) -> str:
        """What `peft-shop recommend` prints: the first screen, at most 25 lines.

        Args:
            *sections: what stands below it: `why`, `ties`, `left-out`, `sure`; `all` is everything
                that the answer holds, in place of the first screen.
            width: of a line [characters]; text is laid out for 60 and more.

        Raises:
            UnknownNameError: there is no such section; names the nearest.
        """
        from peft_shop.show.printing import answer_text  # noqa: PLC0415 - only when shown

        return answer_text(self, sections, width)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        best = f", best {self.front[0].name}" if self.front else ""
        return f"<Recommendation for {self.benchmark.id}: {len(self.front)} on the front{best}>"

    def __getitem__(self, name: str | int) -> Candidate:
        """Member of the front by place, or any candidate with a run by its name, short or whole."""
        if isinstance(name, int):
            return self.front[name]
        # a baseline may be a candidate too, whose own record says more
        groups = (self.baselines, self.too_close, self.dominated, self.ties, self.front)
        candidates: dict[str, Candidate] = {
            self.short(candidate): candidate for group in groups for candidate in group
        }
        candidates |= {candidate.name: candidate for group in groups for candidate in group}
        if name not in candidates:
            raise UnknownNameError(
                "candidate", name, candidates, hint="dropped ones are in `.dropped`"
            )
        return candidates[name]

    def plot(
        self,
        x: str | None = None,
        y: str | None = None,
        *,
        ax: Axes | None = None,
        ties: bool = True,
        beaten: bool = True,
        baselines: bool = True,
        labels: Literal["front", "all", "none"] = "front",
    ) -> Axes:
        """The front as a staircase, numbered as in the table; needs `peft-shop[plot]`.

        Discs are the best, the fuller the surer; rings as good within noise; dots beaten; diamonds
        plain LoRA and full fine-tuning. Whiskers are one standard deviation of a re-run, the band
        below the line is where leads do not count, dashed lines are limits of the question.

        Args:
            x: metric across; by default the second objective.
            y: metric upwards; by default the first. Without both, three objectives make a picture
                of every pair.
            ax: where to draw; new axes by default.
            ties: whether to draw what is as good within noise.
            beaten: whether to draw what is beaten.
            baselines: whether to draw plain LoRA and full fine-tuning.
            labels: whose titles are written beside them: `front`, `all` or `none`.

        Returns:
            The axes, or the first of several; `.figure.savefig(...)` writes them.

        Raises:
            MissingExtraError: matplotlib is not installed.
            UnknownNameError: the benchmark has no such metric, or there are no such labels.
        """
        from peft_shop.show.plots.answers import plot_answer  # noqa: PLC0415 - only when drawn

        return plot_answer(
            self, x, y, ax=ax, ties=ties, beaten=beaten, baselines=baselines, labels=labels
        )

    def compare(self, *names: str) -> Comparison:
        """Runs or methods side by side on the benchmark and evidence of this answer.

        Args:
            *names: of runs, methods or variants; the members of the front by default.

        Raises:
            UnknownNameError: neither a run there nor a method; names the nearest.
        """
        from peft_shop.ask.comparison import Comparison  # noqa: PLC0415 - not for an answer
        from peft_shop.ask.lookup import resolve_subjects  # noqa: PLC0415 - as above

        chosen = names or tuple(member.name for member in self.front)
        subjects = resolve_subjects(self.catalog, self.query, chosen)
        return Comparison(self.catalog, self.query, subjects)

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
        except (TypeError, ValueError, RecursionError) as error:
            problem = Problem(name, "", f"not a JSON document: {error}")
            raise CatalogError("cannot read the recommendation", [problem]) from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CatalogError(
                "cannot read the recommendation", problems_of(error, cls, data, name)
            ) from error

    def to_frame(self, *, reasons: bool = False) -> pd.DataFrame:
        """Every run of the answer, one a row, metrics in base units, absent as missing.

        Columns: place (`front`, `tie`, `too_close`, `dominated`, `dropped`, `baseline`), name,
        short_name, title, method, variants, front_probability, one per metric (by field, with its
        unit), `<metric>_sd` where it has noise, serving (`direct`, `convert`, `merge`, `none`,
        `unknown`), yardstick (`lora`, `full_finetuning`), and with a device the setup and whether
        it fits. Columns without any value are left out.

        Args:
            reasons: add a column of prose: why each stands where it stands.
        """
        import pandas as pd

        from peft_shop.show.answer_records import frame_records  # noqa: PLC0415 - only when shown

        return pd.DataFrame.from_records(frame_records(self, reasons=reasons))

    def _repr_html_(self) -> str:
        from peft_shop.show.cards import answer_html  # noqa: PLC0415 - only when shown

        return answer_html(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from peft_shop.show.printing import screen_lines  # noqa: PLC0415 - only when shown
        from peft_shop.show.terminal import rich_lines  # noqa: PLC0415 - only when shown

        yield rich_lines(screen_lines(self, options.max_width))
