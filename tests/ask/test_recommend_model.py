"""Recommendations for a model of the user's own; the law of kept and dropped stands there too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import ConfigError, InputError, Recommendation, recommend
from peft_shop.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.model.inspection import Target

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}


@pytest.fixture(scope="module")
def target() -> Target:
    from peft_shop.model.inspection import inspect_model

    return inspect_model(transformers.Qwen3Config(**TINY, head_dim=12))


@pytest.fixture(scope="module")
def gpt2() -> Target:
    from peft_shop.model.inspection import inspect_model

    config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=96)
    return inspect_model(config)


@pytest.fixture(scope="module")
def answer(gpt2: Target) -> Recommendation:
    return recommend(model=gpt2)


def names(answer: Recommendation) -> list[str]:
    kept = [one.name for group in (answer.front, answer.ties, answer.dominated) for one in group]
    kept += [one.method for one in answer.unmeasured]
    return sorted([*kept, *(one.name for one in answer.dropped)])


def test_kept_and_dropped_are_all_candidates(answer: Recommendation) -> None:
    assert names(answer) == names(recommend())


def test_what_cannot_work_there_is_dropped_with_the_reason(answer: Recommendation) -> None:
    reasons = {
        one.name: failure.reason
        for one in answer.dropped
        for failure in one.failures
        if failure.constraint == "model"
    }
    assert reasons, "GPT-2's layers are no nn.Linear"
    assert all("transformers_conv1d" in reasons[name] for name in reasons if "oft/" in name)
    kept = [*answer.front, *answer.ties, *answer.dominated]
    assert not {one.name for one in kept} & set(reasons)
    assert all(one.retargeted is not None and one.retargeted.applies for one in kept)


def test_a_model_never_adds_a_candidate(answer: Recommendation) -> None:
    def kept(one: Recommendation) -> set[str]:
        return {c.name for group in (one.front, one.ties, one.dominated) for c in group}

    assert kept(answer) <= kept(recommend())


def test_the_configuration_is_the_models_not_the_measured_one(answer: Recommendation) -> None:
    lora = next(one for one in answer.candidates if one.method == "lora" and not one.variants)
    assert lora.config_dict["target_modules"] != ["q_proj", "v_proj"]
    assert "c_attn" in str(lora.config_dict["target_modules"])
    assert lora.config.target_modules is not None
    assert lora.run.recipe.config.get("target_modules") != lora.config_dict["target_modules"]


def test_the_answer_survives_json(answer: Recommendation) -> None:
    again = Recommendation.from_json(answer.to_json())
    assert again == answer
    assert again.front[0].config_dict == answer.front[0].config_dict


def test_the_record_of_a_model_answers_as_the_model_does(
    gpt2: Target, answer: Recommendation
) -> None:
    assert recommend(model=gpt2.structure) == answer


def test_text_shows_every_change(answer: Recommendation) -> None:
    text = " ".join(str(answer).split())
    for one in answer.front:
        assert one.retargeted is not None
        for change in one.retargeted.changes:
            assert f"{change.field} " in text


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_preflight_counts_what_peft_trains(target: Target) -> None:
    from peft import get_peft_model

    answer = recommend(model=target)
    model = transformers.AutoModelForCausalLM.from_config(target.config)
    lora = next(one for one in answer.candidates if one.method == "lora" and not one.variants)
    trainable, total = get_peft_model(model, lora.config).get_nb_trainable_parameters()
    found = lora.preflight()
    assert (found.trainable_parameters, found.total_parameters) == (trainable, total)
    assert {one.role for one in found.touched} <= set(target.structure.roles)


def test_config_for_another_model_than_the_questions(target: Target) -> None:
    best = next(one for one in recommend().candidates if one.method == "lora")
    config = best.config_for(target)
    assert set(config.target_modules) <= {"q_proj", "k_proj", "v_proj", "o_proj"} | {
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_every_way_to_a_configuration_asks_the_installed_peft(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft_shop import load_catalog
    from peft_shop.adapt import installed as asking
    from peft_shop.cli.adapting import adapted
    from peft_shop.upstream import source as installed

    lily = next(one for one in recommend(peft_version="any").candidates if one.method == "lily")
    assert lily.retarget(target).applies
    old = installed.InstalledPeft("0.10.0", (), installed.installed_peft().folder)  # type: ignore[union-attr] # peft is here
    monkeypatch.setattr(asking, "installed_peft", lambda: old)
    assert any("0.10.0" in problem for problem in lily.retarget(target).problems)
    with pytest.raises(InputError, match=r"0\.10\.0"):
        adapted(load_catalog(), lily.run, target, None)


def test_a_method_that_cannot_work_is_an_error_that_says_why(gpt2: Target) -> None:
    oft = next(one for one in recommend(methods="oft").candidates if one.method == "oft")
    with pytest.raises(ConfigError, match=r"cannot work on GPT2LMHeadModel: .*transformers_conv1d"):
        oft.config_for(gpt2)


def test_a_preflight_needs_the_model_itself(gpt2: Target) -> None:
    answer = recommend(model=gpt2.structure)
    with pytest.raises(ConfigError, match="pass it as `model`"):
        answer.front[0].preflight()


@pytest.mark.parametrize(
    ("adapt", "said"),
    [
        ({"total_step": 5}, "did you mean 'total_steps'"),
        ({"total_steps": 0}, "greater than or equal to 1"),
        ({"roles": ["attention_querry"]}, "did you mean 'attention_query'"),
        ({"task_type": "CAUSAL"}, "did you mean 'CAUSAL_LM'"),
        (["total_steps"], "expected options by name"),
    ],
)
def test_wrong_options_name_what_is_valid(target: Target, adapt: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        recommend(model=target, adapt=adapt)


def test_options_need_a_model() -> None:
    with pytest.raises(InputError, match="give model= too"):
        recommend(adapt={"total_steps": 5})


def test_options_reach_the_configuration(target: Target) -> None:
    answer = recommend(model=target, adapt={"roles": "mlp_down"}, methods="lora")
    plain = next(one for one in answer.candidates if not one.variants)
    assert plain.config_dict["target_modules"] in (["down_proj"], "down_proj")


def folder(tmp_path: Path, target: Target) -> str:
    target.config.save_pretrained(tmp_path / "qwen")
    return str(tmp_path / "qwen")


def run(arguments: list[str]) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def test_the_command_line_shows_changes_and_preflight(tmp_path: Path, target: Target) -> None:
    done = run(["recommend", "--model", folder(tmp_path, target), "--format", "json"])
    assert done.exit_code == 0, done.output
    answer = Recommendation.from_json(done.stdout)
    assert all(one.preflighted is not None for one in answer.front)
    shown = run(["recommend", "--model", folder(tmp_path, target), "--all"])
    assert "trainable parameters" in " ".join(shown.stdout.split())


def test_configuration_and_script_for_a_model(tmp_path: Path, target: Target) -> None:
    model = folder(tmp_path, target)
    name = "lora/llama-3.2-3B-rank32"
    done = run(["config", name, "--model", model])
    assert json.loads(done.stdout)["target_modules"] == ["q_proj", "v_proj"]
    script = run(["snippet", name, "--model", model]).stdout
    assert repr(model)[1:-1] in script
    compile(script, "script", "exec")


def test_a_model_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft_shop.__main__ import main

    monkeypatch.setattr("sys.argv", ["peft-shop", "recommend", "--model", str(tmp_path)])
    assert main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "config.json" in error
