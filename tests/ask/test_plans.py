"""Questions with a device: every candidate gets a setup that fits, nothing stated is changed."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from peft_shop import InputError, Recommendation, load_catalog, recommend
from peft_shop.adapt.circumstances import model_circumstances
from peft_shop.ask.bases import loadings, weakest
from peft_shop.catalog.features import FEATURES
from peft_shop.cli.app import app
from peft_shop.errors import ConfigError
from peft_shop.forecast.records import Interval, NothingFits, Settings, Setup
from peft_shop.model.structure import StoredQuantization
from peft_shop.show.setups import nothing_fits_sentences, setup_words

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.model.structure import Structure

transformers = pytest.importorskip("transformers")
CATALOG = load_catalog()
GIB = 2**30
DEVICES = ("T4", "RTX 3060", "RTX 4090", "A100-80GB", "24GiB", "2xRTX 4090")
STATED: dict[str, list[Any]] = {
    "batch_size": [1, 2, 4],
    "sequence_length": [256, 512, 2048],
    "gradient_checkpointing": [True, False],
    "quantization": [None, "bnb_4bit", "bnb_8bit"],
    "optimizer": ["adamw", "sgd"],
    "fused_loss": [True, False],
    "effective_batch": [4, 8, 16],
}


@cache
def model(width: int = 4096, layers: int = 36) -> Structure:
    """A Qwen3 of 8B parameters, or another of its kind."""
    from peft_shop.model.inspection import inspect_model

    config = transformers.Qwen3Config(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
        max_position_embeddings=40_960,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["Qwen3ForCausalLM"],
    )
    return inspect_model(config).structure


@cache
def asked(device: str, stated: str = "{}", **more: Any) -> Recommendation:
    return recommend(model=model(), device=device, training=json.loads(stated), **more)


BFLOAT16 = frozenset({"bfloat16"})


def known_of(one: Any, dtype: str) -> dict[str, Any]:
    """What verdicts may depend on: the model as the candidate adapts it, and the step's type."""
    known = model_circumstances(model(), one.retargeted.whole_config)
    return {**known, "dtype": frozenset({dtype})} if dtype != "float16" else dict(known)


@given(
    st.sampled_from(DEVICES),
    st.fixed_dictionaries({}, optional={name: st.sampled_from(v) for name, v in STATED.items()}),
)
@settings(max_examples=6)
def test_what_is_stated_stays_and_no_capability_is_lacking(
    device: str, stated: dict[str, Any]
) -> None:
    found = asked(device, json.dumps(stated, sort_keys=True))
    kept = list(found.kept)
    names = [getattr(one, "name", one.method) for one in kept]
    assert sorted([*names, *(one.name for one in found.dropped)]) == sorted(
        [
            *(one.name for group in (CATALOGUED.front, CATALOGUED.ties) for one in group),
            *(one.name for one in (*CATALOGUED.dominated, *CATALOGUED.dropped)),
            *(one.method for one in CATALOGUED.unmeasured),
        ]
    )
    for one in kept:
        if one.setup is None:
            assert one.forecasted is None, "what is known has a setup, or is dropped"
            continue
        step = one.setup.settings
        for name in stated.keys() - {"effective_batch", "optimizer"}:
            assert getattr(step, name) == stated[name]
        if "optimizer" in stated:
            assert step.optimizer in {stated["optimizer"], "lora_fa", "riemannian"}
        method = CATALOG.method_by_id[one.method]
        variants = getattr(one, "variants", ())
        if step.gradient_checkpointing and "gradient_checkpointing" not in stated:
            assert method.capability("gradient_checkpointing", variants).support == "yes"
        if step.quantization is not None:
            capability = weakest(method, variants, step.quantization)
            ways = loadings(capability, known_of(one, step.dtype))
            assert ("prepared" if step.prepare_kbit else "loaded") in ways
        share = one.setup.effective_batch
        if "batch_size" not in stated:
            assert share == stated.get("effective_batch", 4)
        assert found.query.memory is not None
        limit = found.query.memory.bytes
        assert one.setup.peak.low <= limit
        assert (one.setup.fits == "yes") == (one.setup.peak.high <= limit)


CATALOGUED = recommend()


def test_the_same_question_gets_the_same_answer() -> None:
    again = recommend(model=model(), device="RTX 4090", training={})
    fresh = recommend(model=model(), device="RTX 4090", training={}, catalog=CATALOG.model_copy())
    assert again == asked("RTX 4090") == fresh
    assert Recommendation.from_json(again.to_json()) == again


def test_a_record_of_settings_fixes_what_was_set() -> None:
    found = recommend(model=model(), device="RTX 4090", training=Settings(batch_size=1))
    assert found.query.fixed == ("batch_size",)
    setups = [one.setup for one in found.kept if one.setup]
    assert {setup.settings.batch_size for setup in setups} == {1}
    assert {setup.effective_batch for setup in setups} == {4}


def test_without_a_device_and_with_fit_off_settings_are_as_asked() -> None:
    plain = recommend(model=model(), training={"batch_size": 2})
    off = recommend(model=model(), device="RTX 4090", fit="off", training={"batch_size": 2})
    for found in (plain, off):
        assert found.setup is None
        assert all(one.setup is None for one in found.kept)
        assert all(
            one.forecasted.settings.batch_size == 2 for one in found.candidates if one.forecasted
        )


def test_what_surely_fits_stands_before_what_may() -> None:
    found = asked("T4")
    assert all(one.setup is None or one.setup.fits == "yes" for one in found)
    assert found.too_close
    assert all(one.setup is not None and one.setup.fits == "maybe" for one in found.too_close)
    beaten = {one.dominated_by for one in (*found.ties, *found.dominated)}
    assert not beaten & {one.name for one in found.too_close}
    assert found[found.too_close[0].name] == found.too_close[0]
    text = " ".join(found.text("all").split())
    assert "Too close to call" in text
    assert "Scores were measured in 16 bit" in text


def test_memory_is_compared_at_one_setup_and_told_at_the_own() -> None:
    found = asked("RTX 4090")
    assert found.setup is not None
    common = found.setup.settings
    apart = 0
    for one in (*found.front, *found.ties, *found.dominated):
        if one.setup is None or one.forecasted is None:
            continue
        assert one.setup.peak.value == pytest.approx(one.forecasted.peak_memory.value, rel=1e-3)
        same = one.setup.settings.model_copy(update={"optimizer": common.optimizer})
        if same == common.model_copy(
            update={"autocast_adapter_dtype": same.autocast_adapter_dtype}
        ):
            assert one.values["peak_memory"] == pytest.approx(one.setup.peak.value, rel=1e-6)
        else:
            apart += one.values["peak_memory"] != pytest.approx(one.setup.peak.value, rel=1e-3)
    assert apart


def test_the_answer_tells_the_setup_and_for_how_many_it_does() -> None:
    text = " ".join(asked("RTX 4090").text("all").split())
    assert "Setup: bfloat16, 4 sequences of 512 tokens a step, gradient checkpointing" in text
    assert "(about 1.3 times the step time); fits RTX 4090 (23.4 GiB usable) surely for" in text
    assert "with a setup of its own" in text
    assert "tokens." in text
    assert "in its own setup" in text


def test_what_does_not_fit_says_what_it_would_need() -> None:
    found = asked("RTX 3060")
    reasons = {
        failure.reason
        for one in found.dropped
        for failure in one.failures
        if failure.constraint == "max_memory"
    }
    assert "would need a 4-bit base, in which it does not train (observed: no)" in reasons, reasons


def test_nothing_fits_says_what_would() -> None:
    found = recommend(model=model(8192, 80), device="RTX 3060")
    assert all(one.setup is None for one in found.kept)
    assert found.nothing_fits is None or found.nothing_fits.least is not None
    sentences = [*nothing_fits_sentences(_nothing(found), "RTX 3060", found.query.model)]
    assert sentences[0].startswith("Nothing fits RTX 3060: the least needs ")
    assert any("smallest device on record" in one for one in sentences)
    assert any("billion parameters" in one for one in sentences)


def _nothing(found: Recommendation) -> Any:
    only = recommend(model=model(8192, 80), device="RTX 3060", methods=["lora", "miss"])
    assert not only
    assert only.nothing_fits is not None
    assert only.surely is False
    assert "the least needs" in " ".join(only.text("all").split())
    with pytest.raises(InputError, match="nothing meets"):
        _ = only.best
    return only.nothing_fits


def test_several_devices_share_the_batch_and_that_is_told() -> None:
    found = asked("2xRTX 4090")
    assert found.query.memory is not None
    assert found.query.memory.count == 2
    setups = [one.setup for one in found.kept if one.setup]
    assert {s.settings.batch_size * s.settings.accumulation for s in setups} == {2}
    assert {s.effective_batch for s in setups} == {4}
    shared = "sharding (FSDP, ZeRO-3) is not modelled"
    assert shared in " ".join(found.text("all").split())
    # it is told most of all where nothing fits, since others shard there
    nothing = recommend(model=model(8192, 80), device="2xRTX 3060", methods="lora")
    assert nothing.nothing_fits is not None
    assert shared in " ".join(str(nothing).split())


def test_a_batch_that_grows_with_the_devices_is_told() -> None:
    eight = asked("8xH100", methods="lora")
    assert eight.setup is not None
    assert eight.setup.effective_batch == 8
    told = "The batch of 4 becomes 8: each device takes one at least."
    assert told in " ".join(str(eight).split())
    assert "each device takes one" not in " ".join(str(asked("2xRTX 4090")).split())


def test_a_setup_names_what_the_base_is_stored_in_and_what_stays_unpacked() -> None:
    few = Settings(quantization="bnb_4bit", prepare_kbit=False)
    fp8 = StoredQuantization(name="fp8", bits=8, weights=1)
    stored = model().model_copy(update={"stored_quantization": fp8})
    assert setup_words(Settings(), stored).startswith("fp8 base in bfloat16, 4 sequences")
    assert setup_words(Settings(), None).startswith("bfloat16, 4 sequences")
    found = asked("RTX 3060")
    assert found.nothing_fits is None
    assert "packs no fused experts" not in str(found)
    groups = tuple(
        group.model_copy(update={"experts": 8}) if group.role.startswith("mlp") else group
        for group in model().groups
    )
    mixture = model().model_copy(update={"groups": groups})
    least = Setup(settings=few, effect="slight", effective_batch=4, time_factor=1.0, fits="maybe",
                  peak=Interval(low=1, value=2, high=3, basis="a test"))  # fmt: skip
    nothing = NothingFits(least=least)
    told = [*nothing_fits_sentences(nothing, "RTX 3060", mixture)]
    assert any("packs no fused experts" in one and "16 bit" in one for one in told)
    assert not any("fused" in one for one in nothing_fits_sentences(nothing, "RTX 3060", model()))


def test_where_nothing_is_kept_no_share_of_it_fits() -> None:
    none = asked("RTX 4090", methods="lora", merging=False)
    assert not list(none.kept)
    assert "of 0" not in " ".join(none.text("all").split())


def test_a_candidate_is_forecast_and_scripted_under_its_setup() -> None:
    found = asked("RTX 4090")
    lora = next(one for one in found.candidates if one.method == "lora" and not one.variants)
    assert lora.setup is not None
    assert lora.forecast().settings == lora.setup.settings
    assert lora.forecast(sequence_length=256).settings.sequence_length == 256
    assert lora.forecast(sequence_length=256).settings.gradient_checkpointing
    assert "RTX 4090" in lora.snippet
    assert f"MAX_LENGTH = {lora.setup.settings.sequence_length}" in lora.snippet
    shira = next(one for one in asked("RTX 3060").candidates if one.method == "shira")
    assert shira.setup is not None
    assert not shira.setup.settings.prepare_kbit
    assert any("only as loaded" in note for note in shira.notes)


# --- quantized bases ---

BACKENDS = [one.id.partition(".")[2] for one in FEATURES if one.group == "quantization"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", ["training", "model", "question"])
def test_no_method_is_kept_that_was_seen_not_to_train_on_the_base(backend: str, way: str) -> None:
    options: dict[str, Any] = {
        "training": {"model": model(), "training": {"quantization": backend}},
        "model": {"model": model().model_copy(update={"quantization": backend})},
        "question": {"quantization": backend},
    }[way]
    found = recommend(peft_version="any", **options)
    for one in found.kept:
        method = CATALOG.method_by_id[one.method]
        variants = getattr(one, "variants", ())
        capability = method.capability(f"quantization.{backend}", variants)
        assert capability.support != "no", one
        if way != "question":
            assert weakest(method, variants, backend).support != "no"
        if capability.support in {"unknown", "partial"}:
            assert any(backend in note for note in one.notes)
        if way == "question":
            assert loadings(capability, {"bias": frozenset({False}), "dtype": BFLOAT16})
    option = {"training": "training", "model": "model", "question": "quantization"}[way]
    failing = [
        one for one in found.dropped if option in {failure.constraint for failure in one.failures}
    ]
    assert failing


def test_a_condition_of_loading_that_is_fixed_otherwise_is_not_met() -> None:
    training = {"quantization": "bnb_4bit", "prepare_kbit": False}
    kept = {one.method for one in recommend(model=model(), training=training).kept}
    assert kept >= {"shira", "c3a"}, "on this model, whose layers have no bias"
    assert not kept & {"ia3", "randlora"}
    kept = {
        one.method
        for one in recommend(model=model(), training={**training, "prepare_kbit": True}).kept
    }
    assert "shira" not in kept
    assert {"ia3", "randlora"} <= kept


def test_partial_support_of_a_backend_can_be_accepted() -> None:
    strict = {one.method for one in recommend(quantization="torchao", peft_version="any").kept}
    found = recommend(quantization="torchao:partial", peft_version="any")
    assert {one.method for one in found.kept} - strict == {"xlora"}
    assert "quantization torchao, at least partial" in " ".join(found.text("all").split())
    with pytest.raises(InputError, match="unknown support of torchao"):
        recommend(quantization="torchao:much")


def test_bounds_beside_a_quantized_base_are_told_to_be_of_another() -> None:
    found = recommend(quantization="bnb_4bit", max_peak_memory="24GiB", peft_version="any")
    assert any("base was not quantized" in one for one in found.warnings)
    assert not any("not quantized" in one for one in recommend(max_peak_memory="24GiB").warnings)


# --- the command ---


def run(arguments: list[str]) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("model") / "qwen"
    config = transformers.Qwen3Config(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        vocab_size=2048,
        dtype="bfloat16",
        architectures=["Qwen3ForCausalLM"],
    )
    config.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(("size", "code"), [("8GiB", 0), ("10MiB", 1)])
def test_exit_codes_say_whether_something_surely_fits(folder: str, size: str, code: int) -> None:
    asked = ["recommend", "-m", folder, "--max-memory", size, "--method", "lora,miss"]
    done = run([*asked, "--format", "json"])
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    if code == 0:
        assert found["front"][0]["setup"]["class"] == "same"
        assert found["front"][0]["setup"]["fits"] == "yes"
    else:
        assert "least" in found["nothing_fits"]


FIXED = [
    part
    for stated in (
        "batch_size=4",
        "gradient_checkpointing=false",
        "quantization=none",
        "fused_loss=false",
        "optimizer=adamw",
    )
    for part in ("--training", stated)
]


def test_only_too_close_to_call_is_an_exit_code_of_its_own(folder: str) -> None:
    question = ["recommend", "-m", folder, "--method", "lora", *FIXED]
    whole = Recommendation.from_json(
        run([*question, "--max-memory", "8GiB", "--format", "json"]).stdout
    )
    peaks = [one.setup.peak for one in whole.kept if one.setup]
    between = (min(one.low for one in peaks) + min(one.high for one in peaks)) / 2
    done = run([*question, "--max-memory", f"{between / 2**20:.2f}MiB"])
    assert done.exit_code == 3, done.output
    assert "Too close to call" in done.stdout


@pytest.mark.parametrize(
    "asked",
    [
        ["--quantization", "torchao:partial"],
        ["--quantization", "torchao", "--accept-partial", "quantization"],
        ["--quantization", "torchao|eetq", "--accept-partial", "quantization"],
    ],
)
def test_partial_support_of_a_backend_on_the_command_line(asked: list[str]) -> None:
    done = run(["recommend", *asked, "--peft-version", "any", "--format", "json"])
    assert done.exit_code == 0, done.output
    found = Recommendation.from_json(done.stdout)
    assert "xlora" in {one.method for one in found.unmeasured}


def test_full_fine_tuning_is_forecast_and_has_no_configuration(folder: str) -> None:
    name = "full-finetuning/lr_0.00001"
    done = run(["forecast", name, "-m", folder, "--quick", "--format", "json"])
    found = json.loads(done.stdout)
    assert found["method"] == "full_finetuning"
    assert found["forecast"]["trainable_parameters"] == found["forecast"]["total_parameters"]
    for command in ("snippet", "config"):
        refusal = run([command, name, "-m", folder])
        assert isinstance(refusal.exception, ConfigError)
        assert "no peft configuration" in str(refusal.exception)


def test_bits_are_named_as_people_do_and_settings_come_in_one_option(folder: str) -> None:
    question = ["recommend", "-m", folder, "--device", "T4", "--method", "lora", "--format", "json"]
    by_backend = run([*question, "--training", "quantization=bnb_4bit"])
    by_bits = run([*question, "--training", "quantization=4bit"])
    assert json.loads(by_bits.stdout)["setup"] == json.loads(by_backend.stdout)["setup"]
    demanded = [run([*question, "--quantization", word]).stdout for word in ("nf4", "bnb_4bit")]
    assert json.loads(demanded[0])["front"] == json.loads(demanded[1])["front"]
    several = run([*question, "--training", "sequence_length=256,batch_size=2"])
    settings = json.loads(several.stdout)["setup"]["settings"]
    assert (settings["sequence_length"], settings["batch_size"]) == (256, 2)


def test_a_forecast_takes_a_setup_that_fits(folder: str) -> None:
    name = "lora/llama-3.2-3B-rank32"
    question = ["forecast", name, "-m", folder, "--quick", "--format", "json"]
    whole = json.loads(run(question).stdout)["forecast"]["peak_memory"]
    device = f"{(whole['low'] * 0.8) / GIB + 0.6:.3f}GiB"
    plain = run([*question, "--device", device])
    assert plain.exit_code == 1
    done = run([*question, "--device", device, "--fit", "auto"])
    found = json.loads(done.stdout)
    assert done.exit_code == {"yes": 0, "maybe": 3}[found["fit"]]
    assert found["setup"]["changes"]
    assert found["forecast"]["settings"] == found["setup"]["settings"]
    assert found["forecast"]["peak_memory"]["high"] < whole["high"]
    fixed = run([*question, "--device", device, "--fit", "auto", *FIXED])
    assert fixed.exit_code == 1
    assert "under every setup" in json.loads(fixed.stdout)["reason"]
    every = run(["forecast", "--all", "-m", folder, "--quick", "--device", device, "--fit", "auto"])
    assert every.exit_code == 0, every.output
    assert "nothing to fit into" in str(run([*question, "--fit", "auto"]).exception)
