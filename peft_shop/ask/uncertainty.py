"""How uncertain the figures of a contender are: which estimate of noise is about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.runs import Noise

__all__ = ["NoiseBook"]


class NoiseBook:
    """The noise of one benchmark, by metric, era and method."""

    def __init__(self, noise: Iterable[Noise]) -> None:
        self.common: dict[tuple[str, str | None], Noise] = {}
        self.own: dict[tuple[str, str], list[Noise]] = {}
        for item in noise:
            if not item.methods:
                self.common[item.metric, item.era] = item
            for method in item.methods:
                self.own.setdefault((item.metric, method), []).append(item)

    def of(self, metric: str, era: str | None, method: str) -> Noise | None:
        """The estimate that is about runs of `method` in `era`; `None` where there is none.

        A method that was seen to be less steady than the others in one era is not taken for a
        steady one in an era in which it was not repeated.
        """
        common = self.common.get((metric, era)) or self.common.get((metric, None))
        own = self.own.get((metric, method), [])
        for item in own:
            if item.era in {era, None}:
                return item
        widest = max(own, key=lambda item: item.sd, default=None)
        if widest is None or (common is not None and common.sd >= widest.sd):
            return common
        return widest
