"""Whether an adapted configuration works on an architecture: tried, and written down.

Only maintainers run it. It trains, saves and reloads adapters on tiny models of every
architecture in the zoo; reading and comparing what is on file needs no torch.
"""

from __future__ import annotations

from peft_shop.curate.readiness.matrix import (
    Forced,
    architecture_names,
    force_refused,
    subject_names,
    survey,
)
from peft_shop.curate.readiness.verdicts import (
    Change,
    Readiness,
    Verdict,
    differences,
    merge,
    read,
    write,
)

__all__ = [
    "Change",
    "Forced",
    "Readiness",
    "Verdict",
    "architecture_names",
    "differences",
    "force_refused",
    "merge",
    "read",
    "subject_names",
    "survey",
    "write",
]
