"""Sizes of a model, its modality and its task, from its configuration and class."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

from peft_shop.model.structure import Dimensions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from peft_shop.catalog.features import TaskType
    from peft_shop.model.structure import ModuleGroup

__all__ = [
    "counts",
    "dimensions",
    "names_embeddings",
    "task_type_of",
    "text_config",
    "value_of",
]

_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "layers": (
        "num_decoder_layers", "num_hidden_layers", "n_layer", "n_layers", "num_layers",
        "decoder_layers",
    ),
    "encoder_layers": ("encoder_layers", "num_encoder_layers"),
    "hidden_size": ("hidden_size", "d_model", "n_embd", "dim", "hidden_dim"),
    "intermediate_size": (
        "intermediate_size", "ffn_dim", "d_ff", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim",
        "ffn_hidden_size", "hidden_dim",
    ),
    "attention_heads": (
        "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads",
        "encoder_attention_heads",
    ),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_kv_heads"),
    "head_dim": ("head_dim", "d_kv", "attention_head_dim"),
    "vocabulary": ("vocab_size",),
    "max_positions": (
        "max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len",
        "n_ctx", "seq_length", "max_sequence_length",
    ),
    "active_experts": (
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk",
        "moe_top_k", "top_k_experts", "num_selected_experts", "moe_router_topk", "top_k",
    ),
}  # fmt: skip
"""Names under which configurations state each size, most specific first."""


def text_config(config: Any) -> Any:
    """The configuration of the language model inside `config`, or `config` itself."""
    if config is None or isinstance(config, dict):
        return config
    get = getattr(config, "get_text_config", None)
    if get is None:
        return config
    try:
        return get()
    except ValueError:  # it has several
        return getattr(config, "decoder", config)


_COUNTS: Final[dict[str, re.Pattern[str]]] = {
    "experts": re.compile(r"(num|n|moe_num)(_local|_routed|_total)*_experts|moe_experts"),
    "vocabularies": re.compile(r"(.*_)?vocab(ulary)?_size(_.*)?|num_labels"),
}


def counts(config: Any, what: Literal["experts", "vocabularies"]) -> frozenset[int]:
    """Numbers above one that `config` and the configurations in it name."""
    found: set[int] = set()
    seen: set[int] = set()

    def visit(one: Any) -> None:
        if id(one) in seen:
            return
        seen.add(id(one))
        fields = one if isinstance(one, dict) else vars(one)
        for name, value in fields.items():
            if hasattr(value, "to_dict"):
                visit(value)
            elif _COUNTS[what].fullmatch(name):
                several = value if isinstance(value, list | tuple) else [value]
                found.update(n for n in several if type(n) is int and n > 1)
        if what == "vocabularies" and not isinstance(one, dict):
            labels = getattr(one, "num_labels", None)
            found.update({labels} if isinstance(labels, int) else ())

    if config is not None:
        visit(config)
    return frozenset(found)


def value_of(config: Any, name: str) -> Any:
    """What a configuration states; `None` where it does not, or a different thing per layer."""
    if config is None or isinstance(config, dict):
        return (config or {}).get(name)
    try:
        return getattr(config, name, None)
    except RuntimeError:  # how transformers says that layers differ in it
        return None


def _first(config: Any, names: Sequence[str]) -> int | None:
    for name in names:
        value = value_of(config, name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def dimensions(config: Any, groups: Sequence[ModuleGroup], *, unet: bool = False) -> Dimensions:
    """Sizes that the configuration states, and what the shapes tell where it is silent.

    Args:
        config: of the model, or `None`.
        groups: its layers.
        unet: whether widths and heads differ from block to block, so that there is no one size.
    """
    text = text_config(config)
    both = bool(value_of(text, "is_encoder_decoder"))
    found = {
        name: _first(text, sorted(names, key=_decoder_last) if both else names)
        for name, names in _FIELDS.items()
        if name != "encoder_layers" or both
    }
    if both and found["encoder_layers"] is None:
        found["encoder_layers"] = _first(text, ("num_layers",))
    if unet:
        return Dimensions()
    main = [group for group in groups if group.tower in {"text", "decoder", "image"}] or list(
        groups
    )
    for name, value in _from_shapes(main).items():
        if found.get(name) is None:
            found[name] = value
    if not any(group.role.startswith("expert") for group in groups):
        found["active_experts"] = None
    hidden, heads, head = (found[one] for one in ("hidden_size", "attention_heads", "head_dim"))
    if head is None and hidden and heads and hidden % heads == 0:
        found["head_dim"] = hidden // heads
    if value_of(text, "multi_query") and not value_of(text, "new_decoder_architecture"):
        found["key_value_heads"] = 1
    if found["key_value_heads"] is None:
        found["key_value_heads"] = heads
    return Dimensions(**found)


def _decoder_last(name: str) -> bool:
    """Sorts what is said of a decoder before what is said of both sides or the encoder."""
    return not name.startswith(("decoder_", "num_decoder_"))


def _from_shapes(groups: Sequence[ModuleGroup]) -> dict[str, int]:
    """Sizes that most layers of a kind have in common."""
    found: dict[str, int] = {}

    def common(name: str, role: str, field: Literal["in_features", "out_features"]) -> None:
        sizes: Counter[int] = Counter()
        for group in groups:
            if group.role == role:
                sizes[getattr(group, field)] += group.count
        if sizes and name not in found:
            found[name] = sizes.most_common(1)[0][0]

    common("hidden_size", "attention_output", "out_features")
    common("hidden_size", "mlp_down", "out_features")
    common("hidden_size", "mixer_out", "out_features")
    common("intermediate_size", "mlp_down", "in_features")
    common("intermediate_size", "expert_down", "in_features")
    rows = [group.in_features for group in groups if group.role == "embedding"]
    if rows:
        found["vocabulary"] = max(rows)
    blocks = [
        one.count
        for one in groups
        if one.role in {"attention_output", "mixer_out"} and one.pattern.count("*") == 1
    ]
    if blocks:
        found["layers"] = max(blocks)
    return found


_TASKS: Final[tuple[tuple[str, TaskType], ...]] = (
    ("ForCausalLM", "CAUSAL_LM"),
    ("LMHeadModel", "CAUSAL_LM"),
    ("ForSequenceClassification", "SEQ_CLS"),
    ("ForImageClassification", "SEQ_CLS"),
    ("ForAudioClassification", "SEQ_CLS"),
    ("ForVideoClassification", "SEQ_CLS"),
    ("ForTokenClassification", "TOKEN_CLS"),
    ("ForQuestionAnswering", "QUESTION_ANS"),
    ("EncoderDecoderModel", "SEQ_2_SEQ_LM"),
    ("ForSpeechSeq2Seq", "SEQ_2_SEQ_LM"),
)


def task_type_of(instance: nn.Module, config: Any, library: str) -> TaskType | None:
    """The peft task type that fits the head of a model; `None` where none does.

    The wrappers of peft for sequence to sequence and for features hand on token ids: they fail on
    models whose main input is another, and on those that take several (seen with Whisper and CLIP
    under peft 0.21.2), which need no task type.
    """
    if library != "transformers":
        return "IMAGE" if library == "diffusers" else None
    architecture = type(instance).__name__
    task_type: TaskType | None = next((task for end, task in _TASKS if end in architecture), None)
    if task_type is None and "ForConditionalGeneration" in architecture:
        both = getattr(config, "is_encoder_decoder", False)
        task_type = "SEQ_2_SEQ_LM" if both else "CAUSAL_LM"
    elif task_type is None and architecture.endswith(("Model", "Encoder")):
        task_type = "FEATURE_EXTRACTION"
    if task_type == "SEQ_2_SEQ_LM" and getattr(instance, "main_input_name", "") != "input_ids":
        return None
    if task_type == "FEATURE_EXTRACTION":
        given = getattr(type(instance), "input_modalities", "")
        several = not isinstance(given, str) and len(given) != 1
        return None if several or not _takes_embeddings(instance) else task_type
    return task_type


def _takes_embeddings(instance: nn.Module) -> bool:
    """Whether its forward pass has the argument that peft's wrapper for features always gives.

    A text model that only passes on what it does not know hands it to a part twice (seen with
    CLIP's text model under peft 0.21.2).
    """
    if getattr(instance, "main_input_name", "") != "input_ids":
        return True
    return names_embeddings(instance)


def names_embeddings(instance: nn.Module) -> bool:
    """Whether the forward pass has an argument `inputs_embeds` of its own."""
    return "inputs_embeds" in inspect.signature(type(instance).forward).parameters
