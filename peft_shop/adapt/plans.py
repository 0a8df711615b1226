"""Values that depend on the model as a whole, its vocabulary or the training, not on its layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.exceptions import HEADLESS, UNMIRRORED
from peft_shop.adapt.intent import measured_model
from peft_shop.adapt.towers import WRAPPED, takes_text_alone
from peft_shop.upstream.defaults import LENGTH, STEPS
from peft_shop.upstream.targets import wildcard

if TYPE_CHECKING:
    from peft_shop.adapt.drafts import RetargetCase
    from peft_shop.catalog.features import TaskType

__all__ = ["plan_fields"]

_READ_FROM_THE_MODEL: Final = (
    "encoder_hidden_size",
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "token_dim",
)
_IN_BLOCKS: Final = ("attention_query", "attention_qkv", "mlp_up", "mlp_down", "mlp_gate_up")
_USUAL_STACKS: Final = {"h", "layers", "single_transformer_blocks", "transformer_blocks"}
_TRAINED_HEADS: Final = {"SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"}
_OF_TEXT: Final = {"CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"}
_NEED_TASK: Final = {"POLY", "MULTITASK_PROMPT_TUNING"}


def plan_fields(case: RetargetCase) -> None:
    """Adapt task type, prompts, schedules and tokens of `case.draft`."""
    _task_type(case)
    _sizes(case)
    {
        "ADALORA": _adalora,
        "ADAPTION_PROMPT": _adaption_prompt,
        "CPT": _cpt,
        "MULTITASK_PROMPT_TUNING": _several_tasks,
        "POLY": _several_tasks,
        "SHADOW": _shadow,
        "TRAINABLE_TOKENS": _trainable_tokens,
        "XLORA": _xlora,
    }.get(case.peft_type, _nothing)(case)
    if case.method.category == "prompt_learning" and case.peft_type != "CPT":
        _length(case)


def _nothing(case: RetargetCase) -> None:
    """Most methods have no value of that sort."""


def _task_type(case: RetargetCase) -> None:
    """`task_type` decides whether a head trains and is saved, and what prompts are put before."""
    draft, structure = case.draft, case.structure
    fit: TaskType | None = case.options.task_type or structure.task_type
    because = f"no task type of peft fits {structure.architecture}"
    if fit == "IMAGE":
        fit = None
    elif fit in _OF_TEXT and not (
        takes_text_alone(structure) or (structure.modality == "multimodal" and fit == "CAUSAL_LM")
    ):
        because = f"peft's wrapper for {fit} hands on text, and {structure.architecture} takes more"
        fit = None
    elif fit == "SEQ_CLS" and structure.modality == "vision" and case.options.task_type is None:
        because = "peft's wrapper for SEQ_CLS hands on text arguments, which image models refuse"
        fit = None
        _train_head(case)
    elif fit in WRAPPED and not structure.takes_embeddings and case.options.task_type is None:
        because = (
            f"peft's wrapper for {fit} passes inputs_embeds, and the forward pass of "
            f"{structure.architecture} has no such argument"
        )
        if fit in _TRAINED_HEADS:
            _train_head(case)
        fit = None
    stated = draft.value("task_type")
    if fit is None:
        draft.drop("task_type", because)
        if case.peft_type == "POLY":
            draft.note("without a task_type peft's forward keeps task_ids to itself: call "
                       "model.base_model(..., task_ids=...)")  # fmt: skip
    elif stated is not None or fit in _TRAINED_HEADS or case.options.task_type is not None:
        draft.set("task_type", fit, "the head of this model")
    elif (
        case.recipe is None
        or case.method.category == "prompt_learning"
        or case.peft_type in _NEED_TASK
    ):
        draft.set("task_type", fit, "the method needs one")


def _train_head(case: RetargetCase) -> None:
    """Let the classification head train and be saved, as the task type would have done."""
    heads = [name for group in case.structure.of(["head"]) for name in group.names]
    if not heads:
        return
    if case.has_field("modules_to_save"):
        entries = case.names.shortest(heads, regular=False)
        case.draft.set(
            "modules_to_save", entries, "the classification head is new and trains along"
        )
    else:
        case.draft.note("the classification head is not trained along: there is no modules_to_save")


def _sizes(case: RetargetCase) -> None:
    for name in ("base_model_name_or_path", "revision"):
        case.draft.drop(name, "it names the model that was measured")
    if case.method.category == "prompt_learning":
        for name in _READ_FROM_THE_MODEL:
            case.draft.drop(name, "a size of another model; peft reads it from this one")
    if case.peft_type == "ADALORA":
        case.draft.drop("rank_pattern", "it belongs to the run that made it")


def _length(case: RetargetCase) -> None:
    wanted = case.options.num_virtual_tokens
    if wanted is not None:
        case.draft.set("num_virtual_tokens", wanted, "asked for")
    elif not case.draft.value("num_virtual_tokens"):
        case.draft.set("num_virtual_tokens", LENGTH, "the method needs a length")
    if (
        case.peft_type in {"PROMPT_TUNING", "P_TUNING"}
        and case.draft.value("task_type") == "SEQ_2_SEQ_LM"
    ):
        case.draft.set(
            "num_transformer_submodules", 1, "only the encoder is prompted: a second set of tokens "
            "would train without a use",
        )  # fmt: skip
    if case.structure.dimensions.attention_heads is None and case.peft_type in HEADLESS:
        case.draft.set("num_attention_heads", 1, "this model has no attention heads, peft asks for "
                       "them all the same and does not use them here")  # fmt: skip
    if (
        not takes_text_alone(case.structure)
        and case.draft.value("prompt_tuning_init") == "SAMPLE_VOCAB"
    ):
        case.draft.drop("prompt_tuning_init", "a token drawn from the vocabulary may be the one "
                        "that stands for an image")  # fmt: skip
    length, longest = (
        case.draft.value("num_virtual_tokens"),
        case.structure.dimensions.max_positions,
    )
    frozen = case.draft.value("num_frozen_tokens")
    if frozen is not None and length <= frozen:
        case.draft.problem(f"all {length} tokens are frozen (num_frozen_tokens {frozen})")
    if longest is not None and length >= longest:
        case.draft.set(
            "num_virtual_tokens", max(1, longest // 2), f"this model sees {longest} tokens at most"
        )


def _adalora(case: RetargetCase) -> None:
    """Stretch the plan to the user's steps; without a number, the recipe's own plan holds."""
    draft, recipe = case.draft, case.recipe
    before = draft.value("total_step")
    total = case.options.total_steps
    if total is None and before:
        draft.note(f"the plan is made for {before} optimizer steps: give yours (total_steps)")
        return
    if total is None:
        total = recipe.training.max_steps if recipe else STEPS
        draft.note(f"the plan is made for {total} optimizer steps: give yours (total_steps)")
    if before == total:
        return
    draft.set("total_step", total, "the optimizer steps of this training")
    if recipe is None:
        draft.set("tinit", max(1, total // 10), "a tenth of the steps before ranks are removed")
        draft.set("tfinal", total // 5, "a fifth of the steps with the ranks that are left")
    old = before or total
    initial, final = draft.value("tinit") or 0, draft.value("tfinal") or 0
    for name, value in (("tinit", initial), ("tfinal", final)):
        if value:
            draft.set(name, value * total // old, "the same share of the steps as measured")
    if (draft.value("tinit") or 0) + (draft.value("tfinal") or 0) >= total:
        draft.set("tinit", 0, "both phases must end before the last step")
        draft.set("tfinal", 0, "both phases must end before the last step")


def _adaption_prompt(case: RetargetCase) -> None:
    draft, depth = case.draft, case.structure.dimensions.layers
    if not draft.value("adapter_len"):
        draft.set("adapter_len", 10, "the method needs a length")
    layers, model = draft.value("adapter_layers"), measured_model(case)
    if depth is None:
        return
    if not layers:
        draft.set("adapter_layers", depth, "all layers")
    elif model is not None and layers == model.layers and depth != layers:
        draft.set("adapter_layers", depth, f"all {depth} layers, as all {layers} were measured")
    elif layers > depth:
        draft.set("adapter_layers", depth, f"this model has {depth} layers")


def _trainable_tokens(case: RetargetCase) -> None:
    draft, given = case.draft, case.options.token_indices
    model = measured_model(case)
    vocabulary = case.structure.dimensions.vocabulary
    if given is not None:
        draft.set("token_indices", sorted(given), "asked for")
    elif case.recipe is None or (model is not None and vocabulary != model.vocabulary):
        draft.drop("token_indices", "they belong to another tokenizer")
        draft.problem("needs token_indices: which rows of this model's embedding to train")
        return
    _embedding(case)
    indices = draft.value("token_indices") or []
    if not indices:
        draft.problem("needs token_indices: which rows of this model's embedding to train")
    elif vocabulary is not None and max(indices) >= vocabulary:
        draft.problem(f"token_indices: {max(indices)} is not below the vocabulary of {vocabulary}")


def _embedding(case: RetargetCase) -> None:
    """Peft finds the token embedding of text models by itself."""
    structure = case.structure
    tables = [one for one in structure.of(["embedding"]) if one.kind == "embedding"]
    if not tables:
        case.draft.problem(f"{case.method.title} needs a token embedding, and this model has none")
    elif not takes_text_alone(structure) and not case.draft.value("target_modules"):
        vocabulary = structure.dimensions.vocabulary
        fit = [table for table in tables if table.in_features == vocabulary] or tables[:1]
        names = {name for one in fit for name in one.names}
        case.draft.set(
            "target_modules", case.names.shortest(names), "the token embedding of this model"
        )


def _cpt(case: RetargetCase) -> None:
    draft, given = case.draft, case.options.token_indices
    draft.drop("tokenizer_name_or_path", "the tokenizer of the model that was measured")
    if given is None and case.recipe is not None and draft.value("cpt_token_ids"):
        return
    if given is None:
        draft.problem("needs token_indices: the tokens of the context that it starts from")
        return
    if len(given) < 2:
        draft.problem("token_indices: CPT needs two tokens at least, of which one is a label")
        return
    count = len(given)
    draft.set("cpt_token_ids", list(given), "asked for")
    draft.set("cpt_mask", [1] * count, "one for each token of the context")
    # peft counts the types of the input on from the highest one here: only after a multiple of 4
    # are the user's own labels labels
    draft.set("cpt_tokens_type_mask", [1] * (count - 1) + [4], "one for each token of the context")
    draft.note(
        "cpt_tokens_type_mask says of each token what it is (1 input template, 2 input, 3 output "
        "template, 4 label): the last one is taken for a label, the others for an input template; "
        "state yours"
    )


def _shadow(case: RetargetCase) -> None:
    """Its targets are whole blocks; peft finds them by itself where their list has a usual name."""
    draft = case.draft
    stated = draft.value("target_modules")
    model = measured_model(case)
    if stated and model is not None:
        hit = case.names.named_by(stated)
        stacks = {wildcard(name) for name in hit}
        whole = {name for name in case.names.all if wildcard(name) in stacks}
        # a recipe that took every block of its stack is to take every one here
        if not hit or hit != whole:
            draft.drop("target_modules", "blocks of another model; peft takes all of this one's")
    stack = _stack(case)
    if stack is not None and not draft.value("target_modules"):
        draft.set(
            "target_modules", stack, "all blocks of this model, which peft does not find by itself"
        )
    for name, (models, because) in UNMIRRORED.items():
        if case.structure.model_type in models:
            draft.drop(name, because)
    if case.structure.architecture == "Flux2Transformer2DModel":
        _shadow_of_flux(case)
    if model is not None and not model.fits(case.structure):
        draft.drop("shadow_model", "a checkpoint for the measured model; a small mirror of this "
                   "model's blocks takes its place")  # fmt: skip


def _shadow_of_flux(case: RetargetCase) -> None:
    """A shadow of FLUX.2 copies the base's heads and blocks, and can have no more of them."""
    draft, groups = case.draft, case.structure.groups
    sizes = {
        group.pattern: (group.in_features, group.out_features, group.count) for group in groups
    }
    query, norm = (sizes.get(f"transformer_blocks.*.attn.{end}") for end in ("to_q", "norm_q"))
    down = sizes.get("transformer_blocks.*.ff.linear_out")
    single = sizes.get("single_transformer_blocks.*.attn.to_out", (0, 0, 0))[2]
    if query is None or norm is None or down is None:
        return
    width, most = norm[1], query[1] // norm[1]
    layers = draft.value("shadow_num_hidden_layers")
    if layers and layers > min(query[2], single // 2):
        draft.set(
            "shadow_num_hidden_layers", max(1, min(query[2], single // 2)),
            f"one and twice as many of {query[2]} and {single} blocks are copied",
        )  # fmt: skip
    heads, hidden = draft.value("shadow_num_attention_heads"), draft.value("shadow_hidden_size")
    if heads or hidden:
        because = f"the heads of the base are copied: {most} of width {width}"
        fit = max(1, min(most, heads or hidden // width))
        if heads:
            draft.set("shadow_num_attention_heads", fit, because)
        if hidden:
            draft.set("shadow_hidden_size", fit * width, because)
    inner = draft.value("shadow_intermediate_size")
    if inner and inner > down[0]:
        draft.set("shadow_intermediate_size", down[0], f"the base has {down[0]}")


def _stack(case: RetargetCase) -> str | None:
    """Regular expression of the blocks, where their list has none of the names that peft knows."""
    counts: dict[str, int] = {}
    for group in case.structure.of(_IN_BLOCKS):
        prefix, star, _ = group.pattern.partition(".*")
        if star:
            counts[prefix] = counts.get(prefix, 0) + group.count
    if not counts:
        return None
    stack = max(counts, key=lambda one: counts[one])
    if stack.rpartition(".")[2] in _USUAL_STACKS:
        return None
    return re.escape(stack) + r"\.\d+"


def _several_tasks(case: RetargetCase) -> None:
    """One task alone is no use of a method that shares among tasks."""
    if case.recipe is None:
        name = "n_tasks" if case.peft_type == "POLY" else "num_tasks"
        case.draft.set(name, 2, "the method shares among tasks")
        case.draft.note(f"{name} is the number of your tasks; every forward needs task_ids")


def _xlora(case: RetargetCase) -> None:
    draft, folders = case.draft, case.options.adapters
    if not folders:
        draft.problem("needs adapters: folders of trained LoRA adapters of this model")
        return
    draft.set("adapters", {str(i): folder for i, folder in enumerate(folders)}, "asked for")
    width = case.structure.dimensions.hidden_size
    if width is not None:
        draft.set("hidden_size", width, "the hidden size of this model")
    draft.note("set use_cache = False in the model's configuration")
