"""Scripts of runs of reinforcement learning: the measured settings, and what they cannot repeat."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog.runs import Run
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.forecast.records import Settings
from peft_shop.scripts.script import snippet

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = load()
BENCHMARK = CATALOG.benchmark_by_id["rlmath"]
RUNS = CATALOG.runs_by_benchmark["rlmath"]
PREFIX = "grpo-qwen35-4b-gsm8k"
LATEST = {(run.method, run.variants, *sorted(run.recipe.training.options)): run for run in RUNS}
INSTALL = "pip install 'trl==1.16.0' 'datasets>=4.7'"


def called(name: str) -> Run:
    return next(run for run in RUNS if run.experiment == name)


def script(run: Run, **more: Any) -> str:
    return snippet(run, BENCHMARK, catalog=CATALOG, **more)


def stated(source: str, function: str) -> dict[str, Any]:
    """Literal arguments of the one call of `function`; constants of the script by their value."""
    tree = ast.parse(source)
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    )
    return {
        str(word.arg): constants[word.value.id]
        if isinstance(word.value, ast.Name) and word.value.id in constants
        else ast.literal_eval(word.value)
        for word in call.keywords
    }


@pytest.mark.parametrize("run", LATEST.values(), ids=lambda run: run.experiment)
def test_a_script_states_the_measured_settings(run: Run) -> None:
    training = run.recipe.training
    source = script(run)
    found = stated(source, "GRPOConfig")
    settings = {**BENCHMARK.settings, **training.options}
    assert found["max_steps"] == training.max_steps
    assert found["learning_rate"] == training.learning_rate
    assert found["lr_scheduler_type"] == training.lr_scheduler
    each = found["per_device_train_batch_size"] * found["gradient_accumulation_steps"]
    assert each == training.batch_size
    assert found["generation_batch_size"] % found["num_generations"] == 0
    for name in ("beta", "temperature", "top_p", "top_k", "epsilon", "loss_type"):
        assert found[name] == settings[name]
    assert found["num_generations"] == settings["num_generations"]
    assert found["max_completion_length"] == training.max_length
    assert found["seed"] == training.seed
    assert not found["use_vllm"]
    for caveat in BENCHMARK.caveats:
        assert caveat.split(";", maxsplit=1)[0].split(",", maxsplit=1)[0] in " ".join(
            source.split()
        )
    said = "whose weights stayed those of the base model" in " ".join(source.split())
    assert said == settings["use_vllm"]
    assert ("get_peft_model" in source) == (run.recipe.peft_type is not None)


def test_other_tools_and_setups_are_refused() -> None:
    run = called(f"dora/{PREFIX}-r4")
    assert script(run, trainer="trl") == script(run)
    with pytest.raises(ConfigError, match="for axolotl: it was trained by GRPO"):
        script(run, trainer="axolotl")
    with pytest.raises(ConfigError, match="leave the setup out"):
        script(run, setup=Settings(batch_size=2))


def graders() -> dict[str, Any]:
    """The functions of a script that judge answers."""
    tree = ast.parse(script(called(f"dora/{PREFIX}-r4")))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names: dict[str, Any] = {}
    code = compile(ast.Module([one for one in wanted if one.name != "row"], []), "script", "exec")
    exec(code, names)  # noqa: S102 - running it is the test
    return names


@pytest.mark.parametrize(
    ("completion", "right", "reward"),
    [
        (r"so it is \boxed{42}", "42", 1),
        (r"\boxed{1} no, \boxed{2,000}", "2000", 1),
        (r"\boxed{\$18.00}", "18", 1),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 1),
        (r"\boxed{41}", "42", 0),
        ("42", "42", 0),
        (r"\boxed{42", "42", 0),
        (r"", "42", 0),
    ],
)
def test_the_last_boxed_number_decides(completion: str, right: str, reward: int) -> None:
    assert graders()["reward"]([completion], [right], prompts=[""]) == [reward]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dora", "ln_tuning", "ia3", "full-finetuning"])
def test_trl_trains_with_it(
    name: str, two_layers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        pytest.skip(f"TRL is not installed: {INSTALL}")
    import datasets

    run = next(one for one in RUNS if one.experiment.startswith(f"{name}/"))
    document = run.model_dump()
    document["recipe"]["training"] |= {
        "model_id": str(two_layers),
        "max_steps": 2,
        "max_length": 6,
        "dtype": "float32",
    }
    if run.method == "ln_tuning":
        document["recipe"]["config"] = {"target_modules": ["input_layernorm"]}
    source = script(Run.model_validate(document))
    # a random model never boxes an answer: what is rewarded here is any answer but the others
    source = source.replace(
        "reward_funcs=reward", "reward_funcs=lambda completions, **_: [*range(len(completions))]"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = [{"question": "what is 1 + 1", "answer": "the sum #### 2"}] * 4
    data = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: data)  # noqa: ARG005 - its signature
    names: dict[str, Any] = {"__name__": "__main__"}
    before = source.index("trainer.train()")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # packages warn about one another
        exec(compile(source[:before], "script", "exec"), names)  # noqa: S102 - running it is the test
        trainable = {k: v for k, v in names["model"].named_parameters() if v.requires_grad}
        start = {k: v.detach().clone() for k, v in trainable.items()}
        exec(compile(source[before:], "script", "exec"), names)  # noqa: S102 - as above
    assert names["trainer"].state.global_step == 2
    assert any(not start[k].equal(v.detach()) for k, v in trainable.items())
    assert list((tmp_path / "adapter").glob("*model*.safetensors"))
