"""Kinds of models on which a configuration was handed out that could not work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import transformers
from diffusers import SanaTransformer2DModel

from peft_shop.adapt.records import TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.store import load
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight.checking import preflight
from peft_shop.preflight.wrapping import inject

if TYPE_CHECKING:
    from peft_shop.adapt.records import Retargeted
    from peft_shop.model.inspection import Target

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 64,
}  # fmt: skip


def adapted(target: Target, name: str) -> Retargeted:
    """A method, or a run by its experiment, adapted to the model."""
    catalog = load()
    subject: Any = catalog.method_by_id.get(name)
    if subject is None:
        subject = next(run for run in catalog.runs if run.experiment == name)
    return retarget(catalog, subject, target.structure, TargetOptions())


MLP: Final = "lora/llama-3.2-3B-rank10-target-mlp"


@pytest.mark.parametrize("name", ["Swin", "ViT"])
def test_an_image_classifier_trains_its_head_without_a_text_task(name: str) -> None:
    sizes: dict[str, Any] = {"image_size": 32, "patch_size": 2}
    if name == "Swin":
        sizes |= {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    else:
        sizes |= {key: value for key, value in SIZES.items() if key != "vocab_size"}
    config = getattr(transformers, f"{name}Config")(**sizes)
    target = inspect_model((getattr(transformers, f"{name}ForImageClassification"), config))
    for method in ("lora", "hra", "ln_tuning"):
        found = adapted(target, method)
        assert "task_type" not in found.config
        assert found.config["modules_to_save"] == ["classifier"]
        checked = preflight(target, found.config)
        assert (checked.forward, checked.trained_in_full) != ("passed", ())
        assert "classifier" in checked.trained_in_full


def test_an_asked_for_task_stays() -> None:
    config = transformers.ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    target = inspect_model((transformers.ViTForImageClassification, config))
    catalog = load()
    options = TargetOptions(task_type="SEQ_CLS")
    found = retarget(catalog, catalog.method_by_id["lora"], target.structure, options)
    assert found.config["task_type"] == "SEQ_CLS"


def test_numbers_of_parts_of_a_block_are_its_own() -> None:
    """Between the two layers of this MLP stands an activation, which is no target."""
    config = transformers.CTRLConfig(vocab_size=64, n_embd=32, dff=48, n_layer=2, n_head=4)
    target = inspect_model((transformers.CTRLLMHeadModel, config))
    found = adapted(target, MLP)
    assert found.config["target_modules"] == r"transformer\.h\.\d+\.ffn\.(0|2)"
    assert preflight(target, found.config).forward == "passed"


def test_experts_are_named_apart_from_all_other_parameters() -> None:
    """`weight` alone would be the norms' as well, which have one dimension."""
    config = transformers.JetMoeConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2, kv_channels=8,
        intermediate_size=48, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    target = inspect_model(config)
    found = adapted(target, MLP)
    model = inject(target.skeleton(), found.config)
    hit = {
        name.partition(".lora_")[0].rpartition(".")[2]
        for name, _ in model.named_parameters()
        if ".lora_" in name
    }
    assert hit <= {"input_linear", "output_linear", "base_layer"}
    assert model.get_nb_trainable_parameters()[0] > 0


def test_a_dense_mlp_beside_experts_is_taken_whole() -> None:
    config = transformers.GraniteMoeSharedConfig(
        **SIZES, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
        shared_intermediate_size=24,
    )  # fmt: skip
    found = adapted(inspect_model(config), MLP)
    assert found.config["target_modules"] == ["input_linear", "output_linear"]
    assert found.config["target_parameters"] == ["down_proj", "gate_up_proj"]


def test_a_norm_of_a_class_of_its_own_is_a_norm() -> None:
    config = transformers.DebertaConfig(**SIZES)
    target = inspect_model((transformers.DebertaForSequenceClassification, config))
    found = adapted(target, "ln_tuning")
    assert found.problems == ()
    assert found.config["target_modules"] == ["LayerNorm"]


def test_a_layer_in_a_block_is_no_head_for_being_as_wide_as_the_vocabulary() -> None:
    config = transformers.OPTConfig(
        vocab_size=128, hidden_size=32, ffn_dim=128, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=32,
    )  # fmt: skip
    target = inspect_model(config)
    roles = {one.suffix: one.role for one in target.structure.groups}
    assert (roles["fc1"], roles["fc2"], roles["lm_head"]) == ("mlp_up", "mlp_down", "head")
    assert adapted(target, MLP).config["target_modules"] == ["fc1", "fc2"]


def _odd_llama(width: int) -> Any:
    return transformers.LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, vocab_size=64,
        num_attention_heads=1, num_key_value_heads=1, head_dim=4,
    )  # fmt: skip


@pytest.mark.parametrize(("width", "works"), [(25, True), (22, True), (49, True), (1, False)])
def test_blocks_of_oft_have_something_to_turn(width: int, works: bool) -> None:
    """A block of one input is no rotation; a width without a small divisor is one block."""
    target = inspect_model(_odd_llama(width))
    found = adapted(target, "oft")
    assert (found.problems == ()) is works
    if works:
        assert width % found.config.get("oft_block_size", 32) == 0
        assert preflight(target, found.config).trainable_parameters > 0
    for run in [run for run in load().runs if run.method == "oft"]:
        config = adapted(target, run.experiment)
        if not config.problems:
            assert preflight(target, config.config).trainable_parameters > 0


def test_latent_attention_is_left_to_methods_that_take_its_inner_input() -> None:
    config = transformers.DeepseekV3Config(
        **SIZES, num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1, kv_lora_rank=16,
        q_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_shared_experts=1,
    )  # fmt: skip
    target = inspect_model(config)
    assert adapted(target, "lora").config["target_modules"] == ["kv_b_proj", "q_b_proj"]
    for method in ("oft", "gralora", "poly"):
        found = adapted(target, method)
        assert found.config["target_modules"] == ["q_b_proj"]
        assert preflight(target, found.config).forward == "passed"


def test_what_the_model_never_calls_is_not_chosen() -> None:
    config = transformers.WavLMConfig(
        **{**SIZES, "vocab_size": 32}, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    target = inspect_model((transformers.WavLMForSequenceClassification, config))
    found = adapted(target, "lora")
    assert found.config["target_modules"] == ["intermediate_dense", "output_dense"]
    assert not [one for one in preflight(target, found.config).warnings if "calling" in one]


def test_what_is_left_out_is_told_where_the_names_are_the_recipes_own() -> None:
    """Sana has attention by the same names as the measured model, and an MLP of convolutions."""
    model = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=16, sample_size=8,
    )  # fmt: skip
    found = adapted(inspect_model(model), "lora/flux2-klein-default")
    assert not [change for change in found.changes if change.field == "target_modules"]
    assert "this model has no mlp gate up: left out" in found.notes
    assert "this model has no mlp down: left out" in found.notes
