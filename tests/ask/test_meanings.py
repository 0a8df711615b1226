"""One resolver: a name means the same in every command and keyword."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog, recommend
from peft_shop.ask.lookup import (
    benchmark_of,
    choose_run,
    choose_subject,
    matching_methods,
    resolve_adapter,
    resolve_card,
    resolve_subjects,
)
from peft_shop.ask.meanings import (
    current_runs,
    fold,
    meaning_of,
    method_meaning,
    names_of_methods,
    runs_called,
)
from peft_shop.ask.picks import resolve_picks
from peft_shop.ask.reading import build_query
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import AmbiguousNameError, InputError, QueryError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

CATALOG = load_catalog()
VARIANTS = [(method, variant) for method in CATALOG.methods for variant in method.variants]
SPELLINGS: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.lower,
    lambda name: name.replace("_", "-"),
    lambda name: name.replace("-", " "),
    lambda name: f"  {name} ",
]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_method_goes_by_every_name_however_spelt(spell: Callable[[str], str]) -> None:
    for method in CATALOG.methods:
        for name in (method.id, method.title, method.config_class, *method.aliases):
            meaning = meaning_of(CATALOG, spell(name))
            assert (meaning.method, meaning.variant, meaning.run) == (method.id, None, None)
            assert resolve_card(CATALOG, spell(name)) is method


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_variant_goes_by_its_names_or_lists_those_that_share_it(
    spell: Callable[[str], str],
) -> None:
    methods = {fold(name) for m in CATALOG.methods for name in (m.id, m.title, *m.aliases)}
    for method, variant in VARIANTS:
        own = f"{method.id}:{variant.id}"
        assert meaning_of(CATALOG, spell(own)).variant == variant.id
        for name in (variant.id, variant.title):
            sharing = {
                f"{other.id}:{one.id}"
                for other, one in VARIANTS
                if fold(name) in {fold(one.id), fold(one.title)}
            }
            if fold(name) in methods:
                continue
            if len(sharing) == 1:
                meaning = method_meaning(CATALOG, spell(name))
                assert (meaning.method, meaning.variant) == (method.id, variant.id)
            else:
                with pytest.raises(AmbiguousNameError) as caught:
                    method_meaning(CATALOG, spell(name))
                assert set(caught.value.nearest) == sharing


def test_a_run_goes_by_its_id_its_experiment_and_every_end_that_is_its_own() -> None:
    experiments = {run.experiment for run in CATALOG.runs}
    for run in current_runs(CATALOG, "metamathqa"):
        assert meaning_of(CATALOG, run.id).run is run
        assert meaning_of(CATALOG, run.experiment.upper()).run is run
        folder, _, end = run.experiment.partition("/")
        sharing = [name for name in experiments if name.endswith((f"/{end}", f"-{end}"))]
        called = runs_called(CATALOG, end)
        assert set(called) == set(sharing)
        assert runs_called(CATALOG, f"{folder}/{end}") == {run.experiment: run}
        if len(sharing) == 1:
            assert meaning_of(CATALOG, end).run is run


def test_several_runs_are_listed() -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        meaning_of(CATALOG, "flux2-klein-rank64")
    assert set(caught.value.nearest) == {"dora/flux2-klein-rank64", "lora/flux2-klein-rank64"}


@pytest.mark.parametrize("name", ["lorra", "dorra", "qalorra", "", "lora/llama-3.2-3B-rank3"])
def test_an_unknown_name_is_an_error_of_one_kind_everywhere(name: str) -> None:
    for ask in (meaning_of, choose_run, resolve_card, resolve_adapter):
        with pytest.raises(UnknownNameError):
            ask(CATALOG, name)
    with pytest.raises(UnknownNameError):
        recommend(methods=name or ["", "x"])


def test_nearest_names_are_of_all_kinds() -> None:
    for typed, near in (("dorra", "dora"), ("qlorra", "QLoRA"), ("bon", "bone"), ("mis", "miss")):
        with pytest.raises(UnknownNameError) as caught:
            meaning_of(CATALOG, typed)
        assert near in caught.value.nearest
    assert len({fold(name) for name in names_of_methods(CATALOG)}) == len(names_of_methods(CATALOG))


@given(st.text(max_size=20) | st.sampled_from(names_of_methods(CATALOG)))
@settings(max_examples=100)
def test_any_text_is_one_thing_or_an_error_of_our_own(name: str) -> None:
    try:
        meaning = meaning_of(CATALOG, name)
    except InputError:
        return
    assert meaning.method in {*CATALOG.method_by_id, FULL_FINETUNING}


# --- what a variant picks ---


def kept(**asked: Any) -> set[str]:
    answer = recommend(peft_version="any", **asked)
    return {one.name for one in (*answer.front, *answer.ties, *answer.dominated)}


def runs_of(variant: str) -> set[str]:
    return {
        run.experiment for run in current_runs(CATALOG, "metamathqa") if variant in run.variants
    }


@pytest.mark.parametrize("variant", sorted({v.id for _, v in VARIANTS if runs_of(v.id)}))
def test_a_variant_keeps_its_own_runs_and_no_other(variant: str) -> None:
    try:
        meaning = method_meaning(CATALOG, variant)
    except AmbiguousNameError:
        return
    whole = kept(methods=meaning.method)
    assert kept(methods=variant) == whole & runs_of(variant)
    assert kept(methods=meaning.method, exclude=variant) == whole - runs_of(variant)
    assert kept(methods=[variant, meaning.method]) == whole
    assert kept(methods=[variant, "oft"]) == kept(methods=variant) | kept(methods="oft")


def test_picks_say_what_is_whole() -> None:
    picks = resolve_picks(CATALOG, ["dora", "MiSS", "rslora", "qlora"], "methods")
    assert picks.methods == ("lora", "miss")
    assert picks.whole == ("miss", "lora")
    assert picks.variants == ()
    assert picks.quantization == ("bnb_4bit",)
    assert resolve_picks(CATALOG, ["dora", "LoRA-FA"], "x").variants == (
        "lora:dora",
        "lora:lora_fa",
    )


def test_qlora_is_lora_and_a_quantized_base() -> None:
    answer = recommend(methods="QLoRA", peft_version="any")
    assert answer == recommend(methods="lora", quantization="bnb_4bit", peft_version="any")
    assert [m.id for m in matching_methods(CATALOG, {}, methods="qlora")] == ["lora"]
    choice = choose_run(CATALOG, "qlora")
    assert (choice.quantization, choice.subject.variants) == ("bnb_4bit", ())
    assert "quantization=bnb_4bit" in choice.remark
    with pytest.raises(QueryError, match="exclude"):
        recommend(exclude="qlora")


def test_a_variant_is_never_answered_for_by_another_run() -> None:
    for method, variant in VARIANTS:
        runs = [
            run
            for run in current_runs(CATALOG, "metamathqa")
            if run.method == method.id and variant.id in run.variants
        ]
        for ask in (choose_run, choose_subject):
            if not runs:
                with pytest.raises(QueryError):
                    ask(CATALOG, f"{method.id}:{variant.id}", "metamathqa")
                continue
            choice = ask(CATALOG, f"{method.id}:{variant.id}", "metamathqa")
            assert choice.subject in runs
            assert (len(runs) > 1) == ("best of" in choice.remark)


def test_the_best_of_several_is_taken_and_said() -> None:
    choice = choose_subject(CATALOG, "lora", "metamathqa")
    runs = [run for run in current_runs(CATALOG, "metamathqa") if run.method == "lora"]
    sound = [run for run in runs if not run.flags]
    assert choice.subject == max(sound, key=lambda run: run.metrics["test_accuracy"])
    assert f"the best of {len(runs)} runs of LoRA" in choice.remark
    assert choose_subject(CATALOG, "cpt", "metamathqa").subject is CATALOG.method_by_id["cpt"]


def test_subjects_are_found_by_every_kind_of_name() -> None:
    query = build_query(CATALOG)
    names = ["DoRA", "bone", "lora/rank32", "full fine-tuning", "qlora"]
    subjects = resolve_subjects(CATALOG, query, names)
    found = [one.contender.run for one in subjects if one.contender]
    assert [run.method for run in found if run] == ["lora", "miss", "lora", FULL_FINETUNING, "lora"]
    assert "dora" in subjects[0].variants
    assert subjects[4].variants == ()
    assert benchmark_of(CATALOG, ["flux2-klein-lr1e-3"]) == "image_gen"
    assert benchmark_of(CATALOG, ["dora", "lora"]) is None


# --- on the command line ---


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("show dora", "DoRA (dora), a variant of LoRA (lora)"),
        ("show EVA", "No run of EVA is on file"),
        ("show qlora", "quantization=bnb_4bit"),
        ("show bone", "bone is MiSS"),
        ("why LoRA-FA", "LoRA-FA"),
        ("why qlora", "Asked for: quantization bnb_4bit"),
        ("why lora/rank32", "LoRA, lora/rank32: "),
        ("compare qlora bone", "qlora is LoRA on a base quantized to 4 bit"),
        ("recommend --method dora", "only lora:dora"),
        ("recommend --exclude dora", "not lora:dora"),
        ("runs --method DoRA", "1 runs"),
        ("methods --method qlora", "1 of 45"),
        ("config dora", '"use_dora": true'),
        ("route DoRA", "dora"),
    ],
)
def test_every_command_knows_every_name(
    run: Callable[..., tuple[int, str, str]], command: str, said: str
) -> None:
    code, out, err = run(*command.split())
    assert code == 0, err
    assert said in " ".join(out.split())


def test_the_script_of_qlora_quantizes(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run("snippet", "qlora")
    assert code == 0
    assert "BitsAndBytesConfig" in out
    assert "qlora is LoRA on a base quantized to 4 bit" in err


def test_a_variant_without_a_run_is_told(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run("why", "pissa")
    assert (code, out) == (2, "")
    assert "no run of PiSSA is on file" in err
    code, out, _ = run("recommend", "--method", "pissa")
    assert code == 1
    assert "no run of PiSSA is on file" in " ".join(out.split())


def test_the_card_of_a_variant_is_data_too(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("show", "dora", "--json")
    assert json.loads(out)["variant"]["id"] == "dora"
    _, out, _ = run("show", "qlora", "--json")
    assert json.loads(out)["quantization"] == "bnb_4bit"
