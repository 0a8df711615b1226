"""The front of an answer as a staircase, with all that stands on it and behind it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from peft_shop.ask.places import Baseline
from peft_shop.ask.reading import resolve_metric
from peft_shop.ask.spread import between, factor
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.pareto import front as front_of
from peft_shop.show.overview import objectives_of
from peft_shop.show.plots.canvas import COLOURS, axes_for, plain, scale_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.show.plots.canvas import Scale

__all__ = ["Labels", "plot_answer", "staircase"]

Labels: TypeAlias = Literal["front", "all", "none"]
Point: TypeAlias = tuple[float, float]

_MARGIN: Final = 0.12
_FAINTEST: Final = 0.25
_LABELS: Final = ("front", "all", "none")


def plot_answer(
    recommendation: Recommendation,
    x: str | None = None,
    y: str | None = None,
    *,
    ax: Axes | None = None,
    ties: bool = True,
    beaten: bool = True,
    baselines: bool = True,
    labels: Labels = "front",
) -> Axes:
    """See `Recommendation.plot`."""
    if labels not in _LABELS:
        raise UnknownNameError("kind of labels", str(labels), _LABELS, keyword="labels")
    pairs = _pairs(recommendation, x, y)
    drawn = axes_for(ax, len(pairs), "a plot of the answer")
    for one, (across, up) in zip(drawn, pairs, strict=True):
        _Plot(recommendation, one, across, up).draw(
            ties=ties, beaten=beaten, baselines=baselines, labels=labels
        )
    return drawn[0]


def _pairs(
    recommendation: Recommendation, x: str | None, y: str | None
) -> list[tuple[Metric, Metric]]:
    """What stands against what: the first objective up, the next across; of three, every pair."""
    objectives = objectives_of(recommendation)
    catalog, benchmark = recommendation.catalog, recommendation.benchmark
    up = resolve_metric(catalog, benchmark, y, keyword="y") if y is not None else None
    across = resolve_metric(catalog, benchmark, x, keyword="x") if x is not None else None
    if up is None and across is None and len(objectives) > 2:
        return [(second, first) for first, second in combinations(objectives[:3], 2)]
    rest = [metric for metric in objectives if metric not in (up, across)]
    by_id = {metric.id: metric for metric in recommendation.metrics}
    usual = [by_id[name] for name in (benchmark.headline, "peak_memory") if name in by_id]
    rest += [metric for metric in usual if metric not in (*rest, up, across)]
    up = up or rest.pop(0)
    across = across or rest.pop(0)
    if up == across:
        raise QueryError(f"{up.id} cannot stand against itself", keyword="x")
    return [(across, up)]


def staircase(points: Sequence[Point], corner: Point) -> list[Point]:
    """Corners of the line between what is attained and what is not.

    Args:
        points: of a front, in the order of the first coordinate, best first, so that the second
            gets better.
        corner: far end of both axes on their worse sides, where the line starts and ends.
    """
    if not points:
        return []
    line = [(points[0][0], corner[1])]
    for place, (across, up) in enumerate(points):
        line.append((across, up))
        following = points[place + 1][0] if place + 1 < len(points) else corner[0]
        line.append((following, up))
    return line


class _Plot:
    """One pair of metrics on one pair of axes."""

    def __init__(
        self, recommendation: Recommendation, ax: Axes, across: Metric, up: Metric
    ) -> None:
        self.answer, self.ax, self.across, self.up = recommendation, ax, across, up
        self.kept = [
            candidate
            for group in (recommendation.front, recommendation.ties, recommendation.dominated)
            for candidate in group
            if across.id in candidate.values and up.id in candidate.values
        ]
        shown = [*self.kept, *recommendation.baselines]
        self.scales: tuple[Scale, Scale] = (
            scale_of(
                across,
                [
                    candidate.values[across.id]
                    for candidate in shown
                    if across.id in candidate.values
                ],
            ),
            scale_of(
                up, [candidate.values[up.id] for candidate in shown if up.id in candidate.values]
            ),
        )

    def draw(self, *, ties: bool, beaten: bool, baselines: bool, labels: Labels) -> None:
        answer, ax = self.answer, self.ax
        front = self._known(answer.front)
        tied = self._known(answer.ties) if ties else []
        behind = self._known(answer.dominated) if beaten else []
        yardsticks = self._known(answer.baselines) if baselines else []
        focus = [self._at(one) for one in (*front, *tied)] or [
            self._at(one) for one in (*behind, *yardsticks)
        ]
        plain_lora = [self._at(yardstick) for yardstick in yardsticks if _is_plain(yardstick)]
        limits = self._window([*focus, *plain_lora])
        self._stairs(limits)
        self._scatter(behind, limits, "beaten")
        self._scatter(tied, limits, "tie")
        self._yardsticks(yardsticks, limits)
        self._members(front, labels)
        self._replicates([*front, *tied, *behind], limits)
        if labels == "all":
            for candidate in tied:
                self._name(candidate.title, self._at(candidate))
        self._bounds(limits)
        self._outside([*behind, *tied, *yardsticks], limits)
        ax.set_xlim(*limits[0])
        ax.set_ylim(*limits[1])
        ax.set_xlabel(self.scales[0].title)
        ax.set_ylabel(self.scales[1].title)
        if not focus:
            ax.text(0.5, 0.5, "nothing meets the constraints", transform=ax.transAxes, ha="center")
        handles, _ = ax.get_legend_handles_labels()
        if handles:
            ax.legend(loc="lower right", fontsize=8, framealpha=0.9, edgecolor="none")

    # --- places ---

    def _known(self, several: Sequence[Candidate]) -> list[Candidate]:
        return [
            candidate
            for candidate in several
            if {self.across.id, self.up.id} <= set(candidate.values)
        ]

    def _at(self, candidate: Candidate) -> Point:
        return (
            candidate.values[self.across.id] * self.scales[0].factor,
            candidate.values[self.up.id] * self.scales[1].factor,
        )

    def _window(self, points: Sequence[Point]) -> tuple[Point, Point]:
        """Limits of both axes around what matters, with a margin."""
        found: list[Point] = []
        for place, metric in enumerate((self.across, self.up)):
            values = [point[place] for point in points] or [0.0, 1.0]
            low, high = min(values), max(values)
            sds = [candidate.sds.get(metric.id, 0.0) for candidate in self.kept]
            least = max([0.05 * abs(high), *(4 * sd * self.scales[place].factor for sd in sds)])
            span = max(high - low, least, 1e-9)
            middle = (low + high) / 2
            half = max(span / 2 * (1 + 2 * _MARGIN), span / 2 + 1e-9)
            found.append((middle - half, middle + half))
        return found[0], found[1]

    def _costs(self, candidate: Candidate) -> Point:
        return tuple(  # type: ignore[return-value]  # two metrics
            candidate.values[metric.id] * (1 if metric.better == "lower" else -1)
            for metric in (self.across, self.up)
        )

    # --- marks ---

    def _stairs(self, limits: tuple[Point, Point]) -> None:
        """The staircase of the attained, and below it the band in which leads do not count."""
        costs = [self._costs(one) for one in self.kept]
        members = sorted((self.kept[row] for row in front_of(costs)), key=self._costs)
        if not members:
            return
        corner = tuple(  # the worse end of each axis
            limit[1] if metric.better == "lower" else limit[0]
            for metric, limit in zip((self.across, self.up), limits, strict=True)
        )
        points = [self._at(member) for member in members]
        line = staircase(points, (corner[0], corner[1]))
        self.ax.plot(*zip(*line, strict=True), color=COLOURS["front"], lw=1.4, zorder=2)
        sign = -1 if self.up.better == "higher" else 1

        def needed(candidate: Candidate) -> float:
            """What a lead over a run like this one needs against all that cost no more."""
            spread = between(candidate, candidate, self.up.id)
            rivals = sum(cost[0] <= self._costs(candidate)[0] for cost in costs)
            return factor(self.answer.query.confidence, spread.degrees, rivals) * spread.sd

        low = [
            (at[0], at[1] + sign * needed(member) * self.scales[1].factor)
            for member, at in zip(members, points, strict=True)
        ]
        if low == points:
            return
        under = staircase(low, (corner[0], corner[1]))
        xs = [x for x, _ in line[1:]]
        upper, lower = [y for _, y in line[1:]], [y for _, y in under[1:]]
        self.ax.fill_between(
            xs, upper, lower, color=COLOURS["band"], alpha=0.2, lw=0, zorder=1, label="within noise"
        )

    def _members(self, front: Sequence[Candidate], labels: Labels) -> None:
        for rank, member in enumerate(front, start=1):
            at = self._at(member)
            self._whiskers(member, COLOURS["front"])
            chance = 1.0 if member.front_probability is None else member.front_probability
            self.ax.scatter(
                *at,
                s=150,
                color=COLOURS["front"],
                alpha=_FAINTEST + (1 - _FAINTEST) * chance,
                edgecolors="none",
                zorder=5,
                label="best: the fuller, the surer" if rank == 1 else None,
                gid=f"front-{rank}",
            )
            text = str(rank)
            self.ax.annotate(
                text,
                at,
                ha="center",
                va="center",
                color="white",
                fontsize=8,
                zorder=6,
                fontweight="bold",
            )
            if labels != "none":
                self._name(member.title, at)

    def _name(self, title: str, at: Point, *, style: str = "normal") -> None:
        text = self.ax.annotate(
            plain(title),
            at,
            xytext=(9, -11),
            textcoords="offset points",
            fontsize=8,
            style=style,
            zorder=6,
            clip_on=True,
        )
        # long names do not squeeze what they are written beside
        text.set_in_layout(False)

    def _whiskers(self, candidate: Candidate, colour: str) -> None:
        at = self._at(candidate)
        sds = [
            candidate.sds.get(metric.id, 0.0) * scale.factor
            for metric, scale in zip((self.across, self.up), self.scales, strict=True)
        ]
        if any(sds):
            self.ax.errorbar(
                *at,
                xerr=sds[0] or None,
                yerr=sds[1] or None,
                color=colour,
                lw=1,
                capsize=2,
                zorder=3,
            )

    def _replicates(self, several: Sequence[Candidate], limits: tuple[Point, Point]) -> None:
        """A small dot for every run behind a mean, and error bars where no others stand."""
        answer = self.answer
        repeated = {name for one in several for name in one.replicates}
        runs = {
            run.id: run
            for run in (answer.catalog.runs_by_benchmark[answer.benchmark.id] if repeated else ())
            if run.id in repeated and {self.across.field, self.up.field} <= set(run.metrics)
        }
        dots = [
            (
                runs[name].metrics[self.across.field] * self.scales[0].factor,
                runs[name].metrics[self.up.field] * self.scales[1].factor,
            )
            for name in sorted(runs)
        ]
        inside = [dot for dot in dots if _within(dot, limits)]
        if inside:
            xs, ys = zip(*inside, strict=True)
            self.ax.scatter(
                xs,
                ys,
                s=7,
                color=COLOURS["yardstick"],
                edgecolors="none",
                zorder=6,
                label="single runs",
                gid="replicates",
            )
        for candidate in several:
            if (
                candidate.replicates
                and candidate not in answer.front
                and _within(self._at(candidate), limits)
            ):
                self._whiskers(candidate, COLOURS["tie" if candidate in answer.ties else "beaten"])

    def _scatter(
        self, several: Sequence[Candidate], limits: tuple[Point, Point], kind: str
    ) -> None:
        inside = [
            self._at(candidate) for candidate in several if _within(self._at(candidate), limits)
        ]
        if not inside:
            return
        xs, ys = zip(*inside, strict=True)
        if kind == "tie":
            ring: dict[str, Any] = {
                "facecolors": "none",
                "edgecolors": COLOURS["tie"],
                "linewidths": 1.6,
            }
            label = "as good within noise"
            self.ax.scatter(xs, ys, s=60, zorder=4, label=label, gid="ties", **ring)
        else:
            grey = COLOURS["beaten"]
            self.ax.scatter(xs, ys, s=14, color=grey, zorder=2, label="beaten", gid="beaten")

    def _yardsticks(self, several: Sequence[Candidate], limits: tuple[Point, Point]) -> None:
        for candidate in several:
            at = self._at(candidate)
            if not _within(at, limits):
                continue
            plain_lora = _is_plain(candidate)
            name = "plain LoRA" if plain_lora else "full fine-tuning"
            self.ax.scatter(*at, s=46, marker="D", color=COLOURS["yardstick"], zorder=4, gid=name)
            if candidate.name not in {member.name for member in self.answer.front}:
                self._name(name, at, style="italic")

    def _bounds(self, limits: tuple[Point, Point]) -> None:
        """Dashed lines where the question sets a limit."""
        query = self.answer.query
        lines = [(bound.metric, bound.value) for bound in query.bounds]
        if query.memory is not None:
            lines.append(("peak_memory", float(query.memory.bytes)))
        style: dict[str, Any] = {"color": COLOURS["limit"], "ls": "--", "lw": 1}
        for name, value in lines:
            if name == self.across.id and _inside(value * self.scales[0].factor, limits[0]):
                self.ax.axvline(value * self.scales[0].factor, **style)
            elif name == self.up.id and _inside(value * self.scales[1].factor, limits[1]):
                self.ax.axhline(value * self.scales[1].factor, **style)

    def _outside(self, several: Sequence[Candidate], limits: tuple[Point, Point]) -> None:
        """How many points lie outside of what is shown."""
        points = {
            self._at(candidate) for candidate in several if not _within(self._at(candidate), limits)
        }
        right = sum(point[0] > limits[0][1] for point in points)
        texts = [f"{right} more to the right"] if right else []
        if len(points) > right:
            texts.append(f"{len(points) - right} more outside")
        if texts:
            self.ax.set_title(", ".join(texts), loc="right", fontsize=8, color="#555555")


def _is_plain(candidate: Candidate) -> bool:
    return isinstance(candidate, Baseline) and candidate.is_yardstick


def _inside(value: float, limit: Point) -> bool:
    return limit[0] <= value <= limit[1]


def _within(point: Point, limits: tuple[Point, Point]) -> bool:
    return _inside(point[0], limits[0]) and _inside(point[1], limits[1])
