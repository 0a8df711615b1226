"""Words that architectures use in the names of modules, by what the module does.

Collected from the architectures of transformers 5.23 and diffusers 0.42; they name parts, never
whole models, so that a new model made of known parts is understood.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from peft_shop.model.structure import Role, Tower

__all__ = [
    "ATTENTION_LEAVES",
    "BLOCK_CLASSES",
    "BLOCK_NAMES",
    "EMBEDDERS",
    "EXPERT_OF",
    "HEADS",
    "MIXER_LEAVES",
    "MLP_LEAVES",
    "NEUTRAL",
    "POSITION",
    "PROJECTORS",
    "TOWER_CONFIGS",
    "TOWER_WORDS",
]


def _leaves(table: dict[Role, str]) -> dict[str, Role]:
    return {word: role for role, words in table.items() for word in words.split()}


ATTENTION_LEAVES: Final[dict[str, Role]] = _leaves(
    {
        "attention_query": (
            "q_proj query to_q wq q q_lin query_proj q_linear linear_q query_layer q_b_proj "
            "add_q_proj q_attn to_query project_q query_global q_head projection_query "
            "queries q_up_proj wq_b query_projection w2e_query e2w_query e2e_query layout_query "
            "q_proj_cam insertion_q_proj to_added_q q_gate_proj query_key linear_query "
            "text_proj vision_proj"
        ),
        "attention_key": (
            "k_proj key to_k wk k k_lin key_proj k_linear linear_k key_layer add_k_proj to_key "
            "project_k key_global k_head projection_key keys layout_key k_proj_cam "
            "insertion_k_proj key_protein linear_key"
        ),
        "attention_value": (
            "v_proj value to_v wv v v_lin value_proj v_linear linear_v value_layer add_v_proj "
            "to_value project_v value_global v_head projection_value values layout_value "
            "v_proj_cam value_protein v_proj_current v_proj_delayed linear_value "
            "values_vision_proj values_text_proj"
        ),
        "attention_output": (
            "o_proj out_proj to_out wo o out_lin linear_out to_add_out out dense c_proj proj "
            "output_proj projection projection_layer attention_out post_proj post o_b_proj "
            "img_attn_proj txt_attn_proj out_proj_cam proj_attn proj_out final output "
            "out_vision_proj out_text_proj project_out final_proj out_layer wo_b"
        ),
        "attention_qkv": (
            "qkv qkv_proj c_attn query_key_value wqkv att_proj to_qkv to_added_qkv in_proj "
            "img_attn_qkv txt_attn_qkv img_qkv_proj queries_keys_values qkv_linear"
        ),
        "attention_key_value": (
            "kv kv_proj to_kv key_value keys_values kv_b_proj kv_linear txt_kv_proj kv_up_proj"
        ),
        "attention_latent": (
            "q_a_proj kv_a_proj kv_a_proj_with_mqa q_lora kv_lora o_a_proj q_down_proj "
            "kv_down_proj wo_a"
        ),
        "attention_mlp_in": "to_qkv_mlp_proj qkv_mlp in_proj_qkv_mlp",
        "modulation": "gate_bias_modulation",
    }
)
"""Names of layers inside an attention block."""

MLP_LEAVES: Final[dict[str, Role]] = _leaves(
    {
        "mlp_gate": "gate_proj w1 wi_0 proj_up_gate w_gate gate w_0 gate_layer linear_gate",
        "mlp_up": (
            "up_proj w3 fc1 c_fc wi wi_1 dense_h_to_4h lin1 linear1 fc_in intermediate_dense "
            "linear_in proj_up w_up w_1 up linear_fc1 ffw_layer_1 layer_1 in_layer ff_in pwconv1 "
            "dense1 project_in in_proj intermediate ffn linear_up pointwise_conv1 proj_mlp"
        ),
        "mlp_down": (
            "down_proj w2 fc2 c_proj wo dense_4h_to_h lin2 linear2 fc_out output_dense "
            "linear_out proj_down w_down w_out down linear_fc2 ffw_layer_2 layer_2 out_layer "
            "ff_out out_projection pwconv2 dense2 project_out out_proj ffn_output out output "
            "linear_down pointwise_conv2"
        ),
        "mlp_gate_up": "gate_up_proj",
    }
)
"""Names of layers inside an MLP, or beside the attention of a block that has no MLP module."""

MIXER_LEAVES: Final[tuple[tuple[re.Pattern[str], Role], ...]] = (
    (re.compile(r"in_proj(_.*)?|linear_[xy]|receptance|key|value|gate_proj|proj_up"), "mixer_in"),
    (re.compile(r"out_proj|o_proj|linear_out|output|out|proj_down"), "mixer_out"),
)
"""Names inside a state-space or recurrent block that has no queries; the rest are its state."""

EXPERT_OF: Final[dict[Role, Role]] = {
    "mlp_gate": "expert_gate",
    "mlp_up": "expert_up",
    "mlp_down": "expert_down",
    "mlp_gate_up": "expert_gate_up",
}

NEUTRAL: Final = frozenset({"linear", "linear_layer", "conv", "dense_layer", "kernel"})
"""Last names that say nothing: the name above counts."""

BLOCK_NAMES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("other", re.compile(r"indexer|compressor|scorer")),
    (
        "modulation",
        re.compile(r"ada_?ln.*|(.*_)?modulation(_.*)?|film|(img|txt)_mod|context_mlp"),
    ),
    ("experts", re.compile(r"experts?")),
    ("mixer", re.compile(r"mamba|ssm|linear_attn|temporal_block|mlstm_layer")),
    (
        "attention",
        re.compile(
            r"(.*_)?(attn|attention|selfattention|encdecattention|mha)\d?(_\d)?|"
            r"attn_.*|attention_(?!norm|input|weights).*|cross_attn_.*|final_attn_.*"
        ),
    ),
    (
        "mlp",
        re.compile(
            r"(.*_)?(mlp|mlps|ffn|ffns|ff|feed_forward|feedforward|densereludense|"
            r"feed_forward\d|ffn\d|ff\d)(_context|_in|_out|_moe_gen|_start|_end)?|"
            r"shared_experts?|ffw_layer_.*"
        ),
    ),
)
"""Names of blocks, most telling first."""

BLOCK_CLASSES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("other", re.compile(r"(Indexer|Compressor)$")),
    (
        "modulation",
        re.compile(r"(AdaLN\w*|Ada\w*Norm\w*|Conditional\w*Norm|LayerNormZero\w*|Modulation\w*)$"),
    ),
    ("router", re.compile(r"Router\w*$|TopKGat\w+$|Mo[eE]Gate$")),
    ("experts", re.compile(r"(?<!Shared)Experts?$")),
    (
        "mixer",
        re.compile(
            r"(Mamba2?(Mixer|Layer)?|SSM\w*|DeltaNet|DeltaAttention|ShortConv|RecurrentBlock|"
            r"mLSTMLayer|MambaMixer|Rwkv(Self|Linear)?Attention|RwkvFeedForward)$"
        ),
    ),
    (
        "attention",
        re.compile(
            r"((Self|Cross|Sdpa|Flash\w*|Eager|Local|Global|Sparse|Linear|Multihead|Block|Text|"
            r"Vision)?Attention(V?\d\w*|Subsample)?|(Self|Cross)AttentionLayer)$|"
            r"^(?!\w*Block\dD)\w*Attn$"
        ),
    ),
    (
        "mlp",
        re.compile(
            r"(MLP|Mlp|FeedForward|FFN|Ffn|ActDense|FeedForwardLayer|FeedForwardNetwork|"
            r"GatedMLP|GLU|FF)$"
        ),
    ),
)

HEADS: Final = re.compile(
    r"(.*_)?heads?|head_.*|score|classifier|.*_classifier|qa_outputs|embed_out|logits_proj|"
    r"logits_dense|lm_loss|output_projection(_.*)?|.*class_embed|.*bbox_embed|.*_predictor|"
    r"(.*_)?predictions|mask_embedder|seq_relationship|final_linear|vocab_projector|"
    r"vocab_transform|predict_.*|matchability|unembedding_projection|final_logits|cls|"
    r"ctc_proj|decoder_pred|speaker_proj|feat_out|prob_out|proj_out|audio_proj_out|final_layer|"
    r"horizon_ff_layer|output_hypernetworks_mlps|action_out_proj|local_latents_linear|"
    r"sequence_readout|spec_out|project_from_hidden|conv_out|tdnn|contact_head|.*_qass|loss_.*"
)
"""Names of what turns hidden states into the model's answer."""
HEAD_PARTS: Final = frozenset({"dense", "decoder", "out_proj", "linear", "transform"})

PROJECTORS: Final = re.compile(
    r"multi_?modal_projector|mm_projector|(?!vocab_)(.*_)?projector(_list)?|connector|aligner|"
    r"generation_aligner|merger|mergers|merger_list|deepstack_mergers?|deepstack_merger_list|"
    r"patch_merger|vit_merger|multimodal_projector|modality_projection|(visual|vision|image|text|audio|video|language)"
    r"_(projection|proj)|img_projection|img_projection_.*|embedding_proj_layer|enc_to_dec_proj|"
    r"audio_enc_to_dec_proj|encoder_to_decoder|resampler|perceiver_resampler|context_embedder|"
    r"context_embedder_\d|txt_in|caption_projection|caption_embedder|cap_embedder|context_proj|"
    r"encoder_hid_proj|text_embedder|image_embedder|encoder_hidden_states_proj|"
    r"thinker_to_talker_proj|image_to_mm_projection|text_to_mm_projection|embed_vision|"
    r"embed_audio|enc_output|embeddings_project|embedding_hidden_mapping_in|bridge|"
    r"per_layer_model_projection|encoder_proj|vision_embed_tokens|text_embedding|"
    r"llm_cond_proj|qformer_proj|query_projector|vision_adapter|"
    r"embedding_projection|inputs_embeds_projector|prompt_projector|semantic_connector|"
    r"language_projection|kv_mapper|clip_txt_.*mapper|clip_img_mapper|redux_(up|down)|"
    r"(up|down)_proj_for_(vision_)?speech|project_to_hidden|image_to_text_projection"
)
"""Names of what joins parts of different kinds or widths."""

EMBEDDERS: Final[tuple[tuple[re.Pattern[str], Role], ...]] = (
    (
        re.compile(
            r"(.*_)?(time|timestep|guidance|t|noise|sigma|fps|delta|duration|step)"
            r"(_text|_guidance|_caption|_text_guidance|_image)?_?(embed|embedder|embedding|"
            r"embeddings|emb|proj|projection|mlp|in|embed_r|time_embed|emb_proj)|"
            r"to_timestep_embed|adaln_single|time_mod_proj|t_block|add_embedding|add_time_proj|"
            r"time_emb_proj|(pooled_)?text_embeds?_proj|emb_in|emb_out|condition_embedder"
        ),
        "time_embedding",
    ),
    (
        re.compile(
            r"(.*_)?patch(ify|er)?_?(embed|embedding|embeddings|embedder|projection|proj)|patchify|"
            r"x_embedder|x_embedders|all_x_embedder|img_in|input_proj|"
            r"patch_embedding_projection|video_patch_projection|vae_proj|audio_proj_in|"
            r"feature_projection|input_projection|pos_embed_proj|conv_stem|conv_in|"
            r"(shallow_|dense_)?patch_embed_.*|visual_embeddings|input_blocks?|vid_in"
        ),
        "patch_embedding",
    ),
)
"""Names of what turns an input that is no token into hidden states."""

POSITION: Final = re.compile(
    r"linear_pos|r_proj|pos_proj|(.*_)?rel_pos_.*|.*(position|positional|pos_emb|pos_embed|wpe|relative|rel_pos|distance_embedding|"
    r"posit|pos_bias|rpb|rotary).*",
)

TOWER_CONFIGS: Final[tuple[tuple[re.Pattern[str], Tower], ...]] = (
    (re.compile(r"vision.*|visual.*|image.*|vit.*|video.*|backbone.*|vit_config"), "vision"),
    (re.compile(r"audio.*|speech.*|acoustic.*|codec.*|semantic.*|mel.*"), "audio"),
    (re.compile(r"text.*|language.*|llm.*|lm.*|thinker.*|talker.*"), "text"),
)
"""Names of the parts of a composite configuration."""

TOWER_WORDS: Final[tuple[tuple[re.Pattern[str], Tower], ...]] = (
    (re.compile(r"(.*_)?(vision|visual|image|video|vit)(_.*)?"), "vision"),
    (re.compile(r"(.*_)?(audio|speech|acoustic|mel)(_.*)?"), "audio"),
    (re.compile(r"(.*_)?(text|language|llm)(_.*)?"), "text"),
)
"""Names of modules that are a tower."""
