"""Runs or methods side by side, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from peft_shop.ask.lookup import Subject
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog

__all__ = ["Comparison"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, on which evidence; printing it shows a table.

    Attributes:
        catalog: the facts.
        query: benchmark, snapshot, era and objectives.
        subjects: runs, or methods with their best runs, in the order asked for.
    """

    catalog: Catalog
    query: Query
    subjects: tuple[Subject, ...]

    def plot(self, *metrics: str, ax: Axes | None = None) -> Axes:
        """Bars of what they score and need, one picture a metric; needs `peft-shop[plot]`.

        Args:
            *metrics: the objectives by default.
            ax: where to draw, for one metric; new axes by default.

        Raises:
            MissingExtraError: matplotlib is not installed.
            UnknownNameError: the benchmark has no such metric.
        """
        from peft_shop.ask.reading import resolve_metric  # noqa: PLC0415 - only when drawn
        from peft_shop.show.plots.parts import plot_side_by_side  # noqa: PLC0415 - as above

        benchmark = self.catalog.benchmark_by_id[self.query.benchmark]
        named: Sequence[str] = metrics or self.query.objectives
        chosen = [resolve_metric(self.catalog, benchmark, name) for name in named]
        figures = [subject.contender for subject in self.subjects]
        return plot_side_by_side(self._names(), figures, chosen, ax=ax)

    def _names(self) -> list[str]:
        from peft_shop.show.naming import in_short  # noqa: PLC0415 - only when drawn

        return [in_short(self.catalog, subject.name) for subject in self.subjects]

    def __str__(self) -> str:
        from peft_shop.show.comparisons import compare_document  # noqa: PLC0415 - only when shown
        from peft_shop.show.naming import briefly  # noqa: PLC0415 - as above
        from peft_shop.show.terminal import text  # noqa: PLC0415 - as above

        document = compare_document(self.catalog, self.query, self.subjects)
        return text(briefly(self.catalog, document))

    def _repr_html_(self) -> str:
        from peft_shop.show.comparisons import compare_document  # noqa: PLC0415 - only when shown
        from peft_shop.show.markup import html  # noqa: PLC0415 - as above
        from peft_shop.show.naming import briefly  # noqa: PLC0415 - as above

        document = compare_document(self.catalog, self.query, self.subjects)
        return html(briefly(self.catalog, document))
