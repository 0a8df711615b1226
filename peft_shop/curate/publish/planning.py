"""What the web page knows of popular models: peaks as polynomials, and what differs there.

    python -m peft_shop.curate.publish.planning            compile and write
    python -m peft_shop.curate.publish.planning --check    say if it is stale; exit code 1 then

Written is `peft_shop/show/site/planning.json`, from the sizes in `data/models.toml`. Everything is
asked of the rooms that answer a question about a model; a peak that a polynomial misses by more
than `EXACT` at three further points is left out, and the page refers to the command line.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.ask.adapted import retargeted
from peft_shop.ask.appraisal import forecast_of, own_settings
from peft_shop.ask.bases import circumstances
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.judging import judge
from peft_shop.ask.model import read_training
from peft_shop.ask.reading import build_query
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.files import write_all
from peft_shop.forecast.constants import constants
from peft_shop.forecast.intervals import memory_shares
from peft_shop.forecast.quick.closed_forms import memory_terms
from peft_shop.forecast.quick.memory import parts_of
from peft_shop.forecast.quick.methods.registry import adapter_of
from peft_shop.forecast.quick.polynomials import Polynomials, peak_of
from peft_shop.forecast.quick.spread import shape_of
from peft_shop.model.checkpoints import Checkpoint
from peft_shop.model.common_types import structure_from
from peft_shop.records import compact_json
from peft_shop.show.site.planning import PLANNING, SETUPS, digest
from peft_shop.show.site.table import Inline, Texts, candidate_table, capability_in, route_in
from peft_shop.upstream.configs import config_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Failure, Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.forecast.quick.methods.parts import Additions
    from peft_shop.forecast.quick.polynomials import Polynomial
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["EXACT", "compiled", "models", "planning_bytes", "structure_of"]

ROOT: Final = Path(__file__).resolve().parents[3]
EXACT: Final = 1e-6
"""Share by which a polynomial may differ from the closed form."""
_POINTS: Final = ((1, 128), (3, 777), (16, 1900))
"""Batches and lengths at which every polynomial is held against the closed form."""
_DIGITS: Final = 12


def models(path: Path | None = None) -> list[dict[str, Any]]:
    """The models of `data/models.toml`: identifier, parameters, configuration."""
    text = (path or ROOT / "data" / "models.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["models"]
    return found


def structure_of(model: Mapping[str, Any]) -> Structure:
    """The structure of one of the models.

    Raises:
        ConfigError: its type is none that arithmetic knows.
    """
    place = ROOT / "data"
    name = model["id"]
    checkpoint = Checkpoint(name, dict(model["config"]), name, "data/models.toml", place)
    structure = structure_from(checkpoint)
    if structure is None:
        msg = f"data/models.toml: {name} is of no type whose structure follows from its sizes"
        raise ConfigError(msg)
    return structure


def compiled(
    catalog: Catalog, model: Mapping[str, Any], table: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything about one model, as plain data.

    Args:
        catalog: holds the facts.
        model: one of `models()`.
        table: the page's candidate table of `catalog`.
    """
    structure = structure_of(model)
    compiler = _Compiler(catalog, structure, table)
    rows = compiler.rows()
    return {
        "id": structure.name,
        "parameters": structure.parameters,
        "positions": structure.dimensions.max_positions,
        "dtype": structure.dtype,
        "benchmark": structure.benchmark,
        "texts": compiler.own.all,
        "rows": rows,
    }


class _Compiler:
    """Compiles the candidates of one model's benchmark."""

    def __init__(self, catalog: Catalog, structure: Structure, table: Mapping[str, Any]) -> None:
        self.catalog = catalog
        self.structure = structure
        self.steps: list[Settings] = []
        self.queries: list[Query] = []
        for quantization, checkpointing in SETUPS:
            stated = {"quantization": quantization, "gradient_checkpointing": checkpointing}
            asked = read_training({"batch_size": 1, "sequence_length": 64, **stated}, structure)
            self.steps.append(asked.settings)
            self.queries.append(
                build_query(
                    catalog,
                    benchmark=structure.benchmark,
                    model=structure,
                    training=asked.settings,
                    fixed=asked.fixed,
                )
            )
        benchmark = self.queries[0].benchmark
        self.table = next(one for one in table["benchmarks"] if one["id"] == benchmark)
        self.methods = table["methods"]
        self.texts = table["texts"]
        self.own = Texts()

    def rows(self) -> dict[str, dict[str, Any]]:
        """What differs from the table, by the name of the candidate."""
        contenders = field_of_play(self.catalog, self.queries[0]).contenders
        by_name = {row["name"]: row for row in self.table["rows"]}
        refused = [
            {one.candidate: one.failures for one in judge(self.catalog, query, contenders)}
            for query in self.queries
        ]
        rows = {}
        for contender in contenders:
            row: dict[str, Any] = {"digest": digest(contender)}
            failures = [each[contender.name] for each in refused]
            row |= self._differences(contender, by_name[contender.name])
            refusals = [
                next((f.reason for f in each if f.constraint == "training"), "")
                for each in failures
            ]
            if any(refusals):
                row["refused"] = [self.own.place(text) for text in refusals]
            rows[contender.name] = row | self._costs(contender, failures[0])
        return rows

    def _costs(self, contender: Contender, failures: Sequence[Failure]) -> dict[str, Any]:
        """What training it takes, or why that is not known."""
        problems = [failure.reason for failure in failures if failure.constraint == "model"]
        if problems:
            return {"problem": self.own.place(problems[0])}
        forecast, reason = forecast_of(self.catalog, self.queries[0], contender, self.steps[0])
        if forecast is None:
            return {"unknown": self.own.place(reason)}
        adapted = retargeted(self.catalog, self.queries[0], contender)
        if adapted is None:
            raise AssertionError(f"{contender.name} was forecast without a configuration")
        adapter = adapter_of(self.structure, adapted.whole_config)
        counts = (forecast.trainable_parameters, forecast.total_parameters)
        return {
            "counts": [*counts, forecast.checkpoint_bytes],
            "setups": [self._setup(place, contender, adapter) for place in range(len(SETUPS))],
        }

    def _differences(self, contender: Contender, row: Mapping[str, Any]) -> dict[str, Any]:
        """Configuration, capabilities and routes that are others than on the measured model."""
        query, texts = self.queries[0], Inline()
        differences: dict[str, Any] = {}
        adapted = retargeted(self.catalog, query, contender)
        if contender.run is not None and adapted is not None:
            measured = config_dict(contender.run.recipe)
            ours = dict(adapted.config)
            changed = {key: ours.get(key) for key in {*ours, *measured}}
            changed = {key: value for key, value in changed.items() if measured.get(key) != value}
            if changed:
                differences["config"] = dict(sorted(changed.items()))
        method = self.catalog.method_by_id[contender.method]
        given = circumstances(self.catalog, query, contender)
        capabilities = {}
        for place, feature in enumerate(self.catalog.features):
            own = capability_in(method.capability(feature.id, contender.variants), texts, given)
            usual = row.get("capabilities", {}).get(str(place))
            if usual is None:
                usual = self.methods[row["method"]]["capabilities"][place]
            if own != self._told(usual, (2,)):
                capabilities[str(place)] = [self._placed(own, k, (2,)) for k in range(len(own))]
        if capabilities:
            differences["capabilities"] = capabilities
        routes = {}
        for place in range(len(self.catalog.engines)):
            own = route_in(self.catalog, query, place, contender, texts)
            usual = row["routes"].get(str(place)) or self.table["foreign"].get(str(place))
            # the words for an obstacle may name the model; the verdict decides
            same = own[1] == usual[1] and own[6] == usual[6]
            if not same or (str(place) in row["routes"] and own[0] != usual[0]):
                routes[str(place)] = [self._placed(own, k, (2, 3, 4, 5)) for k in range(len(own))]
        if routes:
            differences["routes"] = routes
        return differences

    def _placed(self, record: Sequence[Any], at: int, places: Sequence[int]) -> Any:
        """An entry of a record, with the place of the text where it is one."""
        return self.own.place(record[at]) if at in places else record[at]

    def _told(self, record: Sequence[Any], places: Sequence[int]) -> list[Any]:
        """A record of the table with its texts in place of their places."""
        return [
            self.texts[value] if place in places else value for place, value in enumerate(record)
        ]

    def _setup(self, place: int, contender: Contender, adapter: Additions) -> list[float] | int:
        """Ends of the interval, then the factors of each polynomial; 0 where none is exact."""
        settings = own_settings(self.catalog, self.queries[place], contender, self.steps[place])
        structure = self.structure
        try:
            shape = shape_of(structure, adapter, settings)
            (branches,) = Polynomials(structure, [shape]).polynomials(settings)
        except ConfigError:
            return 0
        short = [_shortened(branch) for branch in branches]
        for batch, length in _POINTS:
            step = settings.model_copy(update={"batch_size": batch, "sequence_length": length})
            terms, _ = memory_terms(parts_of(structure, adapter, step), step, constants())
            value = sum(terms.values())
            if abs(peak_of(short, batch, length) - value) > EXACT * value:
                return 0
        fitted = constants()
        regime = fitted.checkpointed if settings.gradient_checkpointing else fitted.whole
        low, high, _ = memory_shares(
            contender.method, structure, settings, regime, way="closed_form"
        )
        ends = [round(low, _DIGITS), round(high, _DIGITS)]
        return [*ends, *(factor for branch in short for factor in branch)]


def _shortened(branch: Polynomial) -> Polynomial:
    """The factors with as many digits as matter, whole ones as integers."""
    digits = (0, 2, 5, 0)
    a, b, c, d = (round(value, places) for value, places in zip(branch, digits, strict=True))
    a, b, c, d = (int(value) if value == int(value) else value for value in (a, b, c, d))
    return a, b, c, d


def planning_bytes(catalog: Catalog) -> bytes:
    """The file: one model a line."""
    table = candidate_table(catalog)
    lines = [compact_json(compiled(catalog, model, table)) for model in models()]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def main(arguments: Sequence[str]) -> int:
    """Writes the file, or with `--check` compares it."""
    place = ROOT / "peft_shop" / "show" / "site" / PLANNING
    content = planning_bytes(load())
    if list(arguments) == ["--check"]:
        stale = not place.is_file() or place.read_bytes() != content
        sys.stdout.write(f"{place.name} is {'stale' if stale else 'up to date'}\n")
        return int(stale)
    write_all({place: content}, replace=True)
    sys.stdout.write(f"wrote {place.name}: {len(content) / 1e3:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
