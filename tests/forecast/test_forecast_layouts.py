"""What each method adds, by closed form, against the installed peft: tensors and activations."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import gc
import io
import warnings
import weakref
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - after the skip
from transformers import GPT2Config, LlamaConfig  # noqa: E402 - after the skip

from peft_shop.forecast.exact import exact_counts  # noqa: E402 - after the skip
from peft_shop.forecast.quick.closed_forms import saved_bytes  # noqa: E402 - after the skip
from peft_shop.forecast.quick.frozen import block_load, blocks_of, tokens_of  # noqa: E402 - after the skip
from peft_shop.forecast.quick.kept import kept_bytes  # noqa: E402 - after the skip
from peft_shop.forecast.quick.methods.defaults import COMMON  # noqa: E402 - as above
from peft_shop.forecast.quick.methods.registry import CLOSED_FORMS, WITHOUT_CLOSED_FORM, adapter_of  # noqa: E402 - after the skip
from peft_shop.forecast.records import Settings  # noqa: E402 - after the skip
from peft_shop.model.inspection import Target, inspect_model  # noqa: E402 - after the skip
from peft_shop.model.structure import ModuleGroup, Structure  # noqa: E402 - after the skip
from peft_shop.upstream.defaults import CLASS_DEFAULTS  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOW = pytest.mark.slow


def fast_first(
    cases: list[tuple[str, dict[str, Any]]], fast: frozenset[str] | None = None
) -> list[Any]:
    """The first case of each method (of `fast` ones) for the default run, the others slow."""
    seen: set[str] = set()
    found = []
    for method, options in cases:
        quick = method not in seen and (fast is None or method in fast)
        seen.add(method)
        found.append(pytest.param(method, options, marks=() if quick else SLOW))
    return found


METHODS = {str(key.value): cls for key, cls in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
QV = ["q_proj", "v_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_every_method_has_a_closed_form_or_a_reason() -> None:
    assert set(METHODS) == {*CLOSED_FORMS, *WITHOUT_CLOSED_FORM}
    assert not set(CLOSED_FORMS) & set(WITHOUT_CLOSED_FORM)
    assert set(CLASS_DEFAULTS) <= set(METHODS)


@pytest.mark.parametrize("method", sorted(CLOSED_FORMS))
def test_defaults_are_those_of_the_installed_peft(method: str) -> None:
    fields = {one.name: one for one in dataclasses.fields(METHODS[method])}
    for name, value in CLASS_DEFAULTS.get(method, {}).items():
        assert name in fields, name
        field = fields[name]
        factory = field.default_factory
        default = factory() if factory is not dataclasses.MISSING else field.default
        default = default.value if isinstance(default, enum.Enum) else default
        assert default == value, name
    for name, value in COMMON.items():
        if name in fields and name not in CLASS_DEFAULTS.get(method, {}):
            assert fields[name].default in (value, dataclasses.MISSING, "self_attn"), name


# --- tensors: counts and the size of the checkpoint

LLAMA: list[tuple[str, dict[str, Any]]] = [
    ("LORA", {"r": 4, "target_modules": ALL}),
    ("LORA", {"r": 4, "target_modules": "all-linear"}),
    ("LORA", {"target_modules": r".*layers\.[01]\..*_proj", "exclude_modules": ["k_proj"]}),
    ("LORA", {"target_modules": QV, "rank_pattern": {"v_proj": 3, r"layers.1.*q_proj": 5}}),
    ("LORA", {"target_modules": QV, "layers_to_transform": [1], "use_dora": True}),
    ("LORA", {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True}),
    ("LORA", {"target_modules": QV, "modules_to_save": ["lm_head"]}),
    ("LORA", {"target_modules": QV, "init_lora_weights": "mica"}),
    ("LORA", {"target_modules": QV, "kasa_config": {"beta": 1e-4, "gamma": 1e-3}}),
    ("LORA", {"target_modules": QV, "lora_bias": True}),
    (
        "LORA",
        {
            "target_modules": ["o_proj", "up_proj"],
            "r": 8,
            "use_bdlora": {
                "nblocks": 2,
                "target_modules_bd_a": ["o_proj"],
                "target_modules_bd_b": ["up_proj"],
            },
        },
    ),
    ("GRALORA", {"r": 8, "gralora_k": 4, "hybrid_r": 4, "target_modules": ALL}),
    ("DELORA", {"r": 4, "target_modules": ALL, "rank_pattern": {"q_proj": 2}}),
    ("DEFT", {"r": 40, "target_modules": ALL}),
    ("DEFT", {"r": 8, "para": True, "decomposition_method": "qr", "target_modules": ALL}),
    ("PEANUT", {"r": 8, "depth": 2, "target_modules": ALL}),
    ("MISS", {"r": 16, "target_modules": ALL}),
    ("MISS", {"r": 16, "mini_r": 8, "init_weights": "mini", "target_modules": ALL}),
    ("MISS", {"r": 16, "init_weights": "bat", "target_modules": ALL}),
    ("POLY", {"r": 4, "n_tasks": 3, "n_skills": 2, "n_splits": 2, "target_modules": QV}),
    ("LOHA", {"r": 4, "target_modules": ALL}),
    ("LOKR", {"r": 4, "target_modules": ALL}),
    ("LOKR", {"r": 2, "decompose_factor": 4, "decompose_both": True, "target_modules": ALL}),
    ("LOKR", {"r": 40, "decompose_factor": 8, "target_modules": ALL}),
    ("HIRA", {"r": 4, "target_modules": ALL}),
    ("FOURIERFT", {"n_frequency": 20, "target_modules": ALL, "n_frequency_pattern": {"q_proj": 9}}),
    ("WAVEFT", {"n_frequency": 20, "target_modules": ALL}),
    ("C3A", {"block_size": 16, "target_modules": ALL}),
    ("GLORA", {"target_modules": ALL}),
    ("GLORA", {"config_A_B": "vector", "config_C": "vector", "target_modules": QV}),
    ("GLORA", {"config_A_B": "constant", "config_C": "none", "target_modules": QV}),
    ("SHIRA", {"r": 4, "target_modules": ALL}),
    ("SUPERTUNING", {"sparsity": 0.9, "target_modules": ALL}),
    ("SUPERTUNING", {"r": 4, "lora_alpha": 8.0, "target_modules": ALL}),
    ("SUPERTUNING", {"save_precomputed_indices": False, "target_modules": QV}),
    ("OSF", {"effective_rank": 5, "target_modules": ALL}),
    ("OSF", {"target_modules": QV, "rank_pattern": {"q_proj": 3}}),
    ("OSF", {"effective_rank": 0.75, "target_modules": ALL}),
    ("OFT", {"oft_block_size": 8, "target_modules": ALL}),
    ("OFT", {"oft_block_size": 0, "r": 4, "block_share": True, "target_modules": QV}),
    ("OFT", {"oft_block_size": 7, "target_modules": ALL}),
    ("BOFT", {"boft_block_size": 4, "target_modules": ALL}),
    ("BOFT", {"boft_block_size": 0, "boft_block_num": 8, "target_modules": QV}),
    ("HRA", {"r": 4, "target_modules": ALL}),
    ("PSOFT", {"r": 8, "target_modules": ALL}),
    ("PSOFT", {"r": 8, "psoft_orth": False, "psoft_mag_a": False, "target_modules": QV}),
    ("ROAD", {"variant": "road_1", "group_size": 16, "target_modules": ALL}),
    ("ROAD", {"variant": "road_2", "group_size": 16, "target_modules": QV}),
    ("ROAD", {"variant": "road_4", "group_size": 16, "target_modules": QV}),
    ("BEFT", {"target_modules": ALL}),
    ("IA3", {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    ("LN_TUNING", {"target_modules": ["norm", "input_layernorm"]}),
    ("TRAINABLE_TOKENS", {"token_indices": [1, 2, 5]}),
    ("TRAINABLE_TOKENS", {"token_indices": [3], "target_modules": ["embed_tokens"]}),
    ("VERA", {"r": 8, "target_modules": ALL}),
    ("VERA", {"r": 8, "save_projection": False, "target_modules": QV}),
    ("PVERA", {"r": 8, "target_modules": ALL}),
    ("RANDLORA", {"r": 7, "target_modules": ALL}),
    ("VBLORA", {"vector_length": 8, "num_vectors": 12, "target_modules": ALL}),
    (
        "VBLORA",
        {
            "vector_length": 8,
            "num_vectors": 12,
            "topk": 3,
            "save_only_topk_weights": True,
            "target_modules": QV,
        },
    ),
    ("UNILORA", {"theta_d_length": 40, "target_modules": ALL}),
    ("UNILORA", {"theta_d_length": 40, "save_indices": True, "target_modules": QV}),
    ("TINYLORA", {"u": 8, "target_modules": ALL}),
    ("TINYLORA", {"u": 8, "weight_tying": 0.4, "target_modules": ALL}),
    ("TINYLORA", {"u": 8, "weight_tying": 1.0, "save_projection": False, "target_modules": QV}),
    ("LILY", {"r": 4, "stride_A": 2, "num_B": 3, "target_modules": ALL}),
    ("FROD", {"target_modules": QV}),
    ("FROD", {"target_modules": ALL, "save_projection": False, "sparse_rate": 0.05}),
    ("PROMPT_TUNING", {"num_virtual_tokens": 5}),
    ("P_TUNING", {"num_virtual_tokens": 5, "encoder_hidden_size": 24}),
    ("LORA", {"target_modules": ["q_proj", "lm_head"]}),
    ("PREFIX_TUNING", {"num_virtual_tokens": 5}),
    ("PREFIX_TUNING", {"num_virtual_tokens": 5, "prefix_projection": True}),
    ("MULTITASK_PROMPT_TUNING", {"num_virtual_tokens": 5, "num_tasks": 3, "num_ranks": 2}),
    (
        "CPT",
        {
            "cpt_token_ids": [0, 1, 2],
            "cpt_mask": [1, 1, 1],
            "cpt_tokens_type_mask": [1, 2, 2],
        },
    ),
    ("CARTRIDGE", {"num_virtual_tokens": 5}),
    ("ADAPTION_PROMPT", {"adapter_len": 5, "adapter_layers": 2, "target_modules": "self_attn"}),
]


@pytest.fixture(scope="module")
def llama() -> Target:
    return inspect_model(
        LlamaConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=80,
            tie_word_embeddings=True,
            architectures=["LlamaForCausalLM"],
            dtype="bfloat16",
        )
    )


def compare(target: Target, config: dict[str, Any], *, cast: bool = True) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        real = exact_counts(target, config, autocast_adapter_dtype=cast)
    adapter = adapter_of(target.structure, config)
    settings = Settings(dtype=target.structure.dtype, autocast_adapter_dtype=cast)
    ours = (
        sum(one.elements for one in adapter.tensors if one.trained),
        target.structure.parameters + sum(one.elements for one in adapter.tensors if one.parameter),
        saved_bytes(adapter, settings),
    )
    assert ours == (real.trainable_parameters, real.total_parameters, real.checkpoint_bytes)


@pytest.mark.parametrize(("method", "options"), fast_first(LLAMA), ids=lambda one: str(one)[:60])
def test_tensors_are_those_that_peft_makes(
    llama: Target, method: str, options: dict[str, Any]
) -> None:
    compare(llama, {"peft_type": method, "task_type": "CAUSAL_LM", **options})


def test_ranks_that_training_removes_are_named(llama: Target) -> None:
    config = {"peft_type": "ADALORA", "init_r": 6, "target_r": 4, "total_step": 9, "tinit": 1}
    config |= {"tfinal": 1, "target_modules": QV}
    adapter = adapter_of(llama.structure, config)
    real = exact_counts(llama, config)
    assert sum(one.elements for one in adapter.tensors if one.trained) == real.trainable_parameters
    assert saved_bytes(adapter, Settings()) < real.checkpoint_bytes
    assert any("target_r" in note for note in adapter.notes)


@pytest.mark.slow
def test_adamss_counts_are_exact_for_rank_one(llama: Target) -> None:
    config = {"peft_type": "ADAMSS", "r": 8, "num_subspaces": 4, "target_modules": QV}
    adapter = adapter_of(llama.structure, config)
    real = exact_counts(llama, config)
    assert sum(one.elements for one in adapter.tensors if one.trained) == real.trainable_parameters
    assert saved_bytes(adapter, Settings()) == pytest.approx(real.checkpoint_bytes, rel=0.02)


@pytest.mark.slow
def test_adapters_of_the_bases_dtype_are_counted_in_it(llama: Target) -> None:
    for method, options in LLAMA[:1] + [one for one in LLAMA if one[0] in {"OSF", "LOHA"}]:
        compare(llama, {"peft_type": method, **options}, cast=False)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("LORA", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("IA3", {"target_modules": ["c_attn"], "feedforward_modules": []}),
        ("VERA", {"target_modules": ["c_attn"], "r": 8, "fan_in_fan_out": True}),
        ("PREFIX_TUNING", {"num_virtual_tokens": 5}),
        ("LN_TUNING", {"target_modules": ["ln_1"]}),
    ],
    ids=lambda one: str(one)[:40],
)
def test_layers_of_gpt2_are_understood(method: str, options: dict[str, Any]) -> None:
    target = inspect_model(
        GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=80, architectures=["GPT2LMHeadModel"])
    )
    compare(target, {"peft_type": method, "task_type": "CAUSAL_LM", **options})


# --- activations


class Box:
    """A saved tensor; alive as long as the graph holds it."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


def parts(tensor: Any) -> Iterable[Any]:
    if tensor.is_sparse:
        return (tensor._indices(), tensor._values())
    return (tensor,)


def saved_for_backward(forward: Any, known: Iterable[Any]) -> int:
    """Bytes of storages that the graph of `forward()` holds, those of `known` tensors apart."""
    seen = {one.untyped_storage().data_ptr() for one in known}
    boxes: weakref.WeakSet[Box] = weakref.WeakSet()

    def pack(tensor: Any) -> Box:
        box = Box(tensor)
        boxes.add(box)
        return box

    # what is there already needs no look: a collection is then a matter of microseconds
    gc.freeze()
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            result = forward()
        gc.collect()
    finally:
        gc.unfreeze()
    storages = {}
    for box in boxes:
        for one in parts(box.tensor):
            storage = one.untyped_storage()
            if storage.data_ptr() not in seen:
                storages[storage.data_ptr()] = storage.nbytes()
    del result
    return sum(storages.values())


class Layers(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"q": nn.Linear(inputs, outputs, bias=False)}) for _ in range(2)
        )


def structure_of(inputs: int, outputs: int) -> Structure:
    group = ModuleGroup(
        pattern="layers.*.q",
        names=("layers.0.q", "layers.1.q"),
        role="other",
        tower="other",
        kind="linear",
        class_name="Linear",
        in_features=inputs,
        out_features=outputs,
        parameters=inputs * outputs,
        shape=(outputs, inputs),
    )
    return Structure(
        name="two layers",
        architecture="Layers",
        library="torch",
        modality="unknown",
        benchmark_because="a test",
        groups=(group,),
        dtype="bfloat16",
        parameters=2 * inputs * outputs,
    )


KEPT: list[tuple[str, dict[str, Any]]] = [
    ("LORA", {"r": 8}),
    ("LORA", {"r": 8, "use_dora": True}),
    ("LORA", {"r": 8, "init_lora_weights": "mica"}),
    ("LORA", {"r": 8, "kasa_config": {"beta": 1e-4, "gamma": 1e-3}}),
    ("ADALORA", {"init_r": 8, "total_step": 100, "tinit": 1, "tfinal": 1}),
    ("ADAMSS", {"r": 8, "num_subspaces": 4}),
    ("LOHA", {"r": 8}),
    ("LOKR", {"r": 8, "decompose_factor": 4}),
    ("HIRA", {"r": 8}),
    ("DELORA", {"r": 8}),
    ("HRA", {"r": 4}),
    ("HRA", {"r": 8}),
    ("OFT", {"oft_block_size": 16}),
    ("OFT", {"oft_block_size": 16, "use_cayley_neumann": False}),
    ("BOFT", {"boft_block_size": 4}),
    ("C3A", {"block_size": 16}),
    ("VBLORA", {"r": 4, "vector_length": 16, "num_vectors": 32}),
    ("ROAD", {"variant": "road_1", "group_size": 16}),
    ("ROAD", {"variant": "road_2", "group_size": 16}),
    ("GRALORA", {"r": 8}),
    ("MISS", {"r": 8}),
    ("MISS", {"r": 8, "init_weights": "mini", "mini_r": 8}),
    ("MISS", {"r": 8, "init_weights": "bat"}),
    ("PSOFT", {"r": 8}),
    ("SHIRA", {"r": 8}),
    ("FOURIERFT", {"n_frequency": 20}),
    ("WAVEFT", {"n_frequency": 20}),
    ("RANDLORA", {"r": 8}),
    ("VERA", {"r": 8}),
    ("PVERA", {"r": 8}),
    ("OSF", {"effective_rank": 16}),
    ("LILY", {"r": 8, "num_B": 2, "stride_A": 1}),
    ("GLORA", {"r": 8}),
    ("GLORA", {"config_A_B": "vector", "config_C": "vector"}),
    ("DEFT", {"r": 8}),
    ("DEFT", {"r": 8, "para": True, "decomposition_method": "qr"}),
    ("PEANUT", {"r": 8}),
    ("PEANUT", {"r": 8, "depth": 1}),
    ("FROD", {}),
    ("SUPERTUNING", {"sparsity": 0.9}),
    ("SUPERTUNING", {"sparsity": 0.9, "r": 8, "lora_alpha": 16.0}),
    ("BEFT", {}),
    ("IA3", {"feedforward_modules": []}),
    ("IA3", {"feedforward_modules": ["q"]}),
    ("UNILORA", {"theta_d_length": 64}),
    ("TINYLORA", {}),
]


FAST = frozenset({"LORA", "LOHA", "GLORA", "IA3", "VERA"})


@pytest.mark.parametrize(
    ("method", "options"), fast_first(KEPT, FAST), ids=lambda one: str(one)[:60]
)
def test_activations_are_those_that_autograd_keeps(method: str, options: dict[str, Any]) -> None:
    for inputs, outputs, tokens in ((64, 128, 96), (128, 64, 32)):
        torch.manual_seed(0)
        model = Layers(inputs, outputs).to(torch.bfloat16)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            config = METHODS[method](target_modules=["q"], **options)
            wrapped = peft.get_peft_model(model, config)
        layer = wrapped.base_model.model.layers[0]["q"]
        x = torch.randn(1, tokens, inputs, dtype=torch.bfloat16, requires_grad=True)
        known = chain(wrapped.parameters(), wrapped.buffers())
        with warnings.catch_warnings():
            # torch says once in a process that it does not check sparse tensors
            warnings.simplefilter("ignore", UserWarning)
            real = saved_for_backward(lambda: layer(x), known)  # noqa: B023 - called at once
        structure = structure_of(inputs, outputs)
        config = {"peft_type": method, "target_modules": ["q"], **options}
        settings = Settings(batch_size=1, sequence_length=tokens, moved_after_injection=True)
        adapter = adapter_of(structure, config)
        ours = sum(kept_bytes(adapter, settings, tokens)["layers", 0])
        assert ours == pytest.approx(real, rel=0.02, abs=600), (inputs, outputs)


def test_a_frozen_llama_keeps_what_is_said(llama: Target) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(llama.config).to(torch.bfloat16)
    model.requires_grad_(requires_grad=False)
    batch, length = 2, 24
    x = torch.randn(batch, length, 64, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, -3:] = 0
    known = chain(model.parameters(), model.buffers())
    real = saved_for_backward(
        lambda: model.model(inputs_embeds=x, attention_mask=mask, use_cache=False), known
    )
    settings = Settings(batch_size=batch, sequence_length=length)
    (block,) = blocks_of(llama.structure)
    load = block_load(llama.structure, block, settings, tokens_of(llama.structure, settings))
    cache = 4 * 32 * batch * length
    last = (4 * 64 + 4) * batch * length
    assert 3 * (load.total - cache) + last == pytest.approx(real, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["double", "single"])
def test_a_frozen_flux_block_keeps_what_is_said(which: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    width, image, text, batch = 128, 16, 24, 2
    model = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=48,
        guidance_embeds=False,
        mlp_ratio=3.0,
        axes_dims_rope=(8, 8, 8, 8),
    )
    for one in model.parameters():
        one.data = one.data.to(torch.bfloat16)
        one.requires_grad_(requires_grad=False)
    structure = inspect_model(model).structure

    def noise(*shape: int, grad: bool = True) -> Any:
        return torch.randn(*shape, dtype=torch.bfloat16, requires_grad=grad)

    time = noise(batch, width, grad=False)
    rope = tuple(
        torch.cat(pair)
        for pair in zip(
            model.pos_embed(torch.zeros(text, 4)),
            model.pos_embed(torch.zeros(image, 4)),
            strict=True,
        )
    )
    states, prompt = noise(batch, image, width), noise(batch, text, width)
    joint = noise(batch, image + text, width)
    image_shift, text_shift = model.double_stream_modulation_img, model.double_stream_modulation_txt

    def double() -> Any:
        return model.transformer_blocks[0](
            hidden_states=states,
            encoder_hidden_states=prompt,
            temb_mod_img=image_shift(time),
            temb_mod_txt=text_shift(time),
            image_rotary_emb=rope,
        )

    def single() -> Any:
        return model.single_transformer_blocks[0](
            hidden_states=joint,
            encoder_hidden_states=None,
            temb_mod=model.single_stream_modulation(time),
            image_rotary_emb=rope,
        )

    real = saved_for_backward(double if which == "double" else single, model.parameters())
    settings = Settings(
        batch_size=batch, sequence_length=text, image_size=64, gradient_checkpointing=True
    )
    block = blocks_of(structure)[0 if which == "double" else 1]
    load = block_load(structure, block, settings, tokens_of(structure, settings))
    # modulation and rotary tables are small at full width, not at this one
    assert load.total == pytest.approx(real, rel=0.06)
