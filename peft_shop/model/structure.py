"""What is understood of a user's model, as plain data: modules by role, shapes, sizes.

Made by `peft_shop.model` from an instance on the meta device; needs no torch itself, so that a
question about a model can be judged, stored and repeated without the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from pydantic import Field

from peft_shop.catalog.features import LayerType, QuantizationBackend, TaskType
from peft_shop.records import Finite, Record, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "ROLES",
    "TOWERS",
    "Dimensions",
    "LayerKind",
    "ModuleGroup",
    "Role",
    "StoredQuantization",
    "Structure",
    "Tower",
]

Role: TypeAlias = Literal[
    "attention_query",
    "attention_key",
    "attention_value",
    "attention_output",
    "attention_qkv",
    "attention_key_value",
    "attention_latent",
    "mlp_gate",
    "mlp_up",
    "mlp_down",
    "mlp_gate_up",
    "attention_mlp_in",
    "attention_mlp_out",
    "mixer_in",
    "mixer_out",
    "mixer_state",
    "router",
    "expert_gate_up",
    "expert_gate",
    "expert_up",
    "expert_down",
    "embedding",
    "position_embedding",
    "patch_embedding",
    "time_embedding",
    "modulation",
    "norm",
    "convolution",
    "projector",
    "pooler",
    "head",
    "other",
]
"""What a module does. `attention_qkv` is query, key and value in one, `attention_latent` a
low-rank factor on the way to them, `attention_mlp_in` and `attention_mlp_out` join attention and
MLP (Flux single blocks), `mixer_*` belong to state-space and linear-recurrent blocks, `modulation`
to adaptive norms, `projector` joins a tower to the language model. `other` is a linear-like layer
that no rule claims."""
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Tower: TypeAlias = Literal["text", "encoder", "decoder", "vision", "audio", "image", "other"]
"""Part of the model: `text` is a language model of one stack, `encoder` and `decoder` are the two
of a sequence-to-sequence model, `image` is a diffusion backbone."""
TOWERS: Final[tuple[Tower, ...]] = get_args(Tower)

LayerKind: TypeAlias = LayerType | Literal["batch_norm", "group_norm", "rms_norm", "other"]
"""Type of a layer in the catalog's words, and the norms that are no `torch.nn.LayerNorm`."""


class ModuleGroup(Record):
    """Modules that have role, type and shape in common and differ in their indices only.

    Attributes:
        pattern: their name with every index as `*`, such as `model.layers.*.self_attn.q_proj`.
        names: full names, in the model's order; for `parameter` the name of the parameter.
        role: what they do.
        tower: where they are.
        kind: type of the layer.
        class_name: of the module, or `Parameter`.
        exact: whether it is torch's own class and not a subclass (GLoRA takes no subclass).
        in_features: inputs [channels]; embeddings: number of rows; norms: width.
        out_features: outputs [channels]; embeddings: width; norms: width.
        experts: leading dimension of expert weights held in one parameter; 0 for all others.
        kernel: kernel size of convolutions, else empty.
        groups: of convolutions.
        bias: whether it has a bias.
        parameters: parameters of one module [count], tied ones included.
        shape: of the weight (or parameter) as torch holds it.
    """

    pattern: Text
    names: tuple[str, ...]
    role: Role
    tower: Tower
    kind: LayerKind
    class_name: Text
    exact: bool = True
    in_features: int
    out_features: int
    experts: int = 0
    kernel: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = False
    parameters: int
    shape: tuple[int, ...] = ()

    @property
    def suffix(self) -> str:
        """Last part of the name, which peft compares with `target_modules`."""
        return self.pattern.rpartition(".")[2]

    @property
    def count(self) -> int:
        """Number of modules."""
        return len(self.names)


class Dimensions(Record):
    """Sizes that prompt methods and forecasts need; `None` where the model has no such thing.

    Attributes:
        layers: blocks of the main stack (a decoder's in a sequence-to-sequence model).
        encoder_layers: blocks of the encoder of a sequence-to-sequence model.
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP.
        attention_heads: query heads.
        key_value_heads: heads of keys and values.
        head_dim: width of one head.
        vocabulary: rows of the token embedding.
        max_positions: longest sequence that the configuration names [tokens].
        active_experts: routed experts that a token goes through in one block.
    """

    layers: int | None = None
    encoder_layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    attention_heads: int | None = None
    key_value_heads: int | None = None
    head_dim: int | None = None
    vocabulary: int | None = None
    max_positions: int | None = None
    active_experts: int | None = None


class StoredQuantization(Record):
    """How a checkpoint's files hold its weights, where they say that they are quantized.

    Attributes:
        name: the format or backend, such as `nvfp4 (modelopt)`, `fp8`, `mlx` or `bnb_4bit`.
        bits: of one weight without its scales; `None` where the files do not tell.
        group_size: weights that share one scale; `None` where that is not stated.
        bytes_per_weight: with scales and zeros [B]; `None` where the width is not known.
        weights: how many are stored so [count].
        covers: patterns of the groups that are stored so, by most of their modules.
    """

    name: Text
    bits: Finite | None = None
    group_size: int | None = None
    bytes_per_weight: Finite | None = None
    weights: int = 0
    covers: tuple[str, ...] = ()


class Structure(Record):
    """What was understood of a model.

    Attributes:
        name: how the user named it, or its class.
        architecture: class of the model, such as `LlamaForCausalLM`.
        model_type: of its configuration, such as `llama`; `None` for a plain module.
        library: where its class comes from.
        modality: what it works on.
        task_type: the peft task type that fits its head; `None` where none does.
        benchmark: the benchmark whose runs are evidence for it; `None` where none is.
        benchmark_because: why that one, or why none.
        groups: every linear-like layer, convolution, embedding, norm and expert parameter, once.
        quantization: backend of its linear layers as loaded or as its configuration says; of
            those that peft knows.
        stored_quantization: how its files hold its weights, in any format; `None` where they are
            plain or no file says.
        tied: names of parameters that are one and the same, per set.
        dtype: of its floating-point parameters, such as `bfloat16`; the most frequent one.
        dtype_stated: whether the model says so itself; else it is assumed.
        parameters: all parameters, tied ones once [count].
        dimensions: sizes.
        takes_embeddings: whether its forward pass has the argument `inputs_embeds`, which peft's
            wrappers for language tasks always pass.
        notes: what a reader should know, such as what could not be understood.
    """

    name: Text
    architecture: Text
    model_type: str | None = None
    library: Literal["transformers", "diffusers", "torch"]
    modality: Literal["text", "image", "vision", "audio", "multimodal", "unknown"]
    task_type: TaskType | None = None
    benchmark: str | None = None
    benchmark_because: Text
    groups: tuple[ModuleGroup, ...]
    quantization: QuantizationBackend | None = None
    stored_quantization: StoredQuantization | None = None
    tied: tuple[tuple[str, ...], ...] = ()
    dtype: str | None = None
    dtype_stated: bool = True
    parameters: int
    dimensions: Dimensions = Field(default_factory=Dimensions)
    takes_embeddings: bool = True
    notes: tuple[Text, ...] = ()

    def of(
        self, roles: Iterable[Role] | None = None, towers: Iterable[Tower] | None = None
    ) -> Iterator[ModuleGroup]:
        """Groups of the given roles and towers, in the model's order; `None` means any."""
        wanted = set(ROLES if roles is None else roles)
        places = set(TOWERS if towers is None else towers)
        return (group for group in self.groups if group.role in wanted and group.tower in places)

    @property
    def stored_format(self) -> str | None:
        """How it comes quantized: a backend that peft knows, or any other format."""
        if self.quantization is not None or self.stored_quantization is None:
            return self.quantization
        return self.stored_quantization.name

    def stored_width(self, group: ModuleGroup) -> float | None:
        """Bytes of one weight of `group` as the files hold it; `None` where it is plain."""
        stored = self.stored_quantization
        return (
            None
            if stored is None or group.pattern not in stored.covers
            else stored.bytes_per_weight
        )

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles that are present, in the order of `ROLES`."""
        present = {group.role for group in self.groups}
        return tuple(role for role in ROLES if role in present)

    @property
    def layer_types(self) -> tuple[LayerKind, ...]:
        """Types of layers that are present, in the model's order."""
        return tuple(dict.fromkeys(group.kind for group in self.groups))
