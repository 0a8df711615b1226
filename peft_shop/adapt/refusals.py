"""Why a method cannot work on a model, whatever its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.adapt.circumstances import group_circumstances
from peft_shop.adapt.exceptions import HEADLESS, NO_PAST, refused_model
from peft_shop.adapt.towers import WRAPPED, takes_text_alone
from peft_shop.upstream.versions import version_key

if TYPE_CHECKING:
    from peft_shop.adapt.drafts import RetargetCase

__all__ = ["refuse", "refuse_base", "refuse_optimizer"]

_HEAD_STAYS: Final = {"ADAPTION_PROMPT", "TRAINABLE_TOKENS"}
_BY_PAST: Final = {"CARTRIDGE", "PREFIX_TUNING"}
_SECOND_STREAM: Final = {"add_k_proj", "add_q_proj", "ff_context"}
_ATTENTION: Final = ("attention_query", "attention_qkv", "attention_output")
_CONVOLUTIONS: Final = frozenset({"conv1d", "conv2d", "conv3d"})
_ADAPTION_MODELS: Final = ("gpt2", "llama", "mistral")


def refuse(case: RetargetCase) -> None:
    """Add to the draft's problems what speaks against the method on this model."""
    _versions(case)
    _task(case)
    if case.method.category == "prompt_learning":
        _prompts(case)
    if case.peft_type == "ADAPTION_PROMPT":
        _adaption_prompt(case)
    if case.peft_type == "SHADOW":
        _shadow(case)
    if case.peft_type == "XLORA":
        _xlora(case)
    known = refused_model(case.peft_type, case.structure)
    if known:
        case.draft.problem(known)


def refuse_optimizer(case: RetargetCase) -> None:
    """Say where the recipe's own optimizer cannot run on the modules that were chosen.

    peft's (0.21.2) multiplies a factor with its transpose: of matrices, not of kernels.
    """
    own = "" if case.recipe is None else case.recipe.training.optimizer.lower()
    kernels = [group for group in case.groups if group.kind in _CONVOLUTIONS]
    if own == "lora-fa" and kernels:
        case.draft.problem(
            f"the LoRA-FA optimizer multiplies matrices, and {kernels[0].pattern} is a convolution"
        )
    elif own == "riemannian" and not case.parameters and len(kernels) == len(case.groups):
        case.draft.problem(
            "the Riemannian optimizer preconditions pairs of matrices, and only convolutions are "
            "adapted here"
        )


def _versions(case: RetargetCase) -> None:
    version, method = case.options.peft_version, case.method
    if version and method.since and version_key(method.since) > version_key(version):
        case.draft.problem(f"{method.title} needs peft {method.since} or newer, not {version}")
    for variant in method.variants:
        if (
            version
            and variant.id in case.variants
            and variant.since
            and version_key(variant.since) > version_key(version)
        ):
            case.draft.problem(
                f"{variant.title} needs peft {variant.since} or newer, not {version}"
            )


def refuse_base(case: RetargetCase) -> None:
    """Add what speaks against the method on a base that comes quantized, once its layers are known.

    How the base is prepared is up to a script.
    """
    backend = case.structure.quantization
    if backend is None:
        return
    capability = case.method.capability(f"quantization.{backend}", case.variants)
    given = group_circumstances(case.structure, case.groups) if case.groups else {}
    ways = [
        capability.under({**given, "prepared": frozenset({prepared})}) for prepared in (True, False)
    ]
    if "yes" not in ways:
        support = "partial" if "partial" in ways else ways[0]
        known = "unknown" if support == "unknown" else f"{support}, not yes"
        note = f": {capability.note}" if capability.note else ""
        case.draft.problem(
            f"whether {case.method.title} trains on layers quantized with {backend} is "
            f"{known}{note}"
        )


def _task(case: RetargetCase) -> None:
    task = case.options.task_type or case.structure.task_type
    if case.structure.modality == "image":
        task = "IMAGE"
    if task is None or task in case.method.task_types:
        return
    if task == "SEQ_CLS" and case.peft_type in _HEAD_STAYS:
        case.draft.note("the classification head is not trained along: there is no modules_to_save")
        return
    if task == "IMAGE" and case.peft_type == "POLY":
        return  # it works, only not through peft's own forward: a note says so
    listed = ", ".join(case.method.task_types)
    case.draft.problem(f"{case.method.title} is for {listed}, not for {task}")


def _prompts(case: RetargetCase) -> None:
    structure = case.structure
    task = case.options.task_type or structure.task_type
    written = takes_text_alone(structure) or (
        structure.modality == "multimodal" and task == "CAUSAL_LM"
    )
    if structure.library != "transformers" or not written:
        case.draft.problem(
            f"{case.method.title} puts virtual tokens before text: it needs a text model of "
            "transformers"
        )
        return
    if task in WRAPPED and not structure.takes_embeddings:
        case.draft.problem(
            f"{case.method.title} goes through peft's wrapper for {task}, which passes "
            f"inputs_embeds, and the forward pass of {structure.architecture} has no such argument"
        )
    if task is None:
        case.draft.problem(
            f"{case.method.title} needs a task_type, and none fits {structure.architecture}"
        )
    if structure.dimensions.attention_heads is None and case.peft_type not in HEADLESS:
        case.draft.problem(
            f"{case.method.title} reads the number of attention heads, and this model has none"
        )
    if case.peft_type in _BY_PAST and structure.model_type in NO_PAST:
        case.draft.problem(
            f"{case.method.title} works through past key values, which {structure.architecture} "
            "does not take"
        )


def _shadow(case: RetargetCase) -> None:
    """It mirrors the text or image backbone and rides on the residual stream of its blocks."""
    structure = case.structure
    if takes_text_alone(structure):
        return
    if structure.modality != "image":
        case.draft.problem(
            f"{case.method.title} is made from the configuration of a text model or from a "
            f"diffusion transformer; {structure.architecture} is neither"
        )
        return
    if structure.architecture == "Flux2Transformer2DModel":
        return  # peft builds a shadow of its own for it
    names = [name for group in structure.groups for name in group.names]
    blocks = [name for name in names if name.startswith("transformer_blocks.")]
    if not blocks:
        case.draft.problem(f"{case.method.title} finds no transformer blocks at the model's top")
    elif any(part in _SECOND_STREAM for name in blocks for part in name.split(".")):
        case.draft.problem(
            f"{case.method.title} rides on one stream of hidden states, and blocks of this model "
            "have two"
        )


def _xlora(case: RetargetCase) -> None:
    layers = [name for group in case.structure.of(_ATTENTION) for name in group.names]
    if not all(name.startswith("model.") for name in layers):
        case.draft.problem(
            f"{case.method.title} loads its experts only where the blocks lie below 'model.'"
        )


def _adaption_prompt(case: RetargetCase) -> None:
    structure = case.structure
    if structure.model_type not in _ADAPTION_MODELS:
        case.draft.problem(
            f"{case.method.title} knows the model types {', '.join(_ADAPTION_MODELS)} only, not "
            f"{structure.model_type or structure.architecture}"
        )
    sizes = structure.dimensions
    if (
        sizes.attention_heads
        and sizes.head_dim
        and sizes.hidden_size
        and sizes.attention_heads * sizes.head_dim != sizes.hidden_size
    ):
        case.draft.problem(
            f"{case.method.title} needs heads whose widths add up to the hidden size, here "
            f"{sizes.attention_heads} x {sizes.head_dim} and {sizes.hidden_size}"
        )
