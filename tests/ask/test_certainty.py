"""The two certainties, replicates and results of single questions, as answers tell them."""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from peft_shop import load_catalog, recommend
from peft_shop.ask.links import read_url, to_url
from peft_shop.ask.query import Query
from peft_shop.ask.recommendation import Recommendation
from peft_shop.ask.replicates import replicates
from peft_shop.catalog.noise import Noise, Pairing
from peft_shop.catalog.runs import Flag, Run
from peft_shop.errors import QueryError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.catalog.catalog import Catalog

CATALOG = load_catalog()
QUESTIONS = CATALOG.benchmark_by_id["metamathqa"].sample_size
NEWEST = "2026-09-16"


def kept(answer: Recommendation) -> dict[str, Candidate]:
    return {one.name: one for one in (*answer.front, *answer.ties, *answer.dominated)}


# --- which of the two ---


def test_other_questions_are_asked_about_where_their_number_is_known() -> None:
    assert recommend("metamathqa").query.certainty == "questions"
    assert recommend("image_gen").query.certainty == "rerun"
    assert recommend("metamathqa", certainty="rerun").query.certainty == "rerun"
    with pytest.raises(QueryError, match=r"not on record.*certainty='rerun'"):
        recommend("image_gen", certainty="questions")
    with pytest.raises(UnknownNameError, match="rerun"):
        recommend("metamathqa", certainty="re-run")  # type: ignore[arg-type]  # what a user may try


def test_other_questions_add_their_share_and_move_no_front() -> None:
    again, others = (
        recommend("metamathqa", certainty=certainty)  # type: ignore[arg-type]  # of two literals
        for certainty in ("rerun", "questions")
    )
    assert [one.name for one in again] == [one.name for one in others]
    assert len(again.ties) < len(others.ties)
    assert QUESTIONS is not None
    for name, one in kept(others).items():
        same = kept(again)[name]
        assert same.sds == same.rerun_sds == one.rerun_sds
        assert one.degrees == same.degrees
        share = one.values["test_accuracy"]
        chosen = math.sqrt(share * (1 - share) / QUESTIONS)
        assert one.sds["test_accuracy"] == pytest.approx(
            math.hypot(one.rerun_sds["test_accuracy"], chosen)
        )
        # no loss is a share of questions
        assert one.sds["train_loss"] == one.rerun_sds["train_loss"]
    for answer, words in ((again, "in a re-run"), (others, "on other questions like these")):
        other = "other questions" if answer is again else "in a re-run"
        assert words in answer.best.why
        assert other not in answer.best.why + answer.best.gives_up


def test_the_certainty_travels() -> None:
    answer = recommend("metamathqa", certainty="rerun", peft_version="any")
    assert Recommendation.from_json(answer.to_json()) == answer
    assert read_url(to_url(answer.query))["certainty"] == "rerun"
    assert "certainty" not in to_url(recommend("metamathqa", peft_version="any").query)
    # answers of before say nothing of it, and were about re-runs
    assert Query(benchmark="metamathqa", objectives=("x",), floor=0).certainty == "rerun"


# --- replicates ---


def seeded(scores: dict[str, Sequence[float]], first: int = 1) -> list[Run]:
    """Runs of experiments that differ in the seed alone."""
    model = next(
        run
        for run in CATALOG.runs_by_benchmark["metamathqa"]
        if run.experiment == "lora/llama-3.2-3B-rank64-rslora" and NEWEST in run.snapshots
    )
    runs = []
    for place, (name, figures) in enumerate(scores.items()):
        for seed, score in enumerate(figures, start=first):
            training = model.recipe.training.model_copy(update={"seed": seed})
            runs.append(
                model.model_copy(
                    update={
                        "experiment": name,
                        "created_at": f"2026-10-{place + 1:02}T00:00:{seed:02}Z",
                        "recipe": model.recipe.model_copy(update={"training": training}),
                        "provenance": model.provenance.model_copy(update={"seed": seed}),
                        "metrics": model.metrics
                        | {"test_accuracy": score, "peak_memory_bytes": 2**34 + place},
                    }
                )
            )
    return runs


SCORES: dict[str, Sequence[float]] = {
    "lora/a": (0.50, 0.52, 0.51),
    "lora/b": (0.49, 0.48, 0.50),
    "lora/c": (0.56,),
    "lora/d": (0.40, 0.41),
}


@pytest.mark.parametrize("order", range(3))
def test_replicates_are_one_candidate_with_the_error_of_their_mean(
    alter: Callable[..., Catalog], order: int
) -> None:
    runs = seeded(SCORES)
    random.Random(order).shuffle(runs)
    answer = recommend("metamathqa", catalog=alter(CATALOG, runs=tuple(runs)), peft_version="any")
    found = kept(answer)
    assert set(found) == set(SCORES)
    (one_run,) = [
        item.sd
        for item in CATALOG.noise
        if (item.metric, item.era, item.methods) == ("test_accuracy", "sampled", ())
    ]
    for name, scores in SCORES.items():
        one, count = found[name], len(scores)
        assert one.values["test_accuracy"] == pytest.approx(fmean(scores))
        assert one.rerun_sds["test_accuracy"] == pytest.approx(one_run / math.sqrt(count))
        share = fmean(scores)
        # more seeds answer no more questions
        assert QUESTIONS is not None
        assert one.sds["test_accuracy"] ** 2 - one.rerun_sds["test_accuracy"] ** 2 == (
            pytest.approx(share * (1 - share) / QUESTIONS)
        )
        assert one.pooled == count
        assert one.seeds == tuple(range(1, count + 1))
        assert len(one.replicates) == (count if count > 1 else 0)
        assert (f"mean of {count} seeds" in one.notes) == (count > 1)
        assert one.run.provenance.seed == 1
    assert "Every run has seed" not in str(answer)


def test_a_lone_replicate_is_what_a_run_was(alter: Callable[..., Catalog]) -> None:
    runs = seeded({name: scores[:1] for name, scores in SCORES.items()}, first=0)
    answer = recommend("metamathqa", catalog=alter(CATALOG, runs=tuple(runs)), peft_version="any")
    for name, one in kept(answer).items():
        assert one.values["test_accuracy"] == SCORES[name][0]
        assert (one.pooled, one.replicates, one.notes) == (1, (), ())


def test_what_differs_in_more_than_the_seed_or_in_nothing_stands_alone() -> None:
    runs = seeded({"lora/a": (0.5, 0.52, 0.51)})
    other = runs[1].recipe.training.model_copy(update={"learning_rate": 3e-3})
    tuned = runs[1].model_copy(
        update={"recipe": runs[1].recipe.model_copy(update={"training": other})}
    )
    assert [len(group) for group in replicates([runs[0], tuned, runs[2]])] == [2, 1]
    again = runs[1].model_copy(update={"created_at": "2026-11-01T00:00:00Z"})
    # a seed that stands twice: which of the two counts is nobody's to say
    assert [len(group) for group in replicates([*runs, again])] == [1, 1, 1, 1]
    moved = runs[1].model_copy(update={"snapshots": ("2026-08-14",)})
    assert [len(group) for group in replicates([runs[0], moved, runs[2]])] == [2, 1]


@pytest.mark.parametrize(("count", "places"), [(2, {0}), (2, {1}), (3, {0}), (3, {0, 2})])
def test_a_flagged_seed_is_left_out_and_told(
    alter: Callable[..., Catalog], count: int, places: set[int]
) -> None:
    runs = seeded({**SCORES, "lora/a": SCORES["lora/a"][:count]})
    broken = Flag(code="broken_config", reason="The loss went up.")
    for place in places:
        runs[place] = runs[place].model_copy(update={"flags": (broken,)})
    answer = recommend("metamathqa", catalog=alter(CATALOG, runs=tuple(runs)), peft_version="any")
    candidate = kept(answer)["lora/a"]
    fit = [place for place in range(count) if place not in places]
    mean = fmean(SCORES["lora/a"][place] for place in fit)
    assert candidate.values["test_accuracy"] == pytest.approx(mean)
    assert candidate.seeds == tuple(place + 1 for place in fit)
    assert candidate.pooled == len(fit)
    assert f"{len(places)} of {count} seeds left out as flagged" in candidate.notes


def test_replicates_tell_the_noise_where_nothing_else_does(alter: Callable[..., Catalog]) -> None:
    def deviations(scores: dict[str, Sequence[float]]) -> set[tuple[float | None, float | None]]:
        catalog = alter(CATALOG, runs=tuple(seeded(scores)), noise=())
        found = kept(recommend("metamathqa", catalog=catalog, floor=0, peft_version="any"))
        return {
            (
                round(one.rerun_sds.get("test_accuracy", 0) * math.sqrt(one.pooled), 9),
                one.degrees.get("test_accuracy"),
            )
            for one in found.values()
        }

    # recipes 0.50, 0.40, 0.30 and seeds +0.01, 0, -0.01, with errors that leave 4 degrees
    scores = {
        "lora/a": (0.511, 0.499, 0.490),
        "lora/b": (0.409, 0.401, 0.390),
        "lora/c": (0.310, 0.300, 0.290),
    }
    ((sd, degrees),) = deviations(scores)
    assert degrees == 4
    table = [list(row) for row in scores.values()]
    rows = [fmean(row) for row in table]
    columns = [fmean(column) for column in zip(*table, strict=True)]
    whole = fmean(rows)
    squares = sum(
        (value - rows[i] - columns[j] + whole) ** 2
        for i, row in enumerate(table)
        for j, value in enumerate(row)
    )
    assert sd == pytest.approx(math.sqrt(squares / 4))
    # fewer than three degrees: no estimate, and so no deviation
    assert deviations({"lora/a": (0.5, 0.51), "lora/b": (0.4, 0.41), "lora/c": (0.3,)}) == {
        (0.0, None)
    }


def test_replicates_tell_the_noise_of_scores_that_lack_an_estimate(
    alter: Callable[..., Catalog],
) -> None:
    """Neither of what was estimated already, nor of memory and time."""
    runs = tuple(seeded({"lora/a": (0.51, 0.499, 0.49), "lora/b": (0.409, 0.401, 0.39)}))
    runs += tuple(seeded({"lora/c": (0.31, 0.3, 0.29)}))
    stated = Noise(benchmark="metamathqa", metric="test_accuracy", sd=0.07, degrees=9, method="x")
    found = kept(
        recommend("metamathqa", catalog=alter(CATALOG, runs=runs, noise=(stated,)), floor=0,
                  peft_version="any")
    )  # fmt: skip
    for one in found.values():
        assert one.rerun_sds["test_accuracy"] == pytest.approx(0.07 / math.sqrt(one.pooled))
        assert one.notes == ("mean of 3 seeds",)
        scopes = {CATALOG.metric_by_id[name].scope for name in one.sds}
        assert scopes == {"score"}


def test_the_choice_of_questions_is_uncertain_without_any_repeat(
    alter: Callable[..., Catalog],
) -> None:
    runs = tuple(seeded({name: scores[:1] for name, scores in SCORES.items()}))
    catalog = alter(CATALOG, runs=runs, noise=())
    asked = CATALOG.benchmark_by_id["metamathqa"].sample_size
    assert asked is not None
    for certainty in ("rerun", "questions"):
        found = kept(
            recommend("metamathqa", catalog=catalog, certainty=certainty, peft_version="any")
        )
        for one in found.values():
            score = one.values["test_accuracy"]
            chosen = {"test_accuracy": pytest.approx(math.sqrt(score * (1 - score) / asked))}
            assert one.sds == (chosen if certainty == "questions" else {})


def test_a_recipe_may_have_noise_of_its_own(alter: Callable[..., Catalog]) -> None:
    common = Noise(benchmark="metamathqa", metric="test_accuracy", sd=0.01, degrees=9, method="x")
    own = common.model_copy(update={"sd": 0.05, "degrees": 2, "experiments": ("lora/b",)})
    catalog = alter(CATALOG, runs=tuple(seeded(SCORES)), noise=(common, own))
    found = kept(recommend("metamathqa", catalog=catalog, peft_version="any"))
    for name, one in found.items():
        want, degrees = (0.05, 2) if name == "lora/b" else (0.01, 9)
        assert one.rerun_sds["test_accuracy"] == pytest.approx(want / math.sqrt(one.pooled))
        assert one.degrees["test_accuracy"] == degrees


def test_results_of_single_questions_replace_the_bound(alter: Callable[..., Catalog]) -> None:
    names = list(SCORES)
    parts = dict(zip(names, (0.004, 0.003, 0.005, 0.006), strict=True))
    pairings = tuple(
        Pairing(
            benchmark="metamathqa",
            a=one,
            b=other,
            metric="test_accuracy",
            sd=math.hypot(parts[one], parts[other]),
            items=1319,
        )
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    )
    catalog = alter(CATALOG, runs=tuple(seeded(SCORES)), pairings=pairings)
    answer = recommend("metamathqa", catalog=catalog, peft_version="any")
    for name, one in kept(answer).items():
        assert one.sds["test_accuracy"] == pytest.approx(
            math.hypot(one.rerun_sds["test_accuracy"], parts[name]), rel=1e-6
        )
        for other, sd in one.paired_sds["test_accuracy"].items():
            assert sd == pytest.approx(math.hypot(parts[name], parts[other]))
    told = answer.best.why + answer.best.gives_up
    assert "likely to hold on other questions like these" in told
    assert "at least" not in told
    assert "widest doubt" not in str(answer)
    again = recommend("metamathqa", catalog=catalog, certainty="rerun", peft_version="any")
    assert all(one.paired_sds == {} for one in kept(again).values())
    assert Recommendation.from_json(answer.to_json()) == answer
