"""Catalog files of users: every mistake is told at once, with its place; sound ones load equal."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import peft_shop
from peft_shop import load_catalog, recommend
from peft_shop.catalog.catalog import SCHEMA_VERSION, Catalog
from peft_shop.catalog.store import READ_FROM, load, parse
from peft_shop.errors import CatalogError, CatalogVersionError

if TYPE_CHECKING:
    from peft_shop.errors import Problem

EMBEDDED: Final = Path(peft_shop.__file__).parent / "_catalog.json"
TEXT: Final = EMBEDDED.read_bytes()
Document = dict[str, Any]


def document() -> Document:
    loaded: Document = json.loads(TEXT)
    return loaded


def refused(content: bytes | Document) -> dict[str, Problem]:
    """Problems by place of what `parse` says about a broken catalog."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(CatalogError) as caught:
        parse(text, name="mine.json")
    problems = caught.value.problems
    assert problems
    assert all(problem.path == "mine.json" for problem in problems)
    # a message lists the first 20, each cut at 300 characters
    assert all(str(problem)[:290] in str(caught.value) for problem in problems[:20])
    return {problem.where: problem for problem in problems}


# --- sound files ---


def test_a_copy_of_the_embedded_file_loads_equal(tmp_path: Path) -> None:
    copy = tmp_path / "catalog.json"
    shutil.copy(EMBEDDED, copy)
    assert load(copy) == load(str(copy)) == load_catalog()
    # commands to go on with name it as the user did
    assert load(copy).derived[READ_FROM] == str(copy)


def test_what_is_written_loads_equal() -> None:
    catalog = load_catalog()
    assert parse(catalog.model_dump_json(exclude_defaults=True).encode()) == catalog
    assert parse(catalog.model_dump_json(indent=2).encode()) == catalog


def test_the_embedded_file_passes_the_checks_that_are_made_of_others() -> None:
    assert parse(TEXT) == load_catalog()


def test_the_embedded_catalog_is_read_once() -> None:
    assert load_catalog() is load_catalog()


def test_a_path_can_be_given_to_recommend(tmp_path: Path) -> None:
    copy = tmp_path / "catalog.json"
    shutil.copy(EMBEDDED, copy)
    assert recommend(catalog=copy) == recommend(catalog=str(copy)) == recommend()


def test_later_minor_versions_of_the_schema_load() -> None:
    raw = document()
    major = SCHEMA_VERSION.partition(".")[0]
    raw["schema_version"] = f"{major}.99"
    assert parse(json.dumps(raw).encode()).schema_version == f"{major}.99"


# --- files that are no catalog ---


def cannot_read(path: Path) -> str:
    with pytest.raises(CatalogError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.path == str(path)
    return f"{problem.message} {problem.hint}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    text = cannot_read(tmp_path / "none.json")
    assert "No such file" in text
    assert "peft-shop catalog export" in text


def test_a_folder_is_that_of_a_trial(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="No such file") as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert problem.path == str(tmp_path / "catalog.json")
    shutil.copy(EMBEDDED, tmp_path / "catalog.json")
    assert load(tmp_path) == load()
    (tmp_path / "catalog.json").unlink()
    (tmp_path / "catalog.json").mkdir()
    with pytest.raises(CatalogError, match="is a folder, not a regular file"):
        load(tmp_path)


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**30)  # sparse: takes no room on the disk
    assert "larger than 64 MiB: too large for a catalog" in cannot_read(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe, not a regular file" in cannot_read(tmp_path / "pipe")
    assert "is a device" in cannot_read(Path("/dev/zero"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"runs": [1] * 200_000},
        {"runs": [{"a": 1}] * 100_000},
        {"methods": [{f"key{i}": 1 for i in range(30_000)}]},
        {"methods": [{"aliases": [1] * 200_000}]},
        {f"key{i}": 1 for i in range(40_000)},
    ],
    ids=["items", "records", "keys", "values", "members"],
)
def test_a_hopeless_file_is_given_up_early(wrong: dict[str, Any]) -> None:
    text = json.dumps({**document(), **wrong}).encode()
    tracemalloc.start()
    with pytest.raises(CatalogError) as error:
        parse(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400e6
    message = str(error.value)
    assert len(message) < 22 * 320
    assert message.count("\n") <= 21


def test_a_newer_minor_schema_says_what_to_upgrade() -> None:
    major, _, minor = SCHEMA_VERSION.partition(".")
    newer = f"{major}.{int(minor) + 1}"
    with pytest.raises(CatalogVersionError, match=f"schema {newer}, which is newer") as error:
        parse(json.dumps({**document(), "schema_version": newer, "trials": []}).encode())
    assert "upgrade peft-shop" in str(error.value)
    # what has nothing new in it is read
    assert parse(json.dumps({**document(), "schema_version": newer}).encode()).methods


@pytest.mark.parametrize(
    ("minor", "newer"),
    [("99999", True), ("100000", False), ("9" * 5000, False), ("x", False), ("0", False)],
)
def test_only_a_number_is_a_newer_schema(minor: str, newer: bool) -> None:
    version = f"{SCHEMA_VERSION.partition('.')[0]}.{minor}"
    with pytest.raises(CatalogError) as error:
        parse(json.dumps({"schema_version": version, "trials": []}).encode())
    assert isinstance(error.value, CatalogVersionError) == newer
    assert ("which is newer" in str(error.value)) == newer


def test_a_capability_names_an_environment_of_its_method() -> None:
    data = document()
    data["methods"][0]["capabilities"]["merging"]["environment"] = "elsewhere"
    with pytest.raises(CatalogError, match=r"unknown environment 'elsewhere'"):
        parse(json.dumps(data).encode())


@pytest.mark.parametrize("size", [0, 1, 100, len(TEXT) // 2, len(TEXT) - 2])
def test_a_truncated_file(size: int) -> None:
    (problem,) = refused(TEXT[:size]).values()
    assert problem.message.startswith("not a JSON document: ")


@pytest.mark.parametrize(
    "text",
    [b"catalog", b"\x80abc", b"\x00", b'{"schema_version": "1.0",}', TEXT + b"}", b"\xff\xfe{}"],
)
def test_text_that_is_no_json(text: bytes) -> None:
    (problem,) = refused(text).values()
    assert problem.message.startswith("not a JSON document: ")


@pytest.mark.parametrize("text", [b"{}", b"[]", b"null", b'"1.0"', b'["schema_version"]'])
def test_json_that_is_no_catalog(text: bytes) -> None:
    problem = refused(text)["schema_version"]
    assert "not a peft-shop catalog" in problem.message
    assert "peft-shop catalog compile" in problem.hint


@pytest.mark.parametrize("depth", [500, 100_000])
@pytest.mark.parametrize("shape", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_without_end(depth: int, shape: tuple[bytes, bytes]) -> None:
    opening, closing = shape
    text = b'{"schema_version": "1.0", "methods": ' + opening * depth
    refused(text + (b"1" if closing == b"}" else b"") + closing * depth + b"}")


@pytest.mark.parametrize("version", ["0.9", "2.0", "10.1", "x", ""])
def test_another_schema(version: str) -> None:
    raw = document() | {"schema_version": version}
    with pytest.raises(CatalogVersionError, match=f"written for schema {version}.*upgrade"):
        parse(json.dumps(raw).encode())


# --- mistakes in the format ---


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    raw = document()
    raw["licance"] = raw.pop("licence")
    raw["benchmarks"][0]["floor"] = None
    raw["methods"][3]["famly"] = raw["methods"][3].pop("family")
    raw["methods"][5]["capabilities"]["merging"]["support"] = "perhaps"
    raw["runs"][0]["metrics"]["peak_memory_bytes"] = "21 GiB"
    raw["runs"][1]["metrics"]["train_loss"] = float("nan")
    raw["runs"][2]["metrics"]["train_loss"] = float("inf")
    raw["runs"][3]["created_at"] = "yesterday"
    raw["runs"][4]["flags"] = [{"code": "brokenconfig", "reason": "It is."}]
    raw["runs"][5]["recipe"]["training"]["learning_rate"] = "1e-4?"
    problems = refused(raw)
    assert set(problems) == {
        "licance",
        "benchmarks[0].floor",
        "methods[3].famly",
        "methods[3].family",
        "methods[5].capabilities.merging.support",
        "runs[0].metrics.peak_memory_bytes",
        "runs[1].metrics.train_loss",
        "runs[2].metrics.train_loss",
        "runs[3].created_at",
        "runs[4].flags[0].code",
        "runs[5].recipe.training.learning_rate",
    }
    assert "'licence'" in problems["licance"].hint
    assert "'family'" in problems["methods[3].famly"].hint
    assert problems["methods[3].family"].message == "required key is missing"
    assert "'perhaps'" in problems["methods[5].capabilities.merging.support"].message
    assert "'broken_config'" in problems["runs[4].flags[0].code"].hint
    assert "'21 GiB'" in problems["runs[0].metrics.peak_memory_bytes"].message
    assert "finite" in problems["runs[1].metrics.train_loss"].message


@pytest.mark.parametrize(("broken_runs", "told"), [(49, 50), (50, 51), (51, 51), (90, 51)])
def test_reading_stops_after_fifty_mistakes(broken_runs: int, told: int) -> None:
    raw = document()
    for run in raw["runs"][:broken_runs]:
        run["created_at"] = "yesterday"
    raw["licance"] = raw.pop("licence")
    with pytest.raises(CatalogError) as caught:
        parse(json.dumps(raw).encode())
    assert len(caught.value.problems) == told


REQUIRED = sorted(name for name, field in Catalog.model_fields.items() if field.is_required())


@given(st.sets(st.sampled_from(REQUIRED), min_size=1))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_every_missing_key_is_told(missing: set[str]) -> None:
    raw = {key: value for key, value in document().items() if key not in missing}
    problems = refused(raw)
    if "schema_version" in missing:  # then it may be anything else
        assert set(problems) == {"schema_version"}
    else:
        assert set(problems) == missing


# --- references that lead nowhere ---


def broken(*place: str | int, value: Any) -> Document:
    """The embedded catalog with the member at `place` replaced; `...` removes it."""
    raw = document()
    here: Any = raw
    for key in place[:-1]:
        here = here[key]
    if value is ...:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("place", "value", "where", "message", "hint"),
    [
        (("runs", 7, "benchmark"), "metamathq", "runs[7].benchmark", "benchmark", "metamathqa"),
        (("runs", 7, "method"), "lorra", "runs[7].method", "method", "lora"),
        (("runs", 7, "variants"), ["nonsense"], "runs[7].variants", "variant", ""),
        (("runs", 7, "era"), "gredy", "runs[7].era", "era", "greedy"),
        (("runs", 7, "snapshots"), ["2026-06-11"], "runs[7].snapshots", "snapshot", "2026-06-10"),
        (
            ("runs", 7, "metrics", "peak_memory_byte"),
            1,
            "runs[7].metrics",
            "metric",
            "peak_memory_bytes",
        ),
        (("noise", 0, "metric"), "peak_memry", "noise[0].metric", "metric", "peak_memory"),
        (("noise", 0, "benchmark"), "image", "noise[0].benchmark", "benchmark", "image_gen"),
        (("noise", 0, "era"), "sampeld", "noise[0].era", "era", "sampled"),
        (("noise", 0, "methods"), ["loara"], "noise[0].methods[0]", "method", "lora"),
        (("era_shifts", 0, "older"), "gredy", "era_shifts[0].older", "era", "greedy"),
        (("era_shifts", 0, "newer"), "gredy", "era_shifts[0].newer", "era", "greedy"),
        (
            ("era_shifts", 0, "metric"),
            "accuracy",
            "era_shifts[0].metric",
            "metric",
            "test_accuracy",
        ),
        (
            ("benchmarks", 0, "headline"),
            "test_acuracy",
            "benchmarks[0].headline",
            "metric",
            "test_accuracy",
        ),
        (("benchmarks", 1, "metrics", 2), "peak", "benchmarks[1].metrics[2]", "metric", "peak_mem"),
    ],
)
def test_a_reference_to_nothing_names_the_nearest(
    place: tuple[str | int, ...], value: Any, where: str, message: str, hint: str
) -> None:
    problem = refused(broken(*place, value=value))[where]
    assert problem.message.startswith(f"unknown {message} ")
    assert hint in problem.hint


def test_every_feature_is_there_and_known() -> None:
    raw = document()
    capabilities = raw["methods"][2]["capabilities"]
    capabilities["mergin"] = capabilities.pop("merging")
    problems = refused(raw)
    assert "did you mean 'merging'?" in problems["methods[2].capabilities"].hint
    assert problems["methods[2].capabilities.merging"].message == "missing"


def test_a_variant_says_nothing_of_unknown_features() -> None:
    broken = document()
    place = next(i for i, one in enumerate(broken["methods"]) if one.get("variants"))
    variant = broken["methods"][place]["variants"][0]
    variant["capabilities"] = {"merginf": {"support": "yes", "level": "trained"}}
    problem = refused(broken)[f"methods[{place}].variants[0].capabilities"]
    assert "merginf" in problem.message
    assert "merging" in problem.hint


@pytest.mark.parametrize("kind", ["metrics", "benchmarks", "methods", "snapshots", "runs"])
def test_nothing_stands_twice(kind: str) -> None:
    raw = document()
    raw[kind].append(raw[kind][0])
    problem = refused(raw)[f"{kind}[{len(raw[kind]) - 1}]"]
    assert problem.message.endswith("stands here twice")


def test_a_catalog_without_benchmarks_is_refused() -> None:
    raw = document() | {"benchmarks": [], "runs": [], "noise": [], "era_shifts": []}
    assert set(refused(raw)) == {"benchmarks"}


def test_all_dangling_references_are_told_at_once() -> None:
    raw = document()
    raw["runs"][0]["method"] = "lorra"
    raw["runs"][1]["era"] = "gredy"
    raw["noise"][0]["metric"] = "nothing"
    raw["benchmarks"][0] |= {"headline": "nothing", "objectives": ["test_accuracy", "nothing"]}
    raw["benchmarks"][0]["definitions"] = {"nothing": "What it is."}
    raw["noise"][0]["methods"] = ["full_finetuning", "lora", "lorra"]
    raw["era_shifts"][0]["benchmark"] = "nothing"
    pair = {"benchmark": "metamathqa", "metric": "test_accuracy", "sd": 0.01, "items": 200}
    raw["pairings"] = [pair | {"a": "nothing", "b": raw["runs"][0]["experiment"]}]
    raw["engines"][1] |= {"id": raw["engines"][0]["id"]}
    raw["trainers"][0] |= {"keys": {"nothing": "x"}, "defaults": {"nothing": "1"}}
    raw["trainers"][1] |= {"id": raw["trainers"][0]["id"]}
    told = refused(raw)
    assert set(told) >= {
        "runs[0].method",
        "runs[1].era",
        "noise[0].metric",
        "benchmarks[0].headline",
        "benchmarks[0].objectives[1]",
        "benchmarks[0].definitions",
        "noise[0].methods[2]",
        "era_shifts[0].benchmark",
        "pairings[0].a",
        "engines[1]",
        "trainers[1]",
        "trainers[0].keys",
        "trainers[0].defaults",
    }
    assert not {"benchmarks[0].objectives[0]", "noise[0].methods[0]", "pairings[0].b"} & set(told)


def test_references_of_engines_trainers_and_conversions_are_checked() -> None:
    raw = document()
    engine, trainer = raw["engines"][0], raw["trainers"][0]
    fact = next(iter(engine["facts"].values()))
    engine["facts"]["nothing"] = fact | {"source": "nothing"}
    trainer["facts"]["nothing"] = next(iter(trainer["facts"].values())) | {"source": "nothing"}
    ruled = next(i for i, one in enumerate(raw["engines"]) if one.get("rules"))
    raw["engines"][ruled]["rules"][0]["when"] = "never"
    strict = next(i for i, one in enumerate(raw["trainers"]) if one.get("rules"))
    raw["trainers"][strict]["rules"][0] |= {"when": "never", "topics": ["nothing"]}
    raw["conversions"][0] |= {"method": "lorra", "traits": ["nothing"], "rank": [["nothing"]]}
    told = refused(raw)
    assert set(told) == {
        "engines[0].facts",
        "engines[0].facts.nothing.source",
        f"engines[{ruled}].rules[0].when",
        "trainers[0].facts",
        "trainers[0].facts.nothing.source",
        f"trainers[{strict}].rules[0].when",
        f"trainers[{strict}].rules[0].topics",
        "conversions[0].method",
        "conversions[0].traits[0]",
        "conversions[0].rank",
    }
    assert told[f"trainers[{strict}].rules[0].topics"].message.startswith("unknown topic ")
    assert told[f"engines[{ruled}].rules[0].when"].message.startswith("unknown circumstance ")


def test_a_record_of_very_many_values_is_refused_before_it_is_read() -> None:
    def problem(items: list[Any]) -> str:
        raw = document()
        raw["metrics"].append({"id": "many", "title": items})
        place = f"metrics[{len(raw['metrics']) - 1}]"
        told = [one for where, one in refused(raw).items() if where.startswith(place)]
        return " ".join(one.message for one in told)

    # the record, its name and its list are three of 100,000 values
    assert "far too large" not in problem([0] * 99_997)
    assert problem([0] * 99_998) == "far too large for one record"
    assert problem([[0], *[0] * 99_996]) == "far too large for one record"


# --- whatever else happens to a file ---


@given(st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_damaged_file_is_refused_or_loads(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEXT) - 1))
    damage = data.draw(st.binary(max_size=4))
    text = TEXT[:place] + damage + TEXT[place + len(damage) :]
    try:
        catalog = parse(text)
    except CatalogError as error:
        assert error.problems  # noqa: PT017 - either outcome is right, a crash is not
    else:
        assert len(catalog.methods) == len(load_catalog().methods)


def test_pairings_name_what_is_on_file() -> None:
    pair = {"benchmark": "metamathqa", "metric": "test_accuracy", "sd": 0.01, "items": 200}
    runs = [run for run in document()["runs"] if run["benchmark"] == "metamathqa"]
    names = sorted({run["experiment"] for run in runs})[:2]
    whole = document() | {"pairings": [pair | {"a": names[0], "b": names[1]}]}
    assert parse(json.dumps(whole).encode()).pairings[0].items == 200
    broken = document() | {
        "pairings": [
            pair | {"a": names[0], "b": "lora/none"},
            pair | {"a": names[0], "b": names[1], "metric": "accuracy", "benchmark": "images"},
        ]
    }
    with pytest.raises(CatalogError) as error:
        parse(json.dumps(broken).encode())
    assert {problem.where for problem in error.value.problems} >= {
        "pairings[0].b",
        "pairings[1].benchmark",
        "pairings[1].metric",
    }
