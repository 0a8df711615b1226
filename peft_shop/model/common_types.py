"""The configuration of a common text model -> its structure from arithmetic alone; no torch.

What transformers 5 builds for six model types, so that a question about them is answered without
importing it. A test holds every structure made here equal to the one that an inspection gives;
whatever is not plainly one of these (another class, quantization, code of its own, a key that is
not known to leave the layers alone) is left to the inspection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from peft_shop.model.datatypes import ASSUMED, most_of, stated_dtype
from peft_shop.model.evidence import evidence_for
from peft_shop.model.limits import check_sizes
from peft_shop.model.storage import storage_of_types
from peft_shop.model.stored_weights import cautions, stored
from peft_shop.model.structure import Dimensions, ModuleGroup, Structure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peft_shop.model.checkpoints import Checkpoint
    from peft_shop.model.structure import LayerKind, Role

__all__ = ["structure_from"]


@dataclass(frozen=True, slots=True)
class _Type:
    """What tells one model type from another, and the defaults of its configuration.

    Attributes:
        prefix: of its classes.
        vocabulary: rows of the token embedding.
        hidden: width of the residual stream.
        intermediate: width of the MLP.
        layers: number of blocks.
        queries: heads of queries.
        heads: heads of keys and values; `None` for as many as of queries.
        positions: longest input.
        head_dim: width of a head; `None` for the hidden size over the heads.
        null_heads: whether `num_key_value_heads` may be null, for as many as of queries.
        qkv_bias: whether queries, keys and values always have a bias.
        biases: keys by which biases can be asked for.
        head_norms: whether queries and keys are normalised.
        gemma: whether embeddings are scaled, and tied by default, and the MLP has norms around it.
    """

    prefix: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    queries: int
    heads: int | None
    positions: int
    head_dim: int | None = None
    null_heads: bool = False
    qkv_bias: bool = False
    biases: tuple[str, ...] = ()
    head_norms: bool = False
    gemma: bool = False


_ATTENTION: Final = ("attention_bias",)
_TYPES: Final[dict[str, _Type]] = {
    "llama": _Type(
        "Llama", 32000, 4096, 11008, 32, 32, None, 2048, null_heads=True,
        biases=("attention_bias", "mlp_bias"),
    ),
    "mistral": _Type("Mistral", 32000, 4096, 14336, 32, 32, 8, 131072),
    "qwen2": _Type(
        "Qwen2", 151936, 4096, 22016, 32, 32, 32, 32768, null_heads=True, qkv_bias=True
    ),
    "qwen3": _Type(
        "Qwen3", 151936, 4096, 22016, 32, 32, 32, 32768, 128, null_heads=True, biases=_ATTENTION,
        head_norms=True,
    ),
    "gemma2": _Type(
        "Gemma2", 256000, 2304, 9216, 26, 8, 4, 8192, 256, biases=_ATTENTION, gemma=True
    ),
    "gemma3_text": _Type(
        "Gemma3", 262208, 2304, 9216, 26, 8, 4, 131072, 256, biases=_ATTENTION, head_norms=True,
        gemma=True,
    ),
}  # fmt: skip
"""The defaults of their configuration classes in transformers 5.23."""
_HARMLESS: Final = frozenset(
    {
        "_name_or_path", "_sliding_window_pattern", "architectures", "attention_dropout",
        "attn_logit_softcapping", "bos_token_id", "cache_implementation", "dtype", "eos_token_id",
        "final_logit_softcapping", "hidden_act", "hidden_activation", "initializer_range",
        "layer_types", "max_window_layers", "model_max_length", "model_type", "pad_token_id",
        "pretraining_tp", "query_pre_attn_scalar", "rms_norm_eps", "rope_local_base_freq",
        "rope_parameters", "rope_scaling", "rope_theta", "sliding_window",
        "sliding_window_pattern", "tokenizer_class", "torch_dtype", "transformers_version",
        "unsloth_fixed", "unsloth_version", "use_bidirectional_attention", "use_cache",
        "use_sliding_window",
    }
)  # fmt: skip
"""Keys that leave the layers and their sizes alone."""
_USUAL: Final[dict[str, object]] = {
    "add_cross_attention": False, "bad_words_ids": None, "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None,
    "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": False,
    "early_stopping": False, "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None, "finetuning_task": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False,
    "is_encoder_decoder": False, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0,
    "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": False,
    "output_hidden_states": False, "output_scores": False, "prefix": None, "problem_type": None,
    "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.0,
    "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None,
    "suppress_tokens": None, "task_specific_params": None, "temperature": 1.0,
    "tf_legacy_loss": False, "tie_encoder_decoder": False, "top_k": 50, "top_p": 1.0,
    "torchscript": False, "typical_p": 1.0, "use_bfloat16": False,
}  # fmt: skip
"""What transformers 4.57 and 5.23 write of any configuration where it states nothing else; another
value of one of them is left to the inspection."""
_SIZES: Final = frozenset(
    {
        "head_dim", "hidden_size", "intermediate_size", "max_position_embeddings",
        "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "tie_word_embeddings",
        "vocab_size",
    }
)  # fmt: skip
_ROPES: Final = {None, "default", "linear", "dynamic", "yarn", "llama3"}
_KINDS_OF_LAYER: Final = {"full_attention", "sliding_attention"}


def structure_from(checkpoint: Checkpoint) -> Structure | None:
    """The structure of a common text model; `None` where only an inspection can tell.

    Raises:
        ModelError: a size or the data type is none.
    """
    content = checkpoint.content
    kind = content.get("model_type")
    known = _TYPES.get(kind) if isinstance(kind, str) else None
    if known is None or checkpoint.storage_files or not _plain(content, known):
        return None
    check_sizes(content, checkpoint.place)
    sizes = _sizes(content, known)
    if sizes is None:
        return None
    tied = content.get("tie_word_embeddings", known.gemma)
    groups = tuple(_groups(content, known, sizes))
    architecture = f"{known.prefix}ForCausalLM"
    evidence = evidence_for(architecture, "text", "CAUSAL_LM")
    dtype = stated_dtype(content, checkpoint.place) or most_of(checkpoint.stored_types)
    storage = storage_of_types(checkpoint.stored_types)
    structure = Structure(
        name=checkpoint.name,
        architecture=architecture,
        model_type=kind,
        library="transformers",
        modality="text",
        task_type="CAUSAL_LM",
        benchmark=evidence.benchmark,
        benchmark_because=evidence.because,
        groups=groups,
        stored_quantization=None if storage is None else stored(storage, groups),
        tied=(("model.embed_tokens.weight", "lm_head.weight"),) if tied else (),
        dtype=dtype or ASSUMED,
        dtype_stated=dtype is not None,
        parameters=sum(
            group.parameters * group.count
            for group in groups
            if not (tied and group.role == "head")
        ),
        dimensions=sizes,
    )
    told = [f"{text[0].upper()}{text[1:]}." for text in cautions(structure)]
    return structure.model_copy(update={"notes": (*checkpoint.remarks, *told)})


def _plain(content: Mapping[str, Any], known: _Type) -> bool:
    """Whether nothing in a configuration can change the layers but their sizes."""
    for name in content.keys() - _HARMLESS - _SIZES - set(known.biases):
        if name not in _USUAL or not _same(content[name], _USUAL[name]):
            return False
    if content.get("architectures") not in (None, [], [f"{known.prefix}ForCausalLM"]):
        return False
    if not _typed(content, known):
        return False
    layers = content.get("layer_types")
    if layers is not None and not (
        isinstance(layers, list)
        and len(layers) == content.get("num_hidden_layers", known.layers)
        and all(type(layer) is str and layer in _KINDS_OF_LAYER for layer in layers)
    ):
        return False
    ropes = (content.get("rope_scaling"), content.get("rope_parameters"))
    return all(rope is None or _plain_rope(rope) for rope in ropes)


def _typed(content: Mapping[str, Any], known: _Type) -> bool:
    """Whether switches and names are of the types that the classes take."""
    flags = ("tie_word_embeddings", "use_sliding_window", "use_cache", *known.biases)
    both_ways = content.get("use_bidirectional_attention")
    return (
        all(type(content.get(name, False)) is bool for name in flags)
        and all(
            type(content.get(name, "silu")) is str for name in ("hidden_act", "hidden_activation")
        )
        and (both_ways is None or type(both_ways) is bool)
    )


def _same(value: object, usual: object) -> bool:
    """Whether a value is the usual one and of its type: 1 is no `true`."""
    return type(value) is type(usual) and value == usual


def _plain_rope(rope: Any) -> bool:
    """Whether rotary positions are scaled in a way that every version takes."""
    if not isinstance(rope, dict):
        return False
    kind = rope.get("rope_type", rope.get("type"))
    if not (kind is None or isinstance(kind, str)) or kind not in _ROPES:
        return False
    return all(
        type(value) in {int, float, str, bool} or (isinstance(value, dict) and _plain_rope(value))
        for value in rope.values()
    )


def _sizes(content: Mapping[str, Any], known: _Type) -> Dimensions | None:
    """Its sizes with the defaults of its type; `None` where one is missing or odd."""

    def size(name: str, usual: int | None) -> int | None:
        value = content.get(name, usual)
        return value if type(value) is int and value > 0 else None

    hidden = size("hidden_size", known.hidden)
    intermediate = size("intermediate_size", known.intermediate)
    layers = size("num_hidden_layers", known.layers)
    heads = size("num_attention_heads", known.queries)
    vocabulary = size("vocab_size", known.vocabulary)
    positions = size("max_position_embeddings", known.positions)
    if None in (hidden, intermediate, layers, heads, vocabulary, positions):
        return None
    assert hidden is not None and heads is not None and vocabulary is not None  # noqa: S101, PT018 - just seen
    padding = content.get("pad_token_id", 0)
    if hidden % heads or not (
        padding is None or (type(padding) is int and -1 <= padding < vocabulary)
    ):
        return None
    both = size("num_key_value_heads", known.heads)
    width = size("head_dim", known.head_dim)
    if both is None:
        if not known.null_heads or content.get("num_key_value_heads") is not None:
            return None
        both = heads
    if width is None:
        if known.head_dim is not None or content.get("head_dim") is not None:
            return None
        if known.qkv_bias and "head_dim" in content:
            return None
        width = hidden // heads
    return Dimensions(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        attention_heads=heads,
        key_value_heads=both,
        head_dim=width,
        vocabulary=vocabulary,
        max_positions=positions,
    )


def _groups(content: Mapping[str, Any], known: _Type, sizes: Dimensions) -> Iterator[ModuleGroup]:
    """Every group of modules in the order of the class."""
    hidden, inner = sizes.hidden_size or 0, sizes.intermediate_size or 0
    head, vocabulary = sizes.head_dim or 0, sizes.vocabulary or 0
    queries = (sizes.attention_heads or 0) * head
    values = (sizes.key_value_heads or 0) * head
    biased = bool(content.get("attention_bias", False))
    mlp = bool(content.get("mlp_bias", False))

    def group(
        pattern: str, role: Role, kind: LayerKind, inputs: int, outputs: int, *, bias: bool = False
    ) -> ModuleGroup:
        class_name = {
            "linear": "Linear",
            "rms_norm": f"{known.prefix}RMSNorm",
            "embedding": f"{known.prefix}TextScaledWordEmbedding" if known.gemma else "Embedding",
        }[kind]
        count = range(sizes.layers or 0) if "*" in pattern else (0,)
        shape = {"linear": (outputs, inputs), "rms_norm": (inputs,)}.get(kind, (inputs, outputs))
        size = inputs if kind == "rms_norm" else inputs * outputs
        return ModuleGroup(
            pattern=pattern,
            names=tuple(pattern.replace("*", str(index)) for index in count),
            role=role,
            tower="text",
            kind=kind,
            class_name=class_name,
            exact=class_name in {"Linear", "Embedding"},
            in_features=inputs,
            out_features=outputs,
            bias=bias,
            parameters=size + (outputs if bias else 0),
            shape=shape,
        )

    def norm(name: str, width: int = hidden) -> ModuleGroup:
        return group(name, "norm", "rms_norm", width, width)

    block = "model.layers.*."
    qkv = known.qkv_bias or biased
    yield group("model.embed_tokens", "embedding", "embedding", vocabulary, hidden)
    for name, role, outputs in (
        ("q", "attention_query", queries), ("k", "attention_key", values),
        ("v", "attention_value", values),
    ):  # fmt: skip
        yield group(f"{block}self_attn.{name}_proj", role, "linear", hidden, outputs, bias=qkv)  # type: ignore[arg-type]  # roles all
    yield group(
        f"{block}self_attn.o_proj", "attention_output", "linear", queries, hidden, bias=biased
    )
    if known.head_norms:
        yield norm(f"{block}self_attn.q_norm", head)
        yield norm(f"{block}self_attn.k_norm", head)
    yield group(f"{block}mlp.gate_proj", "mlp_gate", "linear", hidden, inner, bias=mlp)
    yield group(f"{block}mlp.up_proj", "mlp_up", "linear", hidden, inner, bias=mlp)
    yield group(f"{block}mlp.down_proj", "mlp_down", "linear", inner, hidden, bias=mlp)
    yield norm(f"{block}input_layernorm")
    yield norm(f"{block}post_attention_layernorm")
    if known.gemma:
        yield norm(f"{block}pre_feedforward_layernorm")
        yield norm(f"{block}post_feedforward_layernorm")
    yield norm("model.norm")
    yield group("lm_head", "head", "linear", hidden, vocabulary)
