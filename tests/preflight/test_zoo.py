"""What was really trained, saved and reloaded is not refused, on any architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.store import load
from peft_shop.curate.readiness.matrix import OPTIONS
from peft_shop.curate.readiness.zoo import entries, zoo
from peft_shop.errors import ConfigError
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight.checking import preflight

READINESS = Path(__file__).parents[2] / "data" / "readiness.json"
NEEDS_FILES = {"xlora"}
"""Methods that mix adapters which the survey makes and this test does not have."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def failed(architecture: str) -> set[str]:
    """Methods that were seen to fail there."""
    table: dict[str, Any] = json.loads(READINESS.read_text(encoding="utf-8"))
    found = table["architectures"][architecture].get("failed", {})
    return {name for names in found.values() for name in names}


@pytest.mark.parametrize("architecture", zoo())
def test_what_trains_passes(architecture: str) -> None:
    """Ready and it trains, or refused with a reason; anything else is counted, and is nothing."""
    (entry,) = entries([architecture])
    target = inspect_model(entry.build())
    catalog = load()
    wrong = {}
    passed = 0
    for method in catalog.methods:
        adapted = retarget(catalog, method, target.structure, OPTIONS)
        if adapted.problems or method.id in NEEDS_FILES:
            continue
        try:
            found = preflight(target, adapted.config)
        except ConfigError as error:
            if method.id not in failed(architecture):
                wrong[method.id] = str(error)
            continue
        passed += found.forward == "passed"
        if method.id in failed(architecture):
            wrong[method.id] = "passed, and was seen to fail"
        idle = [one for one in found.warnings if "gradient" in one or "calling" in one]
        if idle:
            wrong[method.id] = "; ".join(idle)
    assert wrong == {}
    assert passed
