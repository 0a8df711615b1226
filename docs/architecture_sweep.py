"""Builds every architecture of transformers and diffusers on meta and judges its inspection.

What must hold is told by oracles that share nothing with the rules that give roles: torch's
classes, the accessors of transformers, shapes, and numbers that configurations state.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import diffusers
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto
from transformers.pytorch_utils import Conv1D

from peft_shop.errors import ModelError
from peft_shop.model.inspection import inspect_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peft_shop.model.inspection import Target
    from peft_shop.model.structure import ModuleGroup

__all__ = ["INVARIANTS", "Architecture", "Verdict", "architectures", "backbones", "build", "judge"]

INVARIANTS: Final[dict[str, str]] = {
    "complete": "every layer that multiplies, embeds or normalises is in exactly one group",
    "understood": "at most a third of the linear layers are `other`",
    "attention": "every attention block has a query, key, value and output, or fused ones",
    "mlp": "what goes up in an MLP comes down again: widths agree",
    "routers": "routers have as many outputs as there are experts; blocks with experts have one",
    "heads": "the output embeddings are a head; heads give the vocabulary or the labels",
    "embeddings": "the input embeddings are an embedding",
}

# what a default configuration lacks, or states in a way that its own class refuses
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "autoformer": {"prediction_length": 8},
    "informer": {"prediction_length": 8},
    "time_series_transformer": {"prediction_length": 8},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "HunyuanDiT2DModel": {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "sample_size": 32,
    },
    "Transformer2DModel": {"in_channels": 32},
    "HiDreamImageTransformer2DModel": {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 64,
        "num_layers": 2,
        "num_single_layers": 2,
        "caption_channels": [4096, 4096],
        "text_emb_dim": 2048,
    },
    "LatteTransformer3DModel": {"in_channels": 4, "sample_size": 32, "patch_size": 2},
    "LuminaNextDiT2DModel": {"num_attention_heads": 32, "num_kv_heads": 8},
    "TransformerTemporalModel": {"in_channels": 320},
    "EasyAnimateTransformer3DModel": {"sample_width": 90, "sample_height": 60},
    "hiera": {"mlp_ratio": 4.0},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 4},
    "hunyuan_vl_text": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "reformer": {"is_decoder": True},
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
}
_DEPTHS: Final = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_decoder_layers", "num_encoder_layers",
)  # fmt: skip
_MIXED: Final = (
    "layer_types", "layers_block_type", "attn_layer_period", "hybrid_override_pattern",
    "first_k_dense_replace", "block_types", "mlp_layer_types", "attention_types",
)  # fmt: skip
"""Where layers differ from each other all are built."""


@dataclass(frozen=True)
class Architecture:
    """One class with one configuration."""

    library: str
    model_types: tuple[str, ...]
    class_name: str
    tasks: tuple[str, ...]


@dataclass
class Verdict:
    """What came of one architecture: why it cannot be built, or what it breaks."""

    architecture: Architecture
    problem: str = ""
    broken: dict[str, str] = field(default_factory=dict)
    layers: int = 0
    others: int = 0


def architectures() -> Iterator[Architecture]:
    """Every class that an auto class of transformers gives, and the models of diffusers."""
    kinds: OrderedDict[str, list[str]] = OrderedDict()
    tasks: dict[str, list[str]] = {}
    for table in dir(modeling_auto):
        match = re.fullmatch(r"MODEL_(?:FOR_(.*?)_)?(?:MAPPING_)?NAMES", table)
        if match is None:
            continue
        for model_type, names in getattr(modeling_auto, table).items():
            for name in (names,) if isinstance(names, str) else names:
                kinds.setdefault(name, []).append(model_type)
                tasks.setdefault(name, []).append(match.group(1) or "BASE")
    for name, types in kinds.items():
        yield Architecture(
            "transformers", tuple(dict.fromkeys(types)), name, tuple(dict.fromkeys(tasks[name]))
        )


def backbones() -> Iterator[Architecture]:
    """Every model class of diffusers."""
    for name in sorted(dir(diffusers)):
        if not re.search(r"Model$|UNet|Transformer|Autoencoder|Adapter$", name):
            continue
        cls = getattr(diffusers, name)
        if (
            isinstance(cls, type)
            and issubclass(cls, diffusers.ModelMixin)
            and cls is not diffusers.ModelMixin
        ):
            yield Architecture("diffusers", (name,), name, ("BACKBONE",))


def _config(model_type: str, *, shallow: bool) -> Any:
    cls = CONFIG_MAPPING[model_type]
    settings = dict(SETTINGS.get(model_type, {}))
    try:
        config = cls(**settings)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ModelError(f"its default configuration is refused: {error}") from error
    if not shallow or any(getattr(config, one, None) for one in _MIXED):
        return config
    for name in _DEPTHS:
        depth = getattr(config, name, None)
        if isinstance(depth, int) and depth > 2:
            try:
                setattr(config, name, 2)
            except (AttributeError, NotImplementedError, ValueError):
                return cls(**settings)
    return config


def build(architecture: Architecture) -> Target:
    """The inspection of an architecture with its default configuration, made shallow where it can.

    Raises:
        ModelError: its class refuses the configuration.
    """
    if architecture.library == "diffusers":
        settings = SETTINGS.get(architecture.class_name, {})
        return inspect_model((getattr(diffusers, architecture.class_name), settings))
    cls = getattr(transformers, architecture.class_name, None)
    if cls is None:
        raise ModelError("transformers names this class but does not have it")
    problem: ModelError | None = None
    for model_type in architecture.model_types:
        # some classes are listed under the configuration of a larger model that they are part of
        for shallow in (True, False):
            try:
                return inspect_model((cls, _config(model_type, shallow=shallow)))
            except ModelError as error:
                problem = problem or error
    assert problem is not None  # noqa: S101 - every class has a model type
    raise problem


def judge(architecture: Architecture) -> Verdict:
    """Builds one architecture and holds its inspection against the invariants."""
    verdict = Verdict(architecture)
    level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target = build(architecture)
            model = target.skeleton()
    except (ModelError, ImportError) as error:
        verdict.problem = str(error).split("\n")[0]
        return verdict
    finally:
        logging.getLogger("transformers").setLevel(level)
    groups = target.structure.groups
    by_name = {name: group for group in groups for name in group.names}
    linear = [g for g in groups if g.kind in {"linear", "transformers_conv1d"}]
    verdict.layers = sum(g.count for g in linear)
    verdict.others = sum(g.count for g in linear if g.role == "other")
    checks = {
        "complete": _complete(model, groups),
        "understood": (
            f"{verdict.others} of {verdict.layers}: "
            + ", ".join(g.pattern for g in linear if g.role == "other")
            if verdict.others * 3 > verdict.layers
            else ""
        ),
        "attention": _attention(model, by_name),
        "mlp": _mlp(groups),
        "routers": _routers(target.config, groups),
        "heads": _heads(model, by_name, architecture),
        "embeddings": _embeddings(model, by_name),
    }
    verdict.broken = {name: text for name, text in checks.items() if text}
    return verdict


_LAYERS: Final = (
    nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.LayerNorm,
    nn.MultiheadAttention, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d,
)  # fmt: skip


def _complete(model: nn.Module, groups: tuple[ModuleGroup, ...]) -> str:
    wanted = [name for name, one in model.named_modules() if isinstance(one, _LAYERS)]
    got = [name for group in groups for name in group.names]
    if len(set(got)) != len(got):
        return "twice: " + ", ".join(sorted({one for one in got if got.count(one) > 1})[:3])
    missing = set(wanted) - set(got)
    return "missing: " + ", ".join(sorted(missing)[:3]) if missing else ""


_FULL: Final = (
    {"attention_query", "attention_key", "attention_value", "attention_output"},
    {"attention_query", "attention_key", "attention_value", "attention_mlp_out"},
    {"attention_qkv", "attention_output"},
    {"attention_query", "attention_key_value", "attention_output"},
    {"attention_mlp_in", "attention_mlp_out"},
)
_NO_BLOCK: Final = re.compile(
    r"(Output|Norm|Gat(e|ing)|Bias|Embed\w*|Mask|Rotary|Residual|Layer|Block(\dD)?|Encoder|Decoder|"
    r"Model|MLP|Merger)$"
)
"""Endings of classes that have attention in their names and are more, or less, than a block."""
_OUTSIDE: Final = {"projector", "pooler", "head"}


def _attention(model: nn.Module, by_name: Mapping[str, ModuleGroup]) -> str:
    bad = []
    classes = {name: type(module).__name__ for name, module in model.named_modules()}
    for name, module in model.named_modules():
        cls = classes[name]
        if not re.search(r"Attention|Attn", cls) or _NO_BLOCK.search(cls):
            continue
        if isinstance(module, nn.MultiheadAttention):
            continue  # has its output inside
        inside = [
            by_name[own].role
            for own, one in module.named_modules(prefix=name)
            if isinstance(one, nn.Linear | Conv1D | nn.MultiheadAttention) and own in by_name
        ]
        roles = set(inside)
        if len(inside) < 2 or (len(roles) == 1 and roles <= _OUTSIDE):
            continue
        # some have their output beside them, under a common name
        around = name.rpartition(".")[0]
        near = {
            one.role
            for own, one in by_name.items()
            if own.startswith(f"{around}.")
            and (re.search("Attention|Attn", classes[around]) or own.rpartition(".")[0] == around)
        }
        deformable = f"{name}.sampling_offsets" in by_name  # has no query and no key
        if not deformable and not any(full <= roles | near for full in _FULL):
            bad.append(f"{name} ({cls}): {', '.join(sorted(roles))}")
    return "; ".join(bad[:2])


def _mlp(groups: tuple[ModuleGroup, ...]) -> str:
    by_parent: dict[str, dict[str, list[ModuleGroup]]] = {}
    for group in groups:
        if group.role.startswith("mlp_"):
            parent = group.pattern.rpartition(".")[0]
            by_parent.setdefault(parent, {}).setdefault(group.role, []).append(group)
    bad = []
    for parent, roles in by_parent.items():
        for down in roles.get("mlp_down", ()):
            ups = roles.get("mlp_up", []) + roles.get("mlp_gate_up", [])
            if ups and not any(
                up.in_features == down.out_features
                and up.out_features in {down.in_features, 2 * down.in_features}
                for up in ups
            ):
                bad.append(parent)
    return ", ".join(bad[:2])


def _numbers(config: Any, word: str) -> set[int]:
    """Every whole number of a configuration whose name has `word`, however deep."""
    found: set[int] = set()
    stack = [config.to_dict() if hasattr(config, "to_dict") else dict(config or {})]
    while stack:
        for key, value in stack.pop().items():
            if isinstance(value, dict):
                stack.append(value)
            elif word in str(key):
                found.update(
                    n for n in (value if isinstance(value, list) else [value]) if type(n) is int
                )
    return found


def _routers(config: Any, groups: tuple[ModuleGroup, ...]) -> str:
    stated = _numbers(config, "expert")
    bad = [
        g.pattern for g in groups if g.role == "router" and g.out_features not in stated - {0, 1}
    ]
    if bad:
        return "outputs: " + ", ".join(bad)
    owners = set()
    for g in groups:
        if g.role.startswith("expert_"):
            owners.add(re.split(r"\.[^.]*experts?\b|\.(?:in|out)put_linear\b", g.pattern)[0])
    routers = [g.pattern for g in groups if g.role == "router"]
    lonely = [one for one in owners if not any(r.startswith(one) for r in routers)]
    return "experts without a router: " + ", ".join(sorted(lonely)) if lonely else ""


def _name_of(model: nn.Module, wanted: Any) -> str | None:
    return next((name for name, one in model.named_modules() if one is wanted), None)


def _heads(model: nn.Module, by_name: Mapping[str, ModuleGroup], what: Architecture) -> str:
    if what.library == "diffusers":
        return ""
    getter = getattr(model, "get_output_embeddings", None)
    try:
        name = _name_of(model, getter() if getter else None)
    except (AttributeError, NotImplementedError):
        name = None
    if name and name in by_name and by_name[name].role != "head":
        return f"{name} is {by_name[name].role}"
    config = model.config
    sizes = _numbers(config, "vocab") | {getattr(config, "num_labels", 0)}
    if what.class_name.endswith(
        ("ForSequenceClassification", "ForTokenClassification", "ForCausalLM")
    ):
        heads = [g for g in by_name.values() if g.role == "head"]
        if not any(g.out_features in sizes for g in heads):
            return "no head gives the vocabulary or the labels"
    return ""


def _embeddings(model: nn.Module, by_name: Mapping[str, ModuleGroup]) -> str:
    try:
        name = _name_of(model, model.get_input_embeddings())
    except (AttributeError, NotImplementedError, TypeError):
        return ""
    if (
        name
        and name in by_name
        and by_name[name].kind == "embedding"
        and by_name[name].role != "embedding"
    ):
        return f"{name} is {by_name[name].role}"
    return ""
