"""How uncertain the figures of a contender are.

Two questions can be asked of a difference. Would it happen again on these questions: re-run noise
alone. Would it hold on others like them: re-run noise and the choice of the questions. All
candidates answered the same questions, so it is the questions on which two of them disagree that
count: a difference of two shares p and q of n questions, of which d are answered right by one of
them alone, has the variance (d - (p - q)^2) / n. Where results of single questions tell d it is
taken from them. Elsewhere d is at least |p - q| and, unless two candidates are less alike than
chance makes them, at most p(1 - q) + q(1 - p): then the variance is p(1 - p)/n + q(1 - q)/n, a
part of each. That bound is what is taken, so that a lead that counts would count whatever d is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from peft_shop.ask.spread import separate_parts
from peft_shop.records import FrozenDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.noise import Noise, Pairing
    from peft_shop.catalog.runs import Run

__all__ = ["Deviation", "NoiseBook", "knows_questions", "noise_of_replicates", "with_pairings"]


class Deviation(NamedTuple):
    """Standard deviation of one figure.

    Attributes:
        sd: all of it that the question asks for.
        rerun: the part that re-runs have.
        degrees: of freedom behind `rerun`; infinite where it is known, or 0.
    """

    sd: float
    rerun: float
    degrees: float


def knows_questions(catalog: Catalog, benchmark: Benchmark) -> bool:
    """Whether it can be told what other questions would do to a score of `benchmark`."""
    return benchmark.sample_size is not None or any(
        pairing.benchmark == benchmark.id for pairing in catalog.pairings
    )


class NoiseBook:
    """The noise of one benchmark, by metric, era and method.

    Attributes:
        questions: how many questions the headline is a share of; `None` where other questions are
            not asked about.
    """

    def __init__(self, noise: Iterable[Noise], *, questions: int | None = None) -> None:
        self.questions = questions
        self.common: dict[tuple[str, str | None], Noise] = {}
        self.own: dict[tuple[str, str], list[Noise]] = {}
        for item in noise:
            if not item.methods and not item.experiments:
                self.common[item.metric, item.era] = item
            for name in (*item.methods, *item.experiments):
                self.own.setdefault((item.metric, name), []).append(item)

    def of(self, metric: str, run: Run) -> Noise | None:
        """The estimate that is about `run`; `None` where there is none.

        A method that was seen to be less steady than the others in one era is not taken for a
        steady one in an era in which it was not repeated.
        """
        common = self.common.get((metric, run.era)) or self.common.get((metric, None))
        if not self.own:
            return common
        own = self.own.get((metric, run.experiment)) or self.own.get((metric, run.method), [])
        for item in own:
            if item.era in {run.era, None}:
                return item
        widest = max(own, key=lambda item: item.sd, default=None)
        if widest is None or (common is not None and common.sd >= widest.sd):
            return common
        return widest

    def deviation(
        self, metric: Metric, value: float, run: Run, *, runs: int, headline: bool
    ) -> Deviation | None:
        """What is uncertain about the mean of several runs; `None` where nothing is known to be.

        Args:
            metric: which figure; one with a tie width counts as exact.
            value: the figure.
            run: one of the runs behind it.
            runs: how many there are.
            headline: whether the figure is the share of questions answered right.
        """
        if metric.tie is not None or metric.tie_relative is not None:
            return None
        item = self.of(metric.id, run)
        rerun, degrees = 0.0, math.inf
        if item is not None and item.sd > 0:
            rerun = (item.sd * abs(value) if item.relative else item.sd) / math.sqrt(runs)
            degrees = item.degrees or math.inf
        chosen = 0.0
        if headline and self.questions is not None:
            # the same questions for every run: more runs do not make them more
            edge = 1 / (self.questions + 2)
            share = min(max(value, edge), 1 - edge)
            chosen = math.sqrt(share * (1 - share) / self.questions)
        if rerun == chosen == 0:
            return None
        return Deviation(math.hypot(rerun, chosen) if chosen else rerun, rerun, degrees)


def noise_of_replicates(
    benchmark: str, groups: Iterable[Sequence[Run]], metrics: Iterable[Metric]
) -> list[Noise]:
    """Noise of metrics for which replicates are the only source.

    Args:
        benchmark: whose runs.
        groups: runs that are alike but for the seed; those of one run tell nothing.
        metrics: the metrics in want of an estimate.
    """
    from peft_shop.ask.repeats import noise_of_seeds  # noqa: PLC0415 - only where there are replicates

    several = [group for group in groups if len(group) > 1]
    noise: list[Noise] = []
    for metric in metrics:
        for era in sorted({group[0].era for group in several}, key=str):
            runs = [
                (place, run)
                for place, group in enumerate(several)
                for run in group
                if run.era == era and metric.field in run.metrics
            ]
            noise += noise_of_seeds(
                [
                    (place, run.recipe.training.seed, run.metrics[metric.field])
                    for place, run in runs
                ],
                [run.experiment for _, run in runs],
                benchmark=benchmark,
                metric=metric.id,
                era=era,
            )
    return noise


def with_pairings(contenders: Sequence[Contender], pairings: Iterable[Pairing]) -> list[Contender]:
    """The contenders with what results of single questions tell of their differences.

    Args:
        contenders: of one benchmark, with the deviations of re-runs.
        pairings: of the same benchmark.
    """
    places: dict[str, list[int]] = {}
    for place, one in enumerate(contenders):
        if one.run is not None:
            places.setdefault(one.run.experiment, []).append(place)
    known: dict[str, dict[tuple[int, int], float]] = {}
    for pair in pairings:
        # an experiment that stands several times has no one result of each question
        if len(places.get(pair.a, ())) == len(places.get(pair.b, ())) == 1 and pair.a != pair.b:
            known.setdefault(pair.metric, {})[places[pair.a][0], places[pair.b][0]] = pair.sd
    informed = list(contenders)
    for metric, differences in known.items():
        parts = separate_parts(differences, len(informed))
        against: dict[int, dict[str, float]] = {}
        for (i, j), sd in differences.items():
            against.setdefault(i, {})[informed[j].name] = sd
            against.setdefault(j, {})[informed[i].name] = sd
        for place, part in enumerate(parts):
            one = informed[place]
            if part is None or metric not in one.values:
                continue
            rerun = one.rerun_sds.get(metric, 0.0)
            informed[place] = replace(
                one,
                sds=FrozenDict(one.sds | {metric: math.hypot(rerun, part)}),
                paired_sds=FrozenDict(one.paired_sds | {metric: against[place]}),
            )
    return informed
