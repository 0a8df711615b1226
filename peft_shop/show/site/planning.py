"""Popular models on the web page: what was compiled of them, for the candidates of a catalog.

`planning.json` beside this file is made by `peft_shop/curate/publish/planning.py`; nobody edits
it. A candidate whose recipe is another than the one that was compiled has no forecast on the page.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from peft_shop.records import compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.ask.contenders import Contender

__all__ = ["PLANNING", "SETUPS", "digest", "plans_for"]

PLANNING: Final = "planning.json"
SETUPS: Final = ((None, False), (None, True), ("bnb_4bit", False), ("bnb_4bit", True))
"""Quantization of the base and gradient checkpointing: what the page offers, in its order."""


def digest(contender: Contender) -> str:
    """Tells a candidate's recipe from another of the same name."""
    if contender.run is None:
        return contender.method
    recipe = contender.run.recipe
    stated = [recipe.peft_type, recipe.config, recipe.training.optimizer]
    text = compact_json([*stated, recipe.training.autocast_adapter_dtype])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@lru_cache(maxsize=1)
def _compiled() -> list[dict[str, Any]]:
    resource = files("peft_shop.show.site") / PLANNING
    found: list[dict[str, Any]] = json.loads(resource.read_text(encoding="utf-8"))
    return found


def plans_for(contenders: Mapping[str, Sequence[Contender]]) -> list[dict[str, Any]]:
    """The models with what holds for the contenders of each benchmark; none where nothing does."""
    found = []
    for model in _compiled():
        rows = {}
        for one in contenders.get(model["benchmark"], ()):
            row = model["rows"].get(one.name)
            if row is not None and row["digest"] == digest(one):
                rows[one.name] = {key: value for key, value in row.items() if key != "digest"}
        if any("setups" in row for row in rows.values()):
            found.append({**model, "rows": rows})
    return found
