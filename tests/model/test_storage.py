"""What a model's files say of its data type and of how weights are stored is seen and counted."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.errors import ModelError
from peft_shop.forecast.quick.base_memory import base_bytes
from peft_shop.forecast.records import Settings
from peft_shop.model.datatypes import most_of, stated_dtype, unprefixed
from peft_shop.model.inspection import inspect_model
from peft_shop.model.storage import storage_of

if TYPE_CHECKING:
    from pathlib import Path

QWEN: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
    "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "num_hidden_layers": 2, "vocab_size": 96, "dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
PROJECTIONS = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128)


def saved(folder: Path, content: dict[str, Any], **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def safetensors(path: Path, **tensors: tuple[str, list[int]]) -> None:
    """A file of weights with its header alone."""
    entries = {
        name: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]}
        for name, (kind, shape) in tensors.items()
    }
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("written", ["bfloat16", "torch.bfloat16", "bf16", torch.bfloat16])
@pytest.mark.parametrize(
    "where",
    [
        ("dtype",), ("torch_dtype",), ("text_config", "dtype"), ("llm_config", "torch_dtype"),
        ("thinker_config", "text_config", "dtype"),
    ],
)  # fmt: skip
def test_data_types_are_read_wherever_they_stand(where: tuple[str, ...], written: Any) -> None:
    content: Any = written
    for key in reversed(where):
        content = {key: content, "vision_config": {"dtype": "float32"}}
    assert stated_dtype(content) == "bfloat16"


def test_a_data_type_with_a_prefix_is_read_as_transformers_needs_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", QWEN | {"dtype": "torch.float16"})
    target = inspect_model(folder)
    assert (target.structure.dtype, target.structure.dtype_stated) == ("float16", True)
    assert {one.dtype for one in target.skeleton().parameters()} == {torch.float16}
    nested = {"text_config": {"dtype": "torch.float16", "a": 1}, "quantization_config": {"b": 2}}
    assert unprefixed(nested) == nested | {"text_config": {"dtype": "float16", "a": 1}}


@pytest.mark.parametrize("wrong", ["bfloat61", 16, ["bfloat16"], {"a": 1}])
def test_what_is_no_data_type_is_refused_by_its_field(tmp_path: Path, wrong: Any) -> None:
    folder = saved(tmp_path / "m", QWEN | {"dtype": wrong})
    with pytest.raises(ModelError, match=r"config\.json: dtype: .* no data type"):
        inspect_model(folder)


def test_a_data_type_that_is_not_stated_is_assumed_and_told(tmp_path: Path) -> None:
    silent = {key: value for key, value in QWEN.items() if key != "dtype"}
    folder = saved(tmp_path / "m", silent)
    structure = inspect_model(folder).structure
    assert (structure.dtype, structure.dtype_stated) == ("bfloat16", False)
    assert any("not stated: bfloat16 is assumed" in note for note in structure.notes)
    # where the weights are, they say it
    safetensors(folder / "model-00001-of-00002.safetensors", a=("F16", [64, 64]), b=("F32", [64]))
    structure = inspect_model(folder).structure
    assert (structure.dtype, structure.dtype_stated) == ("float16", True)
    assert not any("not stated" in note for note in structure.notes)


@given(st.dictionaries(st.sampled_from(["BF16", "F16", "F32", "U8", "I64"]), st.integers(0, 9)))
def test_most_weights_decide(sizes: dict[str, int]) -> None:
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    plain = {names[key]: count for key, count in sizes.items() if key in names and count}
    found = most_of(sizes)
    assert (found is None) == (not plain)
    assert found is None or plain[found] == max(plain.values())


def stated(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


GROUP = {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group"}
STORED: tuple[tuple[dict[str, Any], str, float | None, float | None], ...] = (
    (stated("fp8", weight_block_size=[128, 128]), "fp8", 8, 1 + 4 / 128**2),
    (stated("fbgemm_fp8"), "fbgemm_fp8", 8, 1),
    (stated("mxfp4"), "mxfp4", 4, 17 / 32),
    (stated("modelopt", quant_algo="NVFP4"), "nvfp4 (modelopt)", 4, 9 / 16),
    (stated("modelopt", quant_algo="FP8"), "fp8 (modelopt)", 8, 1),
    (stated("gptq", bits=4, group_size=128), "gptq", 4, 0.5 + 2.5 / 128),
    (stated("gptq", bits=3, group_size=-1), "gptq", 3, 3 / 8),
    (stated("awq", w_bit=4, q_group_size=64), "awq", 4, 0.5 + 2.5 / 64),
    (stated("auto-round", bits=2, group_size=32), "auto-round", 2, 0.25 + 2.25 / 32),
    (stated("exl2", bits=4.65), "exl2", 4.65, 4.65 / 8),
    (stated("exl3", bits=3.5), "exl3", 3.5, 3.5 / 8),
    ({"quantization": {"group_size": 64, "bits": 4}}, "mlx", 4, 0.5 + 4 / 64),
    (stated("compressed-tensors", format="pack-quantized", config_groups={"a": {"weights": GROUP}}),
     "compressed-tensors", 4, 0.5 + 2 / 128),
    (stated("compressed-tensors", format="nvfp4-pack-quantized"),
     "compressed-tensors (nvfp4)", 4, 9 / 16),
    (stated("quark", global_quant_config={"weight": {"dtype": "int4", "group_size": 128}}),
     "quark", 4, 0.5 + 2 / 128),
    (stated("quark", global_quant_config={"weight": [{"dtype": "fp8_e4m3"}]}), "quark", 8, 1),
    (stated("quanto", weights="int8"), "quanto", 8, 1),
    (stated("torchao", quant_type="int4_weight_only"), "torchao", 4, 0.5 + 4 / 128),
    (stated("torchao", quant_type={"default": {"_type": "Float8WeightOnlyConfig"}}),
     "torchao", 8, 1),
    (stated("hqq", quant_config={"weight_quant_params": {"nbits": 4, "group_size": 64}}),
     "hqq", 4, 0.5 + 4 / 64),
    (stated("eetq", weights="int8"), "eetq", 8, 1),
    (stated("aqlm", num_codebooks=1, nbits_per_codebook=16, in_group_size=8), "aqlm", 2, 0.25),
    (stated("bitsandbytes", load_in_8bit=True), "bnb_8bit", 8, 1),
    (stated("bitsandbytes", load_in_4bit=True), "bnb_4bit", 4, 0.5625),
    (stated("a_method_of_tomorrow"), "a_method_of_tomorrow", None, None),
    (stated("a_method_of_tomorrow", bits=6), "a_method_of_tomorrow", 6, 0.75),
    ({"text_config": stated("fp8")}, "fp8", 8, 1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "name", "bits", "width"), STORED, ids=lambda one: str(one)[:40]
)
def test_formats_are_recognised_with_their_width(
    content: dict[str, Any], name: str, bits: float | None, width: float | None
) -> None:
    found = storage_of(content)
    assert found is not None
    assert (found.name, found.bits) == (name, bits)
    assert found.bytes_per_weight == (None if width is None else pytest.approx(width))


@pytest.mark.parametrize(
    "content",
    [
        {}, {"quantization_config": None}, {"quantization_config": {}}, {"quantization": "4bit"},
        stated("compressed-tensors", format="dense"), {"quantization_config": [4]},
    ],
)  # fmt: skip
def test_what_says_nothing_is_not_quantized(content: dict[str, Any]) -> None:
    assert storage_of(content) is None


def test_files_beside_the_configuration_say_it_too(tmp_path: Path) -> None:
    nvfp4 = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head", "model.layers.1.*"]},
    }
    structure = inspect_model(saved(tmp_path / "a", QWEN, hf_quant_config=nvfp4)).structure
    stored = structure.stored_quantization
    assert stored is not None
    assert stored.name == "nvfp4 (modelopt)"
    assert stored.weights == PROJECTIONS // 2
    older = inspect_model(saved(tmp_path / "b", QWEN, quantize_config={"bits": 8})).structure
    assert older.stored_quantization is not None
    assert (older.stored_quantization.name, older.stored_quantization.bits) == ("gptq", 8)


def test_types_of_the_weights_say_it_where_nothing_else_does(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", QWEN)
    safetensors(folder / "model.safetensors", a=("F8_E4M3", [64, 64]), b=("BF16", [64]))
    stored = inspect_model(folder).structure.stored_quantization
    assert stored is not None
    assert stored.name == "fp8"


def test_weights_count_at_their_stored_width(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", QWEN | stated("fp8"))
    structure = inspect_model(folder).structure
    assert structure.quantization is None
    assert structure.stored_quantization is not None
    assert structure.stored_quantization.weights == PROJECTIONS
    plain = structure.parameters - PROJECTIONS
    assert base_bytes(structure, Settings()) == 2 * plain + PROJECTIONS
    assert any("fp8 (8 bits a weight" in note and "no record" in note for note in structure.notes)
    head = next(group for group in structure.groups if group.role == "head")
    assert structure.stored_width(head) is None


def test_experts_alone_are_stored_in_mxfp4(tmp_path: Path) -> None:
    content = QWEN | {
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    structure = inspect_model(saved(tmp_path / "m", content | stated("mxfp4"))).structure
    stored = structure.stored_quantization
    assert stored is not None
    covered = [group for group in structure.groups if structure.stored_width(group)]
    assert {group.role for group in covered} == {"expert_gate_up", "expert_down"}
    assert stored.weights == 2 * 4 * 3 * 64 * 128


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 10**6) | st.text(max_size=9) | st.floats(),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["quant_method", "bits", "group_size", "weights", "config_groups", "ignore",
                 "quant_algo", "format", "global_quant_config", "weight", "quant_config"]
            ), inner, max_size=4,
        ),
        max_leaves=12,
    ),
    st.sampled_from(["gptq", "compressed-tensors", "quark", "hqq", "torchao", "fp8", "modelopt"]),
)  # fmt: skip
def test_no_statement_is_too_odd_to_be_read(value: Any, method: str) -> None:
    content = {"quantization_config": {"quant_method": method, "a": value}}
    if isinstance(value, dict):
        content["quantization_config"] |= value
    found = storage_of(content)
    width = None if found is None else found.bytes_per_weight
    assert width is None or 0 < width < 64
