"""What a conversion wrote, read by the own code of an engine that needs no GPU for it."""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")
peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")

from safetensors.torch import load_file  # noqa: E402 - after the check for torch
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402 - as above

from peft_shop import convert  # noqa: E402 - as above

LAYERS, TARGETS = 2, ["q_proj", "v_proj"]


@pytest.fixture(name="load")
def loader_of_lmdeploy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """LMDeploy's `load_lora_weights`, without the rest of the package, which wants a server."""
    spec = find_spec("lmdeploy")
    if spec is None or spec.origin is None:
        pytest.skip("needs LMDeploy's files: pip install --no-deps lmdeploy==0.18.0")
    for name in ("lmdeploy", "lmdeploy.pytorch", "lmdeploy.pytorch.adapter"):
        module = ModuleType(name)
        module.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, module)
    # the one helper that it takes from the rest: hands each tensor to its parameter
    helper = ModuleType("lmdeploy.pytorch.weight_loader.model_weight_loader")
    helper.load_weight = lambda parameter, weight, **kwargs: parameter.weight_loader(  # type: ignore[attr-defined] # made here
        parameter, weight, **kwargs
    )
    monkeypatch.setitem(sys.modules, "lmdeploy.pytorch.weight_loader", ModuleType("loader"))
    monkeypatch.setitem(sys.modules, helper.__name__, helper)
    monkeypatch.delitem(sys.modules, "lmdeploy.pytorch.adapter.adapter", raising=False)
    return import_module("lmdeploy.pytorch.adapter.adapter").load_lora_weights


def host(taken: dict[str, Any]) -> Any:
    """Stand-in for the engine's model: parameters of its names that note what they are given."""
    model = torch.nn.Module()
    for layer in range(LAYERS):
        for target in TARGETS:
            for factor in ("lora_A", "lora_B"):
                name = f"model.layers.{layer}.self_attn.{target}.lora_adapters.{target}.{factor}"
                place = model
                *parts, last = name.split(".")
                for part in parts:
                    if not hasattr(place, part):
                        place.add_module(part, torch.nn.Module())
                    place = getattr(place, part)
                parameter = torch.nn.Parameter(torch.zeros(1))
                parameter.weight_loader = lambda _, weight, name=name, **__: taken.update(
                    {name: weight}
                )
                place.register_parameter(last, parameter)
    return model


@pytest.mark.slow
def test_lmdeploy_reads_a_conversion_and_refuses_the_original(load: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of what is done on purpose
        model = peft.get_peft_model(
            LlamaForCausalLM.from_pretrained(tmp_path / "base"),
            peft.LoKrConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"),
        )
        for weight in model.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.1)
        deltas = {
            name: module.get_delta_weight("default").detach()
            for name, module in model.named_modules()
            if hasattr(module, "get_delta_weight")
        }
        model.save_pretrained(tmp_path / "lokr")
        convert(tmp_path / "lokr", base=tmp_path / "base", output=tmp_path / "lora")
    taken: dict[str, Any] = {}
    load(host(taken), load_file(tmp_path / "lora" / "adapter_model.safetensors").items(), 1)
    assert len(taken) == 2 * LAYERS * len(TARGETS)
    written = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    scale = written["lora_alpha"] / written["r"]
    for name, delta in deltas.items():
        layer, target = name.split(".")[4], name.rpartition(".")[2]
        start = f"model.layers.{layer}.self_attn.{target}.lora_adapters.{target}"
        update = scale * taken[f"{start}.lora_B"] @ taken[f"{start}.lora_A"]
        assert torch.allclose(update, delta, atol=1e-5)
    with pytest.raises((AssertionError, KeyError)):
        load(host({}), load_file(tmp_path / "lokr" / "adapter_model.safetensors").items(), 1)
