"""Where a suite keeps images that its runs generated: on another site, which nothing here asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import quote, urlsplit

from pydantic import Field, StringConstraints

from peft_shop.records import Date, Record, Url

if TYPE_CHECKING:
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.runs import Run

__all__ = ["Samples", "sample_addresses"]

_PLAIN = r"[A-Za-z0-9._~/-]*"
ImagePattern: TypeAlias = Annotated[
    str,
    StringConstraints(
        pattern=rf"^https://[a-z0-9-]+(\.[a-z0-9-]+)+/{_PLAIN}"
        rf"\{{experiment\}}{_PLAIN}\{{number\}}{_PLAIN}$"
    ),
]
"""Address on a host that is spelled out, with both placeholders once and in this order."""


class Samples(Record):
    """Images that every run of one source generated in the end.

    Attributes:
        source: key in `data/sources.toml`; only its runs have images there.
        image: address of one: `{experiment}` is the experiment's name with `--` for `/`, `{number}`
            is 01 and so on. Images of a repeated experiment replace the older ones.
        count: images of a run, one per prompt.
        stated_at: where the address was read; it was not opened.
        date: when it was read.
    """

    source: str
    image: ImagePattern
    count: Annotated[int, Field(gt=0, le=99)]
    stated_at: Url
    date: Date

    @property
    def host(self) -> str:
        """The site that the addresses are on."""
        return urlsplit(self.image).hostname or ""

    def addresses(self, experiment: str) -> tuple[str, ...]:
        """Address of every image of an experiment."""
        name = quote(experiment.replace("/", "--"), safe="")
        return tuple(
            self.image.replace("{experiment}", name).replace("{number}", f"{place:02}")
            for place in range(1, self.count + 1)
        )


def sample_addresses(benchmark: Benchmark, run: Run) -> tuple[str, ...]:
    """Addresses of the images that a run generated; empty where none are known."""
    samples = benchmark.samples
    if samples is None or samples.source != run.provenance.source:
        return ()
    return samples.addresses(run.experiment)
