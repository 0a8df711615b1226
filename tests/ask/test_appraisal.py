"""Forecasts in a question: figures replaced, limits met, advice computed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from peft_shop import InputError, Recommendation, recommend
from peft_shop.cli.app import app
from peft_shop.forecast.devices import device_of
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.records import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.model.inspection import Target

transformers = pytest.importorskip("transformers")
GIB = 2**30


@pytest.fixture(scope="module")
def target() -> Target:
    from peft_shop.model.inspection import inspect_model

    return inspect_model(
        transformers.Qwen3Config(
            hidden_size=2560,
            num_hidden_layers=36,
            intermediate_size=9728,
            num_attention_heads=32,
            num_key_value_heads=8,
            tie_word_embeddings=True,
            dtype="bfloat16",
            architectures=["Qwen3ForCausalLM"],
        )
    )


@pytest.fixture(scope="module")
def answer(target: Target) -> Recommendation:
    return recommend(model=target.structure, max_memory="22GiB", fit="off")


def kept(answer: Recommendation) -> list[Any]:
    return [*answer.front, *answer.ties, *answer.dominated]


def test_figures_are_forecasts_for_the_model(target: Target, answer: Recommendation) -> None:
    known = [one for one in kept(answer) if one.forecasted is not None]
    assert {one.method for one in kept(answer)} - {one.method for one in known} <= {"shadow"}
    assert known
    for one in known:
        again = closed_form(target.structure, one.config_dict, one.forecasted.settings)
        assert one.values["peak_memory"] == round(again.peak_memory.value)
        assert one.values["trainable_parameters"] == again.trainable_parameters
        assert one.values["peak_memory"] != one.run.metrics["peak_memory_bytes"]


def test_the_limit_drops_what_is_surely_above_it(answer: Recommendation) -> None:
    limit = 22 * GIB
    known = [one for one in kept(answer) if one.forecasted is not None]
    assert all(one.forecasted.peak_memory.low <= limit for one in known)
    late = [
        one
        for one in answer.dropped
        if any(failure.constraint == "max_memory" for failure in one.failures)
    ]
    assert late
    close = [one for one in known if one.forecasted.peak_memory.high > limit]
    assert close, "some straddle the limit"
    assert all(any("too close to call" in note for note in one.notes) for one in close)


def test_a_tighter_limit_never_admits_more(target: Target, answer: Recommendation) -> None:
    less = recommend(model=target.structure, max_memory="21GiB", fit="off")
    assert {one.name for one in kept(less)} < {one.name for one in kept(answer)}


def test_the_model_s_own_dtype_and_the_demanded_backend_are_the_settings(target: Target) -> None:
    found = recommend(
        model=target.structure, max_memory="30GiB", quantization="bnb-4bit", fit="off"
    )
    settings = found.query.training
    assert settings is not None
    assert (settings.dtype, settings.quantization) == ("bfloat16", "bnb_4bit")
    plain = recommend(model=target.structure, max_memory="30GiB", fit="off")
    name = next(one.name for one in found.front if one.forecasted)
    # prepared for training it holds its activations in float32, which takes what the base gives
    found = recommend(
        model=target.structure,
        max_memory="30GiB",
        quantization="bnb-4bit",
        training={"prepare_kbit": False},
        fit="off",
    )
    assert found[name].values["peak_memory"] < plain[name].values["peak_memory"]


def test_a_device_leaves_room_for_the_process(target: Target) -> None:
    found = recommend(model=target.structure, device="2xRTX 4090")
    assert found.query.memory is not None
    assert found.query.memory.bytes == device_of("RTX 4090").usable_bytes < 24 * GIB


def test_what_to_change_is_computed_when_nothing_fits(target: Target) -> None:
    tight = {"batch_size": 8, "sequence_length": 2048}
    found = recommend(model=target.structure, max_memory="22GiB", training=tight, fit="off")
    assert all(one.forecasted is None for one in found), "what is not known is not too much"
    advice = found.warnings[0]
    assert advice.startswith("nothing fits into 22GiB: ")
    count = int(advice.partition("batch_size 1 would let ")[2].partition(" ")[0])
    taken = recommend(
        model=target.structure,
        max_memory="22GiB",
        training={**tight, "batch_size": 1},
        fit="off",
    )
    # the advice counts what fails nothing else, measured here or not
    assert count == sum(one.forecasted is not None for one in taken.kept)


def test_nothing_at_all_fits_into_nothing(target: Target) -> None:
    found = recommend(model=target.structure, max_memory="1GiB", fit="off")
    assert "smaller model or a larger device" in found.warnings[0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device": "RTX 4099"}, "did you mean 'RTX 4090'"),
        ({"device": "24GiB", "max_memory": "24GiB"}, "give one of them"),
        ({"training": {"batchsize": 4}}, "did you mean 'batch_size'"),
        ({"training": {"batch_size": 0}}, "greater than or equal to 1"),
        ({"max_memory": "24 gallons"}, "max_memory"),
        ({"training": 4}, "expected settings by name"),
        ({"training": {"effective_batch": 0}}, "a number from 1"),
        ({"training": {"effective_batch": 6, "batch_size": 4}}, "cannot be made of"),
        ({"fit": "always"}, "expected 'auto' or 'off'"),
        ({"fit": "auto"}, "nothing to fit into"),
        ({"training": {"sequence_length": 10**6}}, "positions that .* takes"),
        ({"training": Settings(sequence_length=10**6)}, "positions that .* takes"),
    ],
)
def test_bad_questions_say_what_is_wrong(target: Target, asked: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        recommend(model=target.structure, **asked)


def test_a_forecast_needs_a_model() -> None:
    with pytest.raises(InputError, match="give model= too"):
        recommend(device="24GiB")


def test_a_candidate_forecasts_from_a_structure_alone(target: Target) -> None:
    lora = recommend(methods="lora", peft_version="any")["lora/llama-3.2-3B-rank32"]
    found = lora.forecast(target.structure, batch_size=2, sequence_length=256)
    assert found.way == "closed_form"
    assert (found.settings.batch_size, found.settings.sequence_length) == (2, 256)
    assert found.trainable_parameters == 36 * 32 * (2560 + 4096 + 2560 + 1024)


def test_an_optimizer_that_makes_the_variant_is_the_run_s_own(target: Target) -> None:
    runs = recommend(methods="lora", peft_version="any", include_flagged=True)
    name = "lora/llama-3.2-3B-rank32"
    plain, fa = (runs[one].forecast(target.structure) for one in (name, f"{name}-lorafa"))
    assert fa.settings.optimizer == "lora_fa"
    assert fa.peak_memory.value < plain.peak_memory.value
    asked = recommend(
        model=target.structure, training={}, methods="lora", include_flagged=True, floor=0
    )
    assert asked[f"{name}-lorafa"].values["peak_memory"] == round(fa.peak_memory.value)


def test_both_ways_agree_where_heads_are_wider_than_the_model() -> None:
    from peft_shop.forecast.dry_run.forecasting import dry_run
    from peft_shop.model.inspection import inspect_model

    config = transformers.Qwen3Config(
        hidden_size=256,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        vocab_size=1000,
        dtype="bfloat16",
    )
    wide = inspect_model(config)
    lora = {"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    settings = Settings(batch_size=4, sequence_length=512)
    shapes, traced = closed_form(wide.structure, lora, settings), dry_run(wide, lora, settings)
    parts = [
        {term.name: term.bytes for term in found.terms if term.name.startswith("activations")}
        for found in (shapes, traced)
    ]
    assert sum(parts[0].values()) == pytest.approx(sum(parts[1].values()), rel=0.03)
    assert shapes.trainable_parameters == traced.trainable_parameters
    assert shapes.checkpoint_bytes == traced.checkpoint_bytes


# --- the command ---


def run(arguments: list[str]) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def folder(target: Target, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("model") / "qwen"
    target.config.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(("share", "code"), [(2.0, 0), (0.5, 1), (1.0, 3)])
def test_exit_codes_say_whether_it_fits(
    target: Target, folder: str, share: float, code: int
) -> None:
    from peft_shop.forecast.devices import CONTEXT_BYTES

    name = "lora/llama-3.2-3B-rank32"
    lora = recommend(methods="lora", peft_version="any")[name]
    peak = lora.forecast(target.structure).peak_memory.value
    device = f"{(share * peak + CONTEXT_BYTES) / GIB:.2f}GiB"
    done = run(["forecast", name, "-m", folder, "--quick", "--device", device])
    assert done.exit_code == code, done.output
    word = {0: "fits", 1: "does not fit", 3: "too close to call"}[code]
    assert f"{device}: {word}." in done.stdout


def test_all_methods_are_there_each_with_a_forecast_or_a_reason(folder: str) -> None:
    from peft_shop import load_catalog

    done = run(["forecast", "--all", "-m", folder, "--quick", "--format", "json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert sorted(one["method"] for one in found) == sorted(
        method.id for method in load_catalog().methods
    )
    assert all((one["forecast"] is None) == bool(one["reason"]) for one in found)
    assert sum(one["forecast"] is not None for one in found) > 35


def test_recommend_takes_a_device_on_the_command_line(folder: str) -> None:
    asked = ["recommend", "-m", folder, "--device", "L40S", "--training", "batch_size=2"]
    done = run([*asked, "--format", "json"])
    assert done.exit_code == 0, done.output
    answer = Recommendation.from_json(done.stdout)
    assert answer.query.training == Settings(batch_size=2, dtype="bfloat16")
    assert answer.query.memory is not None
    assert answer.query.memory.device == "L40S"
    shown = " ".join(run(asked).stdout.split())
    assert "memory at most L40S" in shown


def test_a_candidate_or_all_of_them(folder: str) -> None:
    done = run(["forecast", "-m", folder])
    assert isinstance(done.exception, InputError)
    assert "or give --all" in str(done.exception)
