"""How candidates reach the engines, in one word each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.demanding import SERVE
from peft_shop.ask.places import Unmeasured
from peft_shop.serve.routes import candidate_route, demanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.serve.routes import Route

__all__ = ["WORDS", "routes_of", "serving_word"]

WORDS: Final = {
    "native": "direct",
    "convert": "convert",
    "merge": "merge",
    "none": "none",
    "unknown": "unknown",
}
"""What people read for each kind of route."""
_BEST_FIRST: Final = tuple(WORDS)


def routes_of(
    recommendation: Recommendation, candidate: Candidate | Unmeasured
) -> tuple[Route, ...]:
    """Routes to the engines that the question names, else to all for such models."""
    return tuple(_routes(recommendation, candidate))


def _routes(recommendation: Recommendation, candidate: Candidate | Unmeasured) -> Iterator[Route]:
    """See `routes_of`; each is worked out when it is taken."""
    catalog, query = recommendation.catalog, recommendation.query
    named = _demanded(recommendation)
    models = recommendation.benchmark.modality
    engines = named or [engine.id for engine in catalog.engines if models in engine.models]
    adapted = candidate.retargeted
    return (
        candidate_route(
            catalog,
            engine,
            query.benchmark,
            candidate.method if isinstance(candidate, Unmeasured) else candidate.run,
            model=query.model,
            config=None if adapted is None else adapted.config,
        )
        for engine in engines
        if engine in catalog.engine_by_id
    )


def serving_word(recommendation: Recommendation, candidate: Candidate | Unmeasured) -> str:
    """The best way to any engine, or to all that the question demands together: one of `WORDS`.

    `none` only where every engine that was looked at is known not to take it.
    """
    kinds = []
    for route in _routes(recommendation, candidate):
        kinds.append(route.kind)
        if route.kind == _BEST_FIRST[0] and not _all_of(recommendation):
            break  # no other way is better
    if not kinds:
        return "unknown"
    ordered = sorted(kinds, key=_BEST_FIRST.index)
    if _all_of(recommendation):
        return WORDS[ordered[-1]]
    if ordered[0] in {"none", "unknown"}:
        return WORDS["unknown" if "unknown" in kinds else "none"]
    return WORDS[ordered[0]]


def _demanded(recommendation: Recommendation) -> Sequence[str]:
    return [
        demanded(value)[0]
        for requirement in recommendation.query.requirements
        if requirement.name == SERVE
        for value in requirement.values
    ]


def _all_of(recommendation: Recommendation) -> bool:
    return any(
        requirement.name == SERVE and requirement.mode == "all"
        for requirement in recommendation.query.requirements
    )
