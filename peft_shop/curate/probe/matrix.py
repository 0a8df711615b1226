"""The page that shows every method's support of every feature, made from the observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.features import EVIDENCE_LEVELS, FEATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.catalog.features import Feature
    from peft_shop.catalog.methods import Capability, Observation

__all__ = ["matrix"]

SIGNS: Final = {"yes": "yes", "partial": "part", "no": "no", "unknown": "?"}
GROUPS: Final = (
    ("layer_types", "Layer types"),
    ("quantization", "Quantized bases"),
    (None, "Everything else"),
)


def matrix(observations: Mapping[str, Observation]) -> str:
    """Markdown tables, one a group of features: a row a method, a column a feature.

    A cell has the support and, below the level `verified`, the first letter of its level.
    """
    parts = [
        "# Capability matrix",
        "",
        "Made from `catalog/observed/`; do not edit. A cell says whether the method supports the",
        "feature (`part`: partly, `no`, `?`: unknown) and how that is known: "
        + ", ".join(f"({level[0]}) {level}" for level in EVIDENCE_LEVELS[:-1])
        + ", no letter: verified with numbers. `peft-shop show METHOD` has the notes.",
        "",
    ]
    for group, title in GROUPS:
        features = [feature for feature in FEATURES if feature.group == group]
        parts += [f"## {title}", "", *_table(observations, features), ""]
    parts += ["## What is counted", "", *_counts(observations), ""]
    return "\n".join(parts)


def _cell(capability: Capability | None) -> str:
    if capability is None:
        return " "
    sign = SIGNS[capability.support]
    if capability.support in {"no", "unknown"} or capability.level == "verified":
        return sign
    return f"{sign} ({capability.level[0]})"


def _table(observations: Mapping[str, Observation], features: list[Feature]) -> list[str]:
    lines = [
        "| method | " + " | ".join(feature.title for feature in features) + " |",
        "|---|" + "---|" * len(features),
    ]
    for method, observation in sorted(observations.items()):
        cells = [_cell(observation.capabilities.get(feature.id)) for feature in features]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def _counts(observations: Mapping[str, Observation]) -> list[str]:
    lines = ["| feature | yes | part | no | unknown |", "|---|---|---|---|---|"]
    for feature in FEATURES:
        found = [
            observation.capabilities[feature.id].support
            for observation in observations.values()
            if feature.id in observation.capabilities
        ]
        counts = [found.count(support) for support in ("yes", "partial", "no", "unknown")]
        lines.append(f"| {feature.id} | " + " | ".join(str(count) for count in counts) + " |")
    return lines
