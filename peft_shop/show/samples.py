"""Images that runs generated, in words: where they are kept, and what was not checked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft_shop.catalog.samples import Samples

__all__ = ["samples_sentence"]


def samples_sentence(samples: Samples) -> str:
    """What such addresses lead to, and what was not checked of it."""
    return (
        f"kept by the suite on another site, {samples.host} (not checked here: an image may be "
        "absent, and shows the newest run of this name)"
    )
