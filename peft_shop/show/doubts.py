"""What an answer is sure of, in words: which of the two certainties its figures are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.query import Query
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric

__all__ = ["again", "doubts"]


def again(query: Query) -> str:
    """What would have to happen for a statement to be wrong: "on other questions like these"."""
    if query.certainty == "questions":
        return "on other questions like these"
    return "in a re-run on the same test"


def doubts(
    recommendation: Recommendation, measured: Sequence[Candidate], noisy: Sequence[Metric]
) -> str:
    """What P(front) and ± are about, and what they leave out; one paragraph.

    Args:
        recommendation: the answer.
        measured: its kept candidates.
        noisy: objectives with a standard deviation.
    """
    text = "P(front): probability of being on the front"
    if noisy:
        names = " and ".join(metric.label for metric in noisy)
        happens = "in a re-run on the same test items"
        if recommendation.query.certainty == "questions":
            count = recommendation.benchmark.sample_size
            others = (
                "other test items" if count is None else f"{count:,} other questions like these"
            )
            happens = f"in a re-run on {others}"
        text += f", if {names} came out as {happens} (±: one standard deviation of that)"
        if recommendation.query.certainty == "questions" and not any(
            one.paired_sds for one in measured
        ):
            text += (
                ". On which questions candidates disagree is not on record: they are taken to "
                "agree no more than chance makes them, the widest doubt there is"
            )
    seeds = {seed for one in measured for seed in one.seeds or (one.run.provenance.seed,)}
    if len(seeds) == 1:
        text += (
            f". Every run has seed {next(iter(seeds))}: another seed adds noise that is not "
            "counted, so all of this is surer than it should be"
        )
    return text + "."
