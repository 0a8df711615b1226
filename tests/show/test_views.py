"""What is said of answers, methods and runs: complete, truthful, and harmless."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import recommend
from peft_shop.ask.lookup import (
    benchmark_of,
    current_runs,
    matching_methods,
    resolve_card,
    resolve_run,
    resolve_subjects,
)
from peft_shop.ask.reading import build_query
from peft_shop.catalog.difference import diff
from peft_shop.catalog.export import dump
from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.catalog.methods import Observation
from peft_shop.catalog.store import load, parse
from peft_shop.curate.intake.ingest import IngestReport
from peft_shop.curate.publish.compile import compile_catalog
from peft_shop.curate.reports.maintenance import (
    ingest_document,
    noise_document,
    observation_document,
    validation_document,
)
from peft_shop.curate.sources import rules
from peft_shop.curate.sources.rules import Report, validate
from peft_shop.errors import CatalogError, Problem, QueryError, UnknownNameError
from peft_shop.show.answer_records import answer_records
from peft_shop.show.answers import answer_document
from peft_shop.show.comparisons import compare_document
from peft_shop.show.differences import difference_document
from peft_shop.show.figures import chance, signed, uncertain
from peft_shop.show.markup import html, markdown
from peft_shop.show.methods import card_document, methods_document
from peft_shop.show.runs import runs_document
from peft_shop.show.tables import json_text, records
from peft_shop.show.terminal import text
from peft_shop.show.verdicts import why_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Folders

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.show.documents import Document

EVIL = '"><script>alert(1)</script>\x1b[31m'


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


@pytest.fixture
def small(folders: Folders) -> Catalog:
    return compile_catalog(folders.catalog, folders.data)


def every_document(catalog: Catalog) -> Iterator[Document]:
    """All that can be shown of a catalog to those who use it."""
    for benchmark in catalog.benchmarks:
        answer = recommend(benchmark.id, catalog=catalog, peft_version="any", floor=0)
        yield answer_document(answer, everything=True)
        nothing = recommend(
            benchmark.id, catalog=catalog, peft_version="any", max_train_time=0, merging=True
        )
        yield answer_document(nothing)
        for one in (*answer.front, *answer.dominated, *answer.ties, *answer.dropped):
            yield why_document(answer, one.name)
        for method in answer.unmeasured:
            yield why_document(answer, method.method)
        for run in answer.baselines:
            yield why_document(answer, run.name)
        runs = catalog.runs_by_benchmark[benchmark.id]
        yield runs_document(catalog, benchmark, runs)
        query = build_query(catalog, benchmark=benchmark.id)
        names = [*(one.name for one in answer.front), *(m.id for m in catalog.methods[:3])]
        subjects = resolve_subjects(catalog, query, names)
        yield compare_document(catalog, query, subjects, everything=True)
    yield methods_document(catalog, catalog.methods, ("merging",))
    for method in catalog.methods:
        yield card_document(catalog, method)
    yield noise_document(catalog, catalog.noise, catalog.era_shifts)


# --- nothing that a catalog says can do harm ---


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str):
        yield place
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*place, key))
    elif isinstance(value, list):
        for key, one in enumerate(value):
            yield from leaves(one, (*place, key))


def poisoned(catalog: Catalog) -> tuple[Catalog, int]:
    """The catalog with every text replaced that its format lets be anything, and how many."""
    document = json.loads(dump(catalog))
    # the features are many and alike: two of them stand for all
    kept = {"layer_types.linear", "merging", "hot_swapping"}
    document["features"] = [one for one in document["features"] if one["id"] in kept]
    for method in document["methods"]:
        method["capabilities"] = {k: v for k, v in method["capabilities"].items() if k in kept}
    count = 0
    for place in list(leaves(document)):
        here: Any = document
        for key in place[:-1]:
            here = here[key]
        before = here[place[-1]]
        here[place[-1]] = f"{EVIL} {before}"
        try:
            parse(json.dumps(document).encode())
        except CatalogError:
            here[place[-1]] = before
        else:
            count += 1
    return parse(json.dumps(document).encode()), count


def test_no_text_of_a_catalog_becomes_markup_or_moves_the_cursor(small: Catalog) -> None:
    evil, count = poisoned(small)
    assert count > 60
    for document in every_document(evil):
        assert "<script" not in html(document)
        assert "<script" not in markdown(document)
        for shown in (text(document, 80), html(document), markdown(document)):
            assert "\x1b" not in shown
    answer = recommend(catalog=evil, peft_version="any", floor=0)
    assert "alert" in answer._repr_html_()
    assert "<script" not in answer._repr_html_()


def test_every_document_fits_eighty_columns(catalog: Catalog) -> None:
    for document in every_document(catalog):
        assert max(map(len, text(document, 80).splitlines())) <= 80


def test_every_document_can_be_written_in_every_form(small: Catalog) -> None:
    for document in every_document(small):
        assert html(document).count("<table") == markdown(document).count("\n| :--") + markdown(
            document
        ).count("\n| --:")
        assert json.loads(json_text([records(table) for table in document.tables]))


# --- answers ---


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_records_are_all_candidates_with_a_run(catalog: Catalog, benchmark: str) -> None:
    answer = recommend(benchmark, peft_version="any", merging=True, max_peak_memory="20GiB")
    rows = answer_records(answer)
    places = [row["place"] for row in rows]
    assert places.count("front") == len(answer.front)
    assert places.count("tie") == len(answer.ties)
    assert places.count("dominated") == len(answer.dominated)
    assert places.count("dropped") == sum(one.run is not None for one in answer.dropped)
    assert places.count("baseline") == len(answer.baselines)
    assert all(list(row) == list(rows[0]) for row in rows)
    fields = {metric.field for metric in answer.metrics}
    assert fields <= set(rows[0])
    for row, member in zip(rows, answer.front, strict=False):
        assert row["peak_memory_bytes"] == member.run.metrics["peak_memory_bytes"]
        assert row["front_probability"] == member.front_probability


def test_a_frame_has_every_run_once_and_no_empty_column() -> None:
    answer = recommend("metamathqa", peft_version="any", max_peak_memory="24GiB")
    frame = answer.to_frame()
    assert sorted(frame["name"]) == sorted({str(row["name"]) for row in answer_records(answer)})
    assert frame["peak_memory_bytes"].dtype.kind in "if"
    assert not frame.isna().all().any()
    assert "reasons" not in frame
    assert list(answer.to_frame(reasons=True)["reasons"])
    rows = frame.set_index("short_name")
    best = answer.best
    row = rows.loc[answer.short(best)]
    assert row["title"] == best.title
    assert row["test_accuracy_sd"] == best.sds["test_accuracy"]
    assert (row["serving"], row["place"]) == ("none", "front")
    assert rows.loc["lora/rank10-target-mlp", "yardstick"] == "lora"
    assert rows.loc["lora/rank10-target-mlp", "place"] == "tie"


def test_a_rich_console_prints_the_answer_in_its_width() -> None:
    from rich.console import Console

    answer = recommend("image_gen", peft_version="any")
    stream = io.StringIO()
    Console(file=stream, width=70).print(answer)
    printed = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert printed == answer.text(width=70).splitlines()


def test_the_answer_tells_all_that_the_record_has() -> None:
    answer = recommend("image_gen", peft_version="any", max_peak_memory="10GiB")
    shown = text(answer_document(answer, everything=True), 500)
    flat = " ".join(shown.split())
    for one in answer.front:
        for said in (one.name, one.title, one.why, one.gives_up):
            assert said in flat
        assert chance(one.front_probability).text in flat
    for tie in answer.ties:
        assert tie.name in flat
        assert tie.because in flat
    for behind in answer.dominated:
        assert f"dominated by {behind.dominated_by}" in flat
    for out in answer.dropped:
        assert out.name in flat
        assert all(failure.reason in flat for failure in out.failures)
    for warning in answer.warnings:
        assert warning in flat
    assert "peak memory at most 10GiB" in flat
    assert answer.catalog_version in flat


def test_an_empty_answer_says_what_to_relax() -> None:
    answer = recommend("metamathqa", peft_version="any", max_peak_memory="1GiB")
    assert not answer
    flat = " ".join(text(answer_document(answer), 300).split())
    assert answer.relaxations
    assert all(one.suggestion in flat for one in answer.relaxations)


def test_many_ties_are_cut_short_only_where_people_read() -> None:
    answer = recommend("image_gen", peft_version="any")
    assert len(answer.ties) > 8
    (brief,) = [table for table in answer_document(answer).tables if table.key == "ties"]
    assert len(brief.rows) == 8
    assert f"likeliest of {len(answer.ties)}" in brief.title
    (whole,) = [
        table for table in answer_document(answer, everything=True).tables if table.key == "ties"
    ]
    assert len(whole.rows) == len(answer.ties)


def test_one_seed_is_told_only_where_it_is_true(folders: Folders) -> None:
    folders.edit_run(0, "provenance", "seed", value=1)
    mixed = compile_catalog(folders.catalog, folders.data)
    assert "seed" not in text(answer_document(recommend(catalog=mixed, peft_version="any")))
    folders.edit_run(0, "provenance", "seed", value=0)
    same = compile_catalog(folders.catalog, folders.data)
    assert "seed 0" in text(answer_document(recommend(catalog=same, peft_version="any")), 200)


# --- why ---


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_every_candidate_is_explained(benchmark: str) -> None:
    answer = recommend(benchmark, peft_version="any", quantization="bnb_4bit")
    for out in answer.dropped:
        flat = " ".join(text(why_document(answer, out.name), 300).split())
        assert all(failure.reason in flat for failure in out.failures)
    for behind in answer.dominated:
        flat = " ".join(text(why_document(answer, behind.name), 300).split())
        assert f"{behind.dominated_by} is better by" in flat
    for front in answer.front:
        assert front.why in " ".join(text(why_document(answer, front.name), 300).split())


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_a_run_with_images_says_on_which_site_they_are(benchmark: str) -> None:
    answer = recommend(benchmark, peft_version="any")
    named = (*answer.front, *answer.ties, *answer.dominated, *answer.dropped)
    for one in (*named, *answer.baselines):
        document = why_document(answer, one.name)
        row = next(row for row in records(document.tables[-1]) if row["name"] == one.name)
        flat = " ".join(text(document, 300).split())
        said = "another site, huggingface.co (not checked here" in flat
        assert said == (benchmark == "image_gen" and one.run is not None), one.name
        assert len((row["samples"] or "").split()) == (5 if said else 0)


def test_a_method_stands_for_all_its_runs() -> None:
    answer = recommend("metamathqa", peft_version="any")
    (table,) = [t for t in why_document(answer, "lora").tables if t.key == "why"]
    names = {row["name"] for row in records(table)}
    runs = {run.experiment for run in current_runs(load(), "metamathqa") if run.method == "lora"}
    assert names == runs


@pytest.mark.parametrize("name", ["full_finetuning", "full-finetuning", "cpt"])
def test_baselines_and_unmeasured_methods_are_explained(name: str) -> None:
    answer = recommend("metamathqa", peft_version="any")
    assert records(why_document(answer, name).tables[-1])


def test_an_unknown_candidate_is_an_error_with_the_nearest_names() -> None:
    answer = recommend("metamathqa", peft_version="any")
    with pytest.raises(UnknownNameError, match="did you mean 'shira'"):
        why_document(answer, "shirra")


# --- methods, runs, comparisons ---


def test_a_card_has_every_capability_variant_and_run(catalog: Catalog) -> None:
    for method in catalog.methods:
        document = card_document(catalog, method)
        flat = " ".join(text(document, 400).split())
        rows = [row for table in document.tables for row in records(table)]
        found = {row["feature"]: row["support"] for row in rows if "feature" in row}
        assert found == {k: one.support for k, one in method.capabilities.items()}
        assert set(found) == set(FEATURE_IDS)
        for variant in method.variants:
            assert variant.summary in flat
        for note in method.notes:
            assert note in flat
        runs = [row["experiment"] for row in rows if "experiment" in row]
        assert sorted(runs) == sorted(r.experiment for r in catalog.runs if r.method == method.id)


def test_the_list_of_methods_has_every_capability_as_data(catalog: Catalog) -> None:
    (table,) = methods_document(catalog, catalog.methods).tables
    for row, method in zip(records(table), catalog.methods, strict=True):
        assert row["method"] == method.id
        assert {name: row[name] for name in FEATURE_IDS} == {
            name: method.capabilities[name].support for name in FEATURE_IDS
        }


def test_scores_of_two_eras_never_stand_in_one_column_unsaid(catalog: Catalog) -> None:
    benchmark = catalog.benchmark_by_id["metamathqa"]
    runs = catalog.runs_by_benchmark["metamathqa"]
    assert len({run.era for run in runs}) > 1
    for width in (40, 60, 80, 200):
        shown = text(runs_document(catalog, benchmark, runs), width)
        assert "Era" in shown


def test_runs_are_sorted_best_first_with_missing_ones_last(catalog: Catalog) -> None:
    benchmark = catalog.benchmark_by_id["metamathqa"]
    runs = catalog.runs_by_benchmark["metamathqa"]
    for name in ("peak_memory", "test_accuracy", "trainable_parameters"):
        metric = catalog.metric_by_id[name]
        document = runs_document(catalog, benchmark, runs, sort_by=metric)
        values = [row[metric.field] for row in records(document.tables[0])]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=metric.better == "higher")
        assert values[: len(known)] == known


def test_a_comparison_tells_differences_with_their_certainty(catalog: Catalog) -> None:
    query = build_query(catalog, benchmark="metamathqa")
    subjects = resolve_subjects(catalog, query, ["lora", "shira", "cpt", "lora"])
    assert len(subjects) == 3
    document = compare_document(catalog, query, subjects)
    flat = " ".join(text(document, 300).split())
    assert "likely to hold on other questions like these" in flat
    assert "without a run here" in flat
    figures = records(document.tables[0])
    for row in figures:
        for subject in subjects[:2]:
            assert subject.contender is not None
            metric = catalog.metric_by_field[str(row["metric"])]
            assert row[subject.name] == subject.contender.values.get(metric.id)


def test_a_comparison_shows_only_what_differs_unless_asked(catalog: Catalog) -> None:
    query = build_query(catalog, benchmark="metamathqa")
    subjects = resolve_subjects(catalog, query, ["lora", "shira"])
    (brief,) = [
        t for t in compare_document(catalog, query, subjects).tables if t.key == "capabilities"
    ]
    whole = compare_document(catalog, query, subjects, everything=True)
    (full,) = [t for t in whole.tables if t.key == "capabilities"]
    assert len(records(full)) == len(FEATURE_IDS)
    for row in records(brief):
        name, *supports = row.values()
        assert len(set(supports)) > 1, name


# --- names ---


def test_a_run_is_found_by_id_experiment_and_lonely_method(catalog: Catalog) -> None:
    for run in current_runs(catalog, "metamathqa"):
        assert resolve_run(catalog, run.id) is run
        assert resolve_run(catalog, run.experiment) is run
    assert resolve_run(catalog, "shira", "image-gen").experiment == "shira/flux2-klein-default"
    with pytest.raises(QueryError, match="2 runs; name one of them"):
        resolve_run(catalog, "shira")
    with pytest.raises(QueryError, match="was not measured"):
        resolve_run(catalog, "cpt")
    with pytest.raises(UnknownNameError, match="rank64-rslora"):
        resolve_run(catalog, "lora/llama-3.2-3B-rank64-rslor")


def test_an_old_experiment_stands_for_its_newest_run(catalog: Catalog) -> None:
    current = {run.experiment for run in current_runs(catalog, "metamathqa")}
    old = [run for run in catalog.runs_by_benchmark["metamathqa"] if run.experiment not in current]
    assert old
    for run in old:
        found = resolve_run(catalog, run.experiment)
        same = [one for one in old if one.experiment == run.experiment]
        assert found.created_at == max(one.created_at for one in same)


def test_a_run_tells_its_benchmark(catalog: Catalog) -> None:
    assert benchmark_of(catalog, ["shira/flux2-klein-default"]) == "image_gen"
    assert benchmark_of(catalog, ["lora"]) is None
    both = ["shira/flux2-klein-default", "lora/llama-3.2-3B-rank32"]
    assert benchmark_of(catalog, both) is None


def test_variants_lead_to_their_method(catalog: Catalog) -> None:
    assert resolve_card(catalog, "dora").id == "lora"
    assert resolve_card(catalog, "LoRA-FA").id == "lora"
    assert resolve_card(catalog, "IA3").id == "ia3"
    with pytest.raises(UnknownNameError, match="did you mean"):
        resolve_card(catalog, "doraa")


def test_matching_methods_are_those_of_the_oracle(catalog: Catalog) -> None:
    for feature in FEATURE_IDS:
        group, _, value = feature.rpartition(".")
        demands: dict[str, object] = {group: value} if group else {feature: True}
        found = {method.id for method in matching_methods(catalog, demands)}
        # a condition that our own script, or every measured model, meets counts as met
        met = {
            method.id
            for method in catalog.methods
            for each in method.capabilities[feature].conditions
            if method.capabilities[feature].support == "partial"
            and not each.bias
            and each.square is None
            and each.tied is None
            and (each.inputs is None or 3 in each.inputs)
        }
        yes = {m.id for m in catalog.methods if m.capabilities[feature].support == "yes"}
        assert found == yes | met


# --- figures ---


def test_figures_carry_unit_sign_and_noise(catalog: Catalog) -> None:
    accuracy, memory = (catalog.metric_by_id[n] for n in ("test_accuracy", "peak_memory"))
    loss = catalog.metric_by_id["train_loss"]
    assert uncertain(0.513, 0.0086, accuracy) == "51.3 % ± 0.9"
    assert uncertain(0.513, 0.0, accuracy) == "51.3 %"
    assert uncertain(0.5663, 0.0002, loss) == "0.5663 ± 0.0002"
    assert signed(0.013, accuracy) == "+1.3 points"
    assert signed(-3 * 2**30, memory) == "-3.00 GiB"
    assert signed(0, memory) == "±0"


def test_a_probability_is_never_certain() -> None:
    assert [chance(p).text for p in (0.0, 0.004, 0.5, 0.996, 1.0, None)] == [
        "<1 %",
        "<1 %",
        "50 %",
        ">99 %",
        ">99 %",
        "-",
    ]


# --- maintenance ---


def test_violations_name_rule_file_and_place(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "installed_methods", lambda: frozenset({"lora", "cpt"}))
    clean = validate(folders.catalog, folders.data)
    assert "No rule is broken" in text(validation_document(clean))
    folders.edit("catalog/curated/lora.toml", "Learns the product", "TODO learns the product")
    folders.edit_json("catalog/observed/lora.json", "capabilities", "merging", "level", value="x")
    broken = validate(folders.catalog, folders.data)
    assert broken.violations
    shown = records(validation_document(broken).tables[0])
    assert [row["message"] for row in shown] == [v.problem.message for v in broken.violations]
    assert [row["path"] for row in shown] == [v.problem.path for v in broken.violations]


def test_a_report_of_skipped_rules_warns() -> None:
    assert "not looked at" in text(validation_document(Report((), skipped=("not looked at",))))


def test_an_ingestion_lists_what_was_left_out() -> None:
    report = IngestReport(
        added=("sums: a@2026",),
        updated=(),
        unchanged=(),
        outside=(),
        duplicates=(),
        left_out=(Problem("x.json", "train_info", "is missing"),),
        notes=(),
        snapshots=("2026-03",),
        written=(),
        total={"sums": 3},
    )
    shown = text(ingest_document(report))
    for said in ("3 on sums", "x.json: train_info: is missing", "sums: a@2026", "2026-03"):
        assert said in shown
    counts = {row["kind"]: row["count"] for row in records(ingest_document(report).tables[0])}
    assert (counts["added"], counts["left out"], counts["updated"]) == (1, 1, 0)


def test_a_difference_tells_fronts_runs_and_capabilities(folders: Folders) -> None:
    old = compile_catalog(folders.catalog, folders.data)
    assert "Nothing changed" in text(difference_document(diff(old, old)))
    folders.edit_json(
        "catalog/observed/lora.json", "capabilities", "hot_swapping", "support", value="yes"
    )
    folders.add_run("lora/best", 1_500, 0.8, created_at="2026-02-01T00:00:00Z")
    new = compile_catalog(folders.catalog, folders.data)
    (table,) = difference_document(diff(old, new)).tables
    rows = {(row["kind"], row["what"]): (row["old"], row["new"]) for row in records(table)}
    assert rows["front", "sums: lora/best"] == (None, "on the front")
    assert rows["capability", "lora: hot_swapping"] == ("no trained", "yes trained")
    assert ("run", "sums:lora/best@2026-02-01T00:00:00Z") in rows


def test_noise_has_its_unit_and_its_runs(catalog: Catalog) -> None:
    document = noise_document(catalog, catalog.noise, catalog.era_shifts)
    noise, shifts = map(records, document.tables)
    assert [row["sd"] for row in noise] == [one.sd for one in catalog.noise]
    assert [row["shift"] for row in shifts] == [one.shift for one in catalog.era_shifts]


def test_observations_that_differ_are_listed(folders: Folders) -> None:
    path = folders.catalog / "observed" / "lora.json"
    before = Observation.model_validate_json(path.read_bytes())
    assert "as they are on file" in text(observation_document({"lora": before}, {"lora": before}))
    folders.edit_json(
        "catalog/observed/lora.json", "capabilities", "merging", "support", value="no"
    )
    after = Observation.model_validate_json(path.read_bytes())
    (table,) = observation_document({"lora": before}, {"lora": after}).tables
    (row,) = records(table)
    assert (row["feature"], row["old"], row["new"]) == ("merging", "yes verified", "no verified")
    (everything,) = observation_document({}, {"lora": after}).tables
    assert len(everything.rows) == len(FEATURE_IDS)
