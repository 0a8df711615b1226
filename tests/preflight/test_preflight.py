"""A preflight tells what a configuration touches, and what a user would not expect."""

from __future__ import annotations

import copy
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import peft
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_shop.errors import ConfigError, UnknownConfigKeyError, WeightsNeededError
from peft_shop.model.inspection import Target, inspect_model
from peft_shop.preflight.checking import preflight
from peft_shop.preflight.scaling import scale_up
from peft_shop.upstream.configs import config_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.adapt.records import Preflight

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",
    "ignore::RuntimeWarning",
    "ignore:.*is_gradient_checkpointing:FutureWarning",  # between libraries
)

SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _llava() -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    return transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**SIZES), vision_config=vision
    )


def _t5() -> Any:
    return transformers.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=4, num_heads=4, vocab_size=64
    )


def _bert() -> Any:
    fields = {name: SIZES[name] for name in ("hidden_size", "intermediate_size", "vocab_size")}
    config = transformers.BertConfig(num_hidden_layers=2, num_attention_heads=4, **fields)
    return transformers.BertForSequenceClassification, config


def _gpt2() -> Any:
    return transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=64, bos_token_id=1, eos_token_id=1
    )


def _bit() -> Any:
    return transformers.BitConfig(embedding_size=32, hidden_sizes=[128, 128], depths=[1, 1])


MODELS: Final[dict[str, Callable[[], Any]]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "tied": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),  # has biases
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(
        **SIZES,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        layer_types=["full_attention"] * 3,
    ),
    "mamba": lambda: transformers.MambaConfig(
        hidden_size=32, num_hidden_layers=2, vocab_size=64, bos_token_id=1, eos_token_id=2
    ),
    "gpt2": _gpt2,
    "t5": _t5,
    "bert": _bert,
    "llava": _llava,
    "bit": _bit,
}


@cache
def target(name: str) -> Target:
    return inspect_model(MODELS[name]())


def lora(**fields: Any) -> dict[str, Any]:
    return {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"], **fields}


def counts(found: Preflight) -> dict[str, tuple[int, int]]:
    return {one.pattern: (one.touched, one.present) for one in found.touched}


def said(found: Preflight, *parts: str) -> bool:
    """Whether one of the warnings has all `parts`."""
    return any(all(part in warning for part in parts) for warning in found.warnings)


FIELDS: Final[dict[str, dict[str, Any]]] = {
    "plain": lora(),
    "all linear": lora(target_modules="all-linear", use_dora=True),
    "head copied": lora(modules_to_save=["lm_head"]),
    "biases": lora(bias="all"),
    "one layer": lora(layers_to_transform=[1]),
    "svd": {"peft_type": "OSF", "target_modules": ["q_proj", "v_proj"]},
    "norms": {"peft_type": "LN_TUNING", "target_modules": ["input_layernorm"]},
}


@pytest.mark.parametrize(
    ("name", "case"),
    [("llama", case) for case in FIELDS]
    + [("tied", "head copied"), ("tied", "all linear"), ("qwen2", "biases")],
)
def test_figures_are_those_of_the_real_model(name: str, case: str) -> None:
    found = preflight(target(name), FIELDS[case])
    config = MODELS[name]()
    real = get_peft_model(
        transformers.AutoModelForCausalLM.from_config(config), config_from_dict(FIELDS[case])
    )
    trainable, total = real.get_nb_trainable_parameters()
    assert (found.trainable_parameters, found.total_parameters) == (trainable, total)
    assert found.trainable_share == trainable / total
    assert found.basis == "meta"
    # nothing is shared by these methods: the groups make up the whole
    assert sum(one.parameters for one in found.touched) == trainable
    wrapped = [
        module
        for module in real.modules()
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer)
    ]
    adapted = sum(one.touched for one in found.touched if one.pattern not in found.trained_in_full)
    if case != "biases":  # those are trained beside the wrapped modules too
        assert adapted == (0 if case == "norms" else len(wrapped))


def test_modules_are_told_by_role_and_tower() -> None:
    found = preflight(target("llama"), lora())
    assert [(one.role, one.tower, one.touched, one.present) for one in found.touched] == [
        ("attention_query", "text", 3, 3),
        ("attention_value", "text", 3, 3),
    ]
    assert [one.parameters for one in found.touched] == [3 * 4 * (32 + 32), 3 * 4 * (32 + 16)]
    assert not found.warnings
    assert not found.trained_in_full


def test_what_layers_share_counts_for_the_whole_only() -> None:
    fields = {
        "peft_type": "VBLORA",
        "r": 4,
        "num_vectors": 16,
        "vector_length": 8,
        "target_modules": ["q_proj"],
    }
    found = preflight(target("llama"), fields)
    assert found.trainable_parameters - sum(one.parameters for one in found.touched) == 16 * 8
    assert not said(found, "train nothing")


def test_a_prompt_touches_no_module() -> None:
    fields = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5, "task_type": "CAUSAL_LM"}
    found = preflight(target("llama"), fields)
    assert found.touched == ()
    assert found.trainable_parameters == 5 * 32
    assert not found.warnings


def test_the_same_target_serves_again_and_the_configuration_stays() -> None:
    config = LoraConfig(target_modules="all-linear")
    before = copy.deepcopy(config)
    assert preflight(target("llama"), config) == preflight(target("llama"), config)
    assert config == before


# --- warnings ---


def test_some_modules_of_a_role() -> None:
    found = preflight(target("llama"), lora(target_modules=r".*\.0\.self_attn\.q_proj|.*v_proj"))
    assert counts(found) == {
        "model.layers.*.self_attn.q_proj": (1, 3),
        "model.layers.*.self_attn.v_proj": (3, 3),
    }
    assert said(found, "only 1 of 3 attention query modules", "model.layers.1.self_attn.q_proj")
    assert len(found.warnings) == 1


def test_layers_that_were_chosen_are_no_surprise() -> None:
    found = preflight(target("llama"), lora(layers_to_transform=[0, 2]))
    assert counts(found)["model.layers.*.self_attn.q_proj"] == (2, 3)
    assert not found.warnings


def test_a_router() -> None:
    found = preflight(target("mixtral"), lora(target_modules="all-linear"))
    assert said(found, "adapts 3 router modules")


def test_experts_out_of_reach() -> None:
    found = preflight(target("mixtral"), lora())
    assert said(found, "no expert is adapted", "target_parameters")
    reached = preflight(
        target("mixtral"), lora(target_parameters=["experts.gate_up_proj", "experts.down_proj"])
    )
    assert counts(reached)["model.layers.*.mlp.experts.gate_up_proj"] == (3, 3)
    assert not said(reached, "no expert")


def test_what_all_linear_leaves_out() -> None:
    found = preflight(target("qwen3_next"), lora(target_modules="all-linear"))
    assert said(found, "'all-linear' leaves out", "shared_expert.up_proj")
    assert not said(preflight(target("mixtral"), lora(target_modules="all-linear")), "leaves out")
    config = MODELS["qwen3_next"]()
    real = get_peft_model(
        transformers.AutoModelForCausalLM.from_config(config),
        config_from_dict(lora(target_modules="all-linear")),
    )
    assert not [name for name, _ in real.named_parameters() if "shared_expert.up_proj.lora" in name]


def test_a_vision_tower_and_its_projector() -> None:
    found = preflight(target("llava"), lora())
    assert said(found, "4 modules of the vision tower")
    assert {one.tower for one in found.touched} == {"text", "vision"}
    found = preflight(target("llava"), lora(target_modules="all-linear"))
    assert said(found, "adapts 2 projector modules")
    only = preflight(target("llava"), lora(target_modules=r".*language_model.*q_proj"))
    assert not said(only, "vision")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "its adapter acts on lm_head alone"),
        ({"target_modules": ["embed_tokens"]}, "its adapter acts on model.embed_tokens alone"),
        ({"modules_to_save": ["lm_head"]}, "a copy of it is trained"),
    ],
)
def test_tied_weights(fields: dict[str, Any], words: str) -> None:
    assert said(preflight(target("tied"), lora(**fields)), "is tied to", words)
    assert not said(preflight(target("llama"), lora(**fields)), "is tied to")


def test_tying_that_peft_keeps_is_no_surprise() -> None:
    fields = lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    assert not said(preflight(target("tied"), fields), "is tied to")


def test_a_head_and_an_embedding() -> None:
    found = preflight(target("llama"), lora(target_modules=["embed_tokens", "lm_head"]))
    assert said(found, "adapts 1 head module (lm_head)")
    assert said(found, "adapts 1 embedding module (model.embed_tokens)")


def test_modules_trained_whole() -> None:
    found = preflight(target("llama"), lora(modules_to_save=["lm_head", "norm"]))
    # peft compares the end of the name: every norm of a layer ends with it
    assert found.trained_in_full == (
        "model.layers.*.input_layernorm",
        "model.layers.*.post_attention_layernorm",
        "model.norm",
        "lm_head",
    )
    assert said(found, "7 norms are trained whole")
    assert said(found, "2,048 of", "trained whole, such as lm_head")
    linear = preflight(
        target("llama"), {"peft_type": "LN_TUNING", "target_modules": ["q_proj", "norm"]}
    )
    assert said(linear, "3 modules that are no norms are trained whole")


def test_a_classifier_is_trained_whole_for_its_task() -> None:
    found = preflight(target("bert"), lora(target_modules=["query"], task_type="SEQ_CLS"))
    assert found.trained_in_full == ("classifier",)
    assert not found.warnings


def test_biases() -> None:
    found = preflight(target("qwen2"), lora(bias="all"))
    assert "model.layers.*.self_attn.k_proj.bias" in found.trained_in_full
    assert counts(found)["model.layers.*.self_attn.k_proj"] == (3, 3)
    assert said(preflight(target("llama"), lora(bias="all")), "finds no bias to train")


def test_adapters_that_train_nothing() -> None:
    fields = {"peft_type": "OSF", "target_modules": ["q_proj", "v_proj"], "effective_rank": 16}
    found = preflight(target("llama"), fields)
    assert said(found, "3 of 6 wrapped modules train nothing", "v_proj")
    found = preflight(target("llama"), fields | {"effective_rank": 32})
    assert found.trainable_parameters == 0
    assert said(found, "nothing is trainable")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_modules": ["q_proj", "query"]}, "target_modules: 'query' matches nothing"),
        ({"modules_to_save": ["score"]}, "modules_to_save: 'score' matches nothing"),
        ({"exclude_modules": ["k_project"]}, "exclude_modules: 'k_project' matches nothing"),
        ({"exclude_modules": r".*\.vision.*"}, "exclude_modules: '.*"),
        ({"rank_pattern": {"o_proj": 8}}, "rank_pattern: 'o_proj' matches no adapted module"),
        ({"alpha_pattern": {"up": 8}}, "alpha_pattern: 'up' matches no adapted module"),
        ({"layers_to_transform": [0, 9]}, "no adapted module in layer 9"),
        ({"trainable_token_indices": [3, 64]}, "token 64 is beyond the vocabulary of 64"),
    ],
)
def test_fields_that_match_nothing(fields: dict[str, Any], words: str) -> None:
    assert said(preflight(target("llama"), lora(**fields)), words)


def test_a_token_beyond_the_vocabulary_really_fails() -> None:
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"]())
    with pytest.raises((IndexError, RuntimeError)):
        get_peft_model(model, config_from_dict(lora(trainable_token_indices=[3, 64])))


def test_feed_forward_modules_that_match_nothing() -> None:
    fields = {"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"]}
    found = preflight(target("llama"), fields | {"feedforward_modules": ["down_proj"]})
    assert not found.warnings
    fields |= {"target_modules": ["k_proj", "fc"], "feedforward_modules": ["fc"]}
    assert said(preflight(target("llama"), fields), "feedforward_modules: 'fc'")


def test_layers_of_a_type_that_a_method_leaves_out() -> None:
    fields = {"peft_type": "OSF", "target_modules": ["c_attn", "lm_head"]}
    found = preflight(target("gpt2"), fields)
    assert said(found, "'c_attn' matches 2 modules, of which none is wrapped")


def test_what_peft_warns_of_is_passed_on() -> None:
    found = preflight(target("gpt2"), lora(target_modules=["c_attn"]))
    assert said(found, "peft: ", "fan_in_fan_out")


def effect(model: Any, run: Callable[[Any], Any], name: str) -> float:
    """Largest change of the outputs by a randomised adapter of the layer `name`."""
    torch.manual_seed(0)
    before = run(model)
    wrapped = get_peft_model(model, LoraConfig(target_modules=[name], init_lora_weights=False))
    return float((run(wrapped) - before).abs().max())


def test_an_adapter_that_mamba_never_calls() -> None:
    found = preflight(target("mamba"), lora(target_modules=["in_proj", "dt_proj"]))
    assert said(found, "dt_proj without calling the layer")
    assert not said(preflight(target("mamba"), lora(target_modules=["in_proj"])), "calling")
    ids = torch.arange(6)[None]
    for name, felt in {"dt_proj": False, "x_proj": True}.items():
        model = transformers.AutoModelForCausalLM.from_config(MODELS["mamba"]()).eval()
        assert (effect(model, lambda one: one(ids).logits.detach(), name) > 0) is felt


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4)
        self.mlp = nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return self.mlp(self.attn(x, x, x, need_weights=False)[0])


def test_an_adapter_that_torchs_attention_never_calls() -> None:
    model = Attention().eval()
    found = preflight(inspect_model(model), lora(target_modules=["attn.out_proj", "mlp"]))
    assert said(found, "attn.out_proj without calling the layer")
    whole = preflight(inspect_model(model), lora(target_modules=["attn", "mlp"]))
    assert not said(whole, "without calling")
    x = torch.randn(5, 2, 32)
    assert effect(copy.deepcopy(model), lambda one: one(x).detach(), "attn.out_proj") == 0
    assert effect(copy.deepcopy(model), lambda one: one(x).detach(), "mlp") > 0


# --- errors and the stand-in ---


def test_what_peft_refuses_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        preflight(target("llama"), lora(target_modules=["nowhere"]))
    with pytest.raises(UnknownConfigKeyError, match="rnk"):
        preflight(target("llama"), lora(rnk=3))
    with pytest.raises(ConfigError, match="peft_type"):
        preflight(target("llama"), {"r": 3})
    with pytest.raises(ConfigError, match="refuses LN_TUNING on BitModel: StopIteration"):
        # one of its norms is an identity, whose weight peft looks for
        preflight(target("bit"), {"peft_type": "LN_TUNING", "target_modules": ["norm"]})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("llama", lora(modules_to_save=["lm_head"])),
        ("tied", {"peft_type": "OSF", "target_modules": ["q_proj", "down_proj"]}),
        ("t5", {"peft_type": "LOHA", "r": 4, "target_modules": ["q", "wo"]}),
        ("qwen2", lora(bias="all", target_modules="all-linear")),
    ],
)
def test_a_stand_in_of_few_layers_says_the_same(
    name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = preflight(target(name), fields)

    def refuse(*_: Any, **__: Any) -> None:
        msg = "needs weights"
        raise WeightsNeededError(msg)

    monkeypatch.setattr("peft_shop.preflight.checking.inject", refuse)
    found = preflight(target(name), fields)
    assert found.basis == "stand_in"
    assert said(found, "extrapolated")
    same = {"touched", "trainable_parameters", "total_parameters", "trained_in_full"}
    assert found.model_dump(include=same) == expected.model_dump(include=same)


def test_a_model_that_peft_knows_no_modules_of() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.config = {"other": 1}
    with pytest.raises(ConfigError, match=r"refuses LORA on Sequential: .*: name target_modules"):
        preflight(inspect_model(model), {"peft_type": "LORA"})


def test_a_stand_in_that_peft_refuses() -> None:
    skeleton = target("llama").skeleton
    with pytest.raises(ConfigError, match="refuses LORA on Llama"):
        scale_up(skeleton, lambda: LoraConfig(target_modules=["nowhere"]))


def test_a_model_without_layers_has_no_stand_in() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).to("meta")
    with pytest.raises(ConfigError, match="no stack of layers"):
        scale_up(lambda: copy.deepcopy(model), lambda: LoraConfig(target_modules=["0"]))


@pytest.mark.slow
def test_one_preflight_of_eight_billion_parameters_takes_under_three_seconds() -> None:
    config = transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    whole = inspect_model(config)
    assert whole.structure.parameters == 8_030_261_248
    for peft_type in ("LORA", "OFT", "SHIRA", "FOURIERFT", "OSF", "VERA", "BOFT"):
        fields = {"peft_type": peft_type, "target_modules": ["q_proj", "v_proj"]}
        start = time.process_time()
        found = preflight(whole, fields)
        assert time.process_time() - start < 3
        assert counts(found)["model.layers.*.self_attn.v_proj"] == (32, 32)
