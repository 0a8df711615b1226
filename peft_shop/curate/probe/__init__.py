"""The capability probe: tries every feature of every method and writes what it saw.

Only maintainers run it. Probing imports peft and torch; reading and comparing do not.
"""

from __future__ import annotations

from peft_shop.curate.probe.comparing import Change, check, differences
from peft_shop.curate.probe.matrix import matrix
from peft_shop.curate.probe.runner import probe, read_observations, write

__all__ = ["Change", "check", "differences", "matrix", "probe", "read_observations", "write"]
