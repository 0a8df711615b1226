"""What is known of the base that an adapter is for, and how: inspected, stated or suggested.

The user's model, inspected, is the best evidence; then what the folder states (the class of the
model that was wrapped), what its modules are called, what the base's name points to, and at last
the task. Weaker evidence only adds to what stronger evidence leaves open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from peft_shop.catalog.engines import BASE_KINDS
from peft_shop.serve.families import family_of
from peft_shop.serve.fields import plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from peft_shop.catalog.engines import BaseKind
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = [
    "UNKNOWN_BASE",
    "Base",
    "Evidence",
    "base_of_class",
    "base_of_folder",
    "base_of_structure",
]

Evidence: TypeAlias = Literal["model", "class", "modules", "name", "task"]
_HOW: Final[dict[Evidence, str]] = {
    "model": "the model was inspected",
    "class": "the folder names the class that was wrapped",
    "modules": "by the names of its modules",
    "name": "by its name",
    "task": "by its task",
}
_MULTIPLE: Final[frozenset[BaseKind]] = frozenset(("hybrid", "experts", "multimodal"))
"""Kinds that a decoder can be besides."""
_IMAGE: Final[frozenset[BaseKind]] = frozenset(("unet", "diffusion_transformer"))


@dataclass(frozen=True, slots=True)
class Base:
    """A base model, as far as it is known.

    Attributes:
        name: as the user or the folder names it.
        architecture: its class; `None` where it is not known.
        kinds: what it is; empty where it is not known.
        layers: blocks of its main stack; `None` where they are not known.
        modules: last parts of the names of its linear layers; empty where they are not known.
        names: names of all its layers, with every index as `*`; empty where they are not known.
        vocabulary: rows of its embedding; `None` where they are not known.
        tied: whether its head is tied to its embedding; `None` where that is not known.
        among: kinds of which it is one, where nothing tells which.
        by: the strongest evidence; `None` where there is none.
    """

    name: str | None = None
    architecture: str | None = None
    kinds: frozenset[BaseKind] = frozenset()
    layers: int | None = None
    modules: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    vocabulary: int | None = None
    tied: bool | None = None
    among: frozenset[BaseKind] = frozenset()
    by: Evidence | None = None

    @property
    def title(self) -> str:
        """What it is, in words for people."""
        kinds = [BASE_KINDS[kind] for kind in BASE_KINDS if kind in self.kinds]
        name = self.architecture or self.name or "the base"
        return f"{name} ({', '.join(kinds)})" if kinds else name

    @property
    def how(self) -> str:
        """How that is known."""
        return _HOW[self.by] if self.by is not None else "nothing tells"


UNKNOWN_BASE: Final = Base()


# --- from a model ---


def base_of_class(name: str | None, architecture: str) -> Base:
    """A base of which the class is at hand; of no kind where its name tells none."""
    return Base(name, architecture, kinds_of_class(architecture), by="class")


def base_of_structure(structure: Structure) -> Base:
    """The base that the user named, inspected."""
    return Base(
        name=structure.name,
        architecture=structure.architecture,
        kinds=frozenset(_kinds_of(structure)),
        layers=structure.dimensions.layers,
        modules=frozenset(
            group.suffix
            for group in structure.groups
            if group.kind in {"linear", "transformers_conv1d"} and group.role != "head"
        ),
        names=frozenset(group.pattern for group in structure.groups),
        vocabulary=structure.dimensions.vocabulary,
        tied=any(
            any(group.role == "head" and f"{name}.weight" in names for name in group.names)
            for names in structure.tied
            for group in structure.groups
        ),
        by="model",
    )


def _kinds_of(structure: Structure) -> Iterable[BaseKind]:
    by_class = kinds_of_class(structure.architecture)
    yield from by_class
    towers = {group.tower for group in structure.groups}
    if by_class - _MULTIPLE:
        pass  # its class says it: Whisper is of speech, whatever else its towers may be
    elif structure.modality == "image":
        yield "diffusion_transformer"
    elif structure.modality == "vision":
        yield "vision"
    elif structure.modality == "audio":
        yield "speech"
    elif structure.modality == "multimodal":
        yield from ("decoder", "multimodal")
    elif {"encoder", "decoder"} <= towers:
        yield "encoder_decoder"
    elif structure.modality == "text":
        yield "decoder" if structure.task_type == "CAUSAL_LM" or "text" in towers else "encoder"
    roles = set(structure.roles)
    if structure.modality in {"text", "multimodal"}:
        if any(role.startswith("mixer_") for role in roles):
            yield "hybrid"
        if any(role.startswith("expert_") for role in roles):
            yield "experts"


# --- from a folder ---


def base_of_folder(config: Mapping[str, Json], modules: Collection[str]) -> Base:
    """What an adapter's folder says of its base.

    Args:
        config: its `adapter_config.json`.
        modules: names of adapted modules, or of parts of them, with indices or `*`.
    """
    name = config.get("base_model_name_or_path")
    base = Base(name=plain(name) if isinstance(name, str) and name.strip() else None)
    for evidence, architecture, kinds in _clues(config, base.name, modules):
        base = _added(base, evidence, architecture, frozenset(kinds))
    if base.kinds:
        return base
    return replace(base, among=_among(modules, str(config.get("task_type"))))


def _added(
    base: Base, evidence: Evidence, architecture: str | None, kinds: frozenset[BaseKind]
) -> Base:
    """`base` with what weaker evidence adds; what contradicts the stronger is left out."""
    if not kinds:
        return base
    if not base.kinds:
        return replace(base, architecture=architecture, kinds=kinds, by=evidence)
    main, other = base.kinds - _MULTIPLE, kinds - _MULTIPLE
    if main == {"encoder_decoder"} and other == {"speech"} and base.by == "modules":
        # layers of both halves are called alike in models of text and of speech
        return replace(base, architecture=architecture, kinds=kinds, by=evidence)
    if main and other and not main & other:
        return base
    return replace(
        base,
        architecture=base.architecture or architecture,
        kinds=base.kinds | kinds if "decoder" in base.kinds | kinds else base.kinds,
    )


_Clue: TypeAlias = "tuple[Evidence, str | None, Iterable[BaseKind]]"


def _clues(config: Mapping[str, Json], name: str | None, modules: Iterable[str]) -> Iterable[_Clue]:
    """What speaks for a kind of base, the strongest first."""
    mapping = config.get("auto_mapping")
    if isinstance(mapping, dict):
        wrapped, library = mapping.get("base_model_class"), mapping.get("parent_library")
        if isinstance(wrapped, str):
            yield (
                "class",
                plain(wrapped),
                kinds_of_class(wrapped, library if isinstance(library, str) else ""),
            )
    yield "modules", None, kinds_of_modules(modules)
    family = family_of(name) if name else None
    if family is not None:
        yield "name", family.architecture, family.kinds
    yield "task", None, _BY_TASK.get(str(config.get("task_type")), ())


_BY_TASK: Final[dict[str, tuple[BaseKind, ...]]] = {
    "CAUSAL_LM": ("decoder",),
    "SEQ_2_SEQ_LM": ("encoder_decoder",),
}
"""Kinds that a task leaves no doubt of: classifiers are put on any."""

_BY_LEAF: Final[tuple[tuple[str, tuple[BaseKind, ...]], ...]] = (
    ("c_attn c_fc query_key_value dense_h_to_4h dense_4h_to_h W_pack wqkv", ("decoder",)),
    (
        "o_proj gate_proj up_proj down_proj gate_up_proj qkv_proj",
        ("decoder", "encoder_decoder", "multimodal"),
    ),
    ("q k v o wi wi_0 wi_1", ("encoder_decoder",)),
    ("query key value", ("encoder", "vision", "multimodal")),
    (
        "q_proj k_proj v_proj out_proj fc1 fc2",
        ("decoder", "encoder_decoder", "encoder", "vision", "speech", "multimodal"),
    ),
)
"""Kinds that have layers called so; the first that matches counts. None of them makes images."""
_TEXT_TASKS: Final = frozenset(("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"))


def _among(names: Iterable[str], task: str) -> frozenset[BaseKind]:
    """Kinds of which a base is one, by what its layers are called, or by its task."""
    leaves = {name[-200:].partition(".lora_")[0].rpartition(".")[2] for name in names}
    for words, kinds in _BY_LEAF:
        if leaves & set(words.split()):
            return frozenset(kinds)
    return frozenset(("encoder", "decoder")) if task in _TEXT_TASKS else frozenset()


_SEEING: Final[tuple[BaseKind, ...]] = ("decoder", "multimodal")
_BY_CLASS: Final[tuple[tuple[str, tuple[BaseKind, ...]], ...]] = (
    (r"UNet|Unet", ("unet",)),
    (r"Transformer[23]D|DiT|DiffusionTransformer", ("diffusion_transformer",)),
    (r"Whisper|Wav2Vec2|Hubert|WavLM|SpeechT5|SeamlessM4T|ForCTC|Speech2Text", ("speech",)),
    (r"ForSpeechSeq2Seq|ForAudioClassification|Moonshine|Parakeet", ("speech",)),
    (r"Qwen3Next|Jamba|Kimi(Delta|Linear)|GraniteMoeHybrid", ("decoder", "hybrid", "experts")),
    (r"Qwen3_5Moe.*ForCond", ("decoder", "hybrid", "experts", "multimodal")),
    (r"Qwen3_5.*ForCond", ("decoder", "hybrid", "multimodal")),
    (r"Qwen3_5Moe", ("decoder", "hybrid", "experts")),
    (r"Qwen3_5|Mamba|Zamba|FalconH1|NemotronH|Lfm2|OlmoHybrid|Rwkv|Bamba", ("decoder", "hybrid")),
    (r"(Moe|MoE|Mixtral|GptOss|Dbrx|DeepseekV[23]|Jetmoe).*ForCausalLM", ("decoder", "experts")),
    (r"Llama4|Qwen3VLMoe|Qwen3OmniMoe", ("decoder", "multimodal", "experts")),
    (r"VL|Vl(For|Model)|Llava|Idefics|Gemma3n|Gemma[34].*ForCond|Mllama|Pixtral", _SEEING),
    (r"Mistral3For|InternVL|Glm4v|Omni|Blip2|Vision2Seq|SmolVLM|PaliGemma|Voxtral", _SEEING),
    (r"Qwen2Audio|Florence2|Ovis|MiniCPMV|Phi4MM|Phi3V|Phi4Multimodal", _SEEING),
    (r"For(Image|Video|Depth|Object|Semantic|Instance|Universal|MaskedImage)", ("vision",)),
    (r"^CLIPText", ("encoder",)),
    (r"^(ViT|Vit|Dinov?\d?|Swin|Beit|DeiT|Deit|ConvNext|Segformer|ResNet)", ("vision",)),
    (r"^(Sam|Detr|CLIP|Clip|Siglip)", ("vision",)),
    (r"^(M?T5|UMT5|LongT5|SwitchTransformers|M?Bart|Pegasus|Marian|M2M100)", ("encoder_decoder",)),
    (r"^(Nllb|LED|Blenderbot|T5Gemma|ProphetNet|BigBirdPegasus)", ("encoder_decoder",)),
    (r"^(Bert|Roberta|XLMRoberta|Deberta|Electra|Albert|DistilBert|ModernBert)", ("encoder",)),
    (r"^(MPNet|Camembert|Esm|Nomic|ConvBert|EuroBert|NeoBert)", ("encoder",)),
    (r"LMHeadModel$|ForCausalLM$", ("decoder",)),
)
"""What the name of a class tells, in transformers and diffusers; the first that matches counts."""


def kinds_of_class(name: str, library: str = "") -> frozenset[BaseKind]:
    """What a model's class is; empty where its name does not tell."""
    for pattern, kinds in _BY_CLASS:
        if re.search(pattern, name[:200]):
            return frozenset(kinds)
    if library.startswith("diffusers.") and "transformer" in library:
        return frozenset(("diffusion_transformer",))
    return frozenset()


_BY_MODULE: Final[tuple[tuple[str, tuple[BaseKind, ...]], ...]] = (
    (r"(^|\.)(down_blocks|up_blocks|mid_block)\.|(^|_)lora_unet_|(^|\.)unet\.", ("unet",)),
    (r"(^|\.)(single_)?transformer_blocks\.[\d*]|diffusion_model\.", ("diffusion_transformer",)),
    (r"(^|\.)(double|single)_blocks\.", ("diffusion_transformer",)),
    (r"(EncDecAttention|SelfAttention|DenseReluDense)(\.|$)", ("encoder_decoder",)),
    (r"(^|\.)(wi_[01]|encoder_attn)(\.|$)", ("encoder_decoder",)),
    (r"(^|\.)in_proj_(qkv|qkvz|z|a|b|ba)(\.|$)|linear_attn", ("decoder", "hybrid")),
    (r"(^|\.)(x_proj|dt_proj|mixer\.in_proj|mamba)(\.|$)", ("decoder", "hybrid")),
    (r"(^|\.)(language_model|visual|vision_tower|vision_model)(\.|$|\()", _SEEING),
    (r"(^|\.)(multi_modal_projector|mm_projector)(\.|$|\()", _SEEING),
    (r"(^|\.)(block_sparse_moe|experts?)\.", ("decoder", "experts")),
    (r"(^|\.)model\.layers\.(\d+|\*)\.(self_attn|mlp)\.", ("decoder",)),
    (r"(^|\.)(bert|roberta|deberta|electra)\.encoder\.layer\.", ("encoder",)),
    (r"(^|\.)(vit|dinov2|deit|beit|swin)\.encoder\.", ("vision",)),
)
"""What the name of a module or tensor tells, wherever it matches."""
_DIFFUSION_LEAVES: Final = frozenset(
    ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj")
)


def kinds_of_modules(names: Iterable[str]) -> frozenset[BaseKind]:
    """What names of modules tell together; empty where they tell nothing.

    Names of attention in diffusers are those of UNets and of transformers alike: without the block
    that they stand in, they are taken for both.
    """
    known = [name[:400] for name in names]
    kinds: set[BaseKind] = set()
    for pattern, those in _BY_MODULE:
        if any(re.search(pattern, name) for name in known):
            main = kinds - _MULTIPLE
            if not main or main & set(those):
                kinds |= set(those)
    endings = {name.rpartition(".")[2] for name in known} | set(known)
    if not kinds & _IMAGE and endings & _DIFFUSION_LEAVES:
        return _IMAGE
    return frozenset(kinds)
