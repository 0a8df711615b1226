"""What can be asked about a method: the names of capabilities and the features behind them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

from pydantic import StringConstraints

from peft_shop.records import Record, Text

__all__ = [
    "EVIDENCE_LEVELS",
    "FEATURES",
    "FEATURE_IDS",
    "FULL_FINETUNING",
    "SINGLES",
    "Better",
    "Category",
    "EvidenceLevel",
    "ExperimentName",
    "Family",
    "Feature",
    "LayerType",
    "QuantizationBackend",
    "Single",
    "Support",
    "TaskType",
    "Timestamp",
]

Support: TypeAlias = Literal["yes", "partial", "no", "unknown"]
EvidenceLevel: TypeAlias = Literal["declared", "injected", "trained", "verified"]
EVIDENCE_LEVELS: Final[tuple[EvidenceLevel, ...]] = ("declared", "injected", "trained", "verified")
"""Weakest first."""

LayerType: TypeAlias = Literal[
    "linear",
    "embedding",
    "conv1d",
    "conv2d",
    "conv3d",
    "layer_norm",
    "multihead_attention",
    "transformers_conv1d",
    "parameter",
]
QuantizationBackend: TypeAlias = Literal[
    "aqlm", "awq", "bnb_4bit", "bnb_8bit", "eetq", "gptq", "hqq", "inc", "torchao"
]
Category: TypeAlias = Literal["adapter", "prompt_learning", "other"]
TaskType: TypeAlias = Literal[
    "CAUSAL_LM",
    "SEQ_2_SEQ_LM",
    "SEQ_CLS",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
    "IMAGE",
]
Family: TypeAlias = Literal[
    "low_rank",
    "kronecker_hadamard",
    "orthogonal",
    "shared_projection",
    "spectral",
    "sparse",
    "scaling",
    "prompt",
    "mixture",
    "full_rank",
    "side_network",
    "selective",
]
Better: TypeAlias = Literal["lower", "higher"]

ExperimentName: TypeAlias = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+=-]*(/[A-Za-z0-9_.+=-]+)*$", max_length=200
    ),
]
Timestamp: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
]

FULL_FINETUNING: Final = "full_finetuning"
"""Stands in `Run.method` for the baseline that is not a PEFT method."""


class Feature(Record):
    """One capability that a method can have.

    Attributes:
        id: identifier, such as `quantization.bnb_4bit` or `merging`.
        group: `layer_types`, `quantization` or `None` for a feature of its own.
        title: short label.
        question: the question that support answers.
    """

    id: str
    group: Literal["layer_types", "quantization"] | None = None
    title: Text
    question: Text


class Single(NamedTuple):
    """A capability with a keyword and a flag of its own: all that a new one needs.

    Attributes:
        id: identifier, keyword of `recommend` and, with dashes, flag of the command line.
        question: the question that support answers.
        statement: what a method that has it does, as the flag's help.
    """

    id: str
    question: str
    statement: str


SINGLES: Final = (
    Single(
        "merging",
        "Can the trained adapter be merged into the weights of a language model?",
        "It merges into the base weights.",
    ),
    Single(
        "convertible_to_lora",
        "Does peft convert the trained adapter into a LoRA adapter?",
        "peft converts it to LoRA.",
    ),
    Single(
        "extractable_to_lora",
        "Can its update be written as a LoRA (by `peft-shop convert`)?",
        "`peft-shop convert` writes it as an exact LoRA.",
    ),
    Single(
        "multiple_adapters",
        "Can one model hold several adapters of it and switch among them?",
        "One model holds several and switches among them.",
    ),
    Single(
        "mixed_batches",
        "Can one batch use different adapters per sample (`adapter_names`)?",
        "One batch uses different adapters per sample.",
    ),
    Single(
        "weighted_combination",
        "Can adapters be combined with weights (`add_weighted_adapter`)?",
        "Adapters combine with weights.",
    ),
    Single(
        "hot_swapping",
        "Can a loaded adapter be replaced in place (`hotswap_adapter`)?",
        "A loaded adapter is replaced in place.",
    ),
    Single(
        "mixed_methods",
        "Can it be active beside other methods (`PeftMixedModel`)?",
        "It works beside other methods.",
    ),
    Single(
        "modules_to_save",
        "Can whole modules be trained and saved beside it (`modules_to_save`)?",
        "Whole modules are trained and saved beside it.",
    ),
    Single(
        "trainable_token_indices",
        "Can single token embeddings be trained beside it?",
        "Single token embeddings are trained beside it.",
    ),
    Single(
        "save_and_reload",
        "Does a saved adapter give the same outputs once it is loaded?",
        "A saved adapter loads back to the same outputs.",
    ),
    Single(
        "disable_adapter",
        "Does `disable_adapter()` give back the base model's outputs?",
        "Switched off, it gives back the base model's outputs.",
    ),
    Single(
        "identity_at_start",
        "Does a fresh adapter leave the base model's outputs as they are?",
        "Untrained, it leaves the base model as it is.",
    ),
    Single(
        "gradient_checkpointing",
        "Does it train the same under gradient checkpointing?",
        "It trains under gradient checkpointing.",
    ),
    Single(
        "torch_compile",
        "Does `torch.compile` trace it, with equal outputs and gradients?",
        "It works under torch.compile.",
    ),
    Single(
        "deterministic",
        "Do two trainings under one seed give the same weights?",
        "One seed gives one adapter.",
    ),
)


def _features() -> tuple[Feature, ...]:
    layers: dict[LayerType, str] = {
        "linear": "torch.nn.Linear",
        "embedding": "torch.nn.Embedding",
        "conv1d": "torch.nn.Conv1d",
        "conv2d": "torch.nn.Conv2d",
        "conv3d": "torch.nn.Conv3d",
        "layer_norm": "torch.nn.LayerNorm",
        "multihead_attention": "torch.nn.MultiheadAttention",
        "transformers_conv1d": "transformers.pytorch_utils.Conv1D (GPT-2)",
        "parameter": "torch.nn.Parameter without a layer of its own (mixture-of-experts weights)",
    }
    backends: dict[QuantizationBackend, str] = {
        "aqlm": "AQLM",
        "awq": "AWQ",
        "bnb_4bit": "bitsandbytes 4-bit",
        "bnb_8bit": "bitsandbytes 8-bit",
        "eetq": "EETQ",
        "gptq": "GPTQ",
        "hqq": "HQQ",
        "inc": "Intel Neural Compressor",
        "torchao": "torchao",
    }
    features = [
        Feature(
            id=f"layer_types.{layer}",
            group="layer_types",
            title=layer,
            question=f"Can it adapt a {cls}?",
        )
        for layer, cls in layers.items()
    ]
    features += [
        Feature(
            id=f"quantization.{backend}",
            group="quantization",
            title=backend,
            question=f"Does it train on a base whose layers are quantized with {title}?",
        )
        for backend, title in backends.items()
    ]
    features += [
        Feature(id=single.id, title=single.id.replace("_", " "), question=single.question)
        for single in SINGLES
    ]
    return tuple(features)


FEATURES: Final[tuple[Feature, ...]] = _features()
FEATURE_IDS: Final[tuple[str, ...]] = tuple(feature.id for feature in FEATURES)
