"""The two models that runs on record were measured on: their module names, roles and widths.

Names as transformers 5 and diffusers 0.42 give them; widths from the models' configurations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from peft_shop.upstream.targets import named_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.model.structure import Role, Structure

__all__ = ["MEASURED", "MeasuredModel"]


@dataclass(frozen=True)
class MeasuredModel:
    """A model that recipes were measured on.

    Attributes:
        model_type: of its configuration; `None` in diffusers, whose models have none.
        layers: blocks of its main stack [count].
        vocabulary: rows of its token embedding; `None` without one.
        blocks: names of its blocks with the index as `*`, and how many there are.
        modules: name with the index as `*`, role, and (in, out) widths [channels].
        biased: whether linear layers of its blocks have a bias; all or none do.
        tied: whether its head and its token embedding are one tensor.
    """

    model_type: str | None
    layers: int
    vocabulary: int | None
    blocks: Mapping[str, int]
    modules: tuple[tuple[str, Role, tuple[int, int]], ...]
    biased: bool = False
    tied: bool = False

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Role of every module, by full name."""
        return {name: role for pattern, role, _ in self.modules for name in self._expanded(pattern)}

    @cached_property
    def widths(self) -> dict[str, tuple[int, int]]:
        """(in, out) of every module, by full name."""
        return {
            name: width for pattern, _, width in self.modules for name in self._expanded(pattern)
        }

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        """Full names of the blocks."""
        return tuple(name for pattern in self.blocks for name in self._expanded(pattern))

    @cached_property
    def _named(self) -> dict[str | tuple[str, ...], frozenset[str]]:
        return {}

    def named_by(self, expression: str | Sequence[str]) -> frozenset[str]:
        """Modules that a `target_modules` names; found once for each.

        Raises:
            re.error: the expression is a string but no regular expression.
        """
        key = expression if isinstance(expression, str) else tuple(expression)
        if key not in self._named:
            self._named[key] = named_by(key, self.roles)
        return self._named[key]

    def fits(self, structure: Structure) -> bool:
        """Whether a structure has the same linear layers, with the same widths."""
        here = {
            name: (group.in_features, group.out_features)
            for group in structure.groups
            for name in group.names
        }
        return all(
            here.get(name) == width
            for name, width in self.widths.items()
            if self.roles[name] not in {"norm", "embedding"}
        )

    def _expanded(self, pattern: str) -> list[str]:
        if "*" not in pattern:
            return [pattern]
        count = next(n for block, n in self.blocks.items() if pattern.startswith(block))
        return [pattern.replace("*", str(index)) for index in range(count)]


_LLAMA: Final = MeasuredModel(
    model_type="llama",
    layers=28,
    vocabulary=128256,
    tied=True,
    blocks={"model.layers.*": 28},
    modules=(
        ("model.embed_tokens", "embedding", (128256, 3072)),
        ("model.layers.*.self_attn.q_proj", "attention_query", (3072, 3072)),
        ("model.layers.*.self_attn.k_proj", "attention_key", (3072, 1024)),
        ("model.layers.*.self_attn.v_proj", "attention_value", (3072, 1024)),
        ("model.layers.*.self_attn.o_proj", "attention_output", (3072, 3072)),
        ("model.layers.*.mlp.gate_proj", "mlp_gate", (3072, 8192)),
        ("model.layers.*.mlp.up_proj", "mlp_up", (3072, 8192)),
        ("model.layers.*.mlp.down_proj", "mlp_down", (8192, 3072)),
        ("model.layers.*.input_layernorm", "norm", (3072, 3072)),
        ("model.layers.*.post_attention_layernorm", "norm", (3072, 3072)),
        ("model.norm", "norm", (3072, 3072)),
        ("lm_head", "head", (3072, 128256)),
    ),
)
_FLUX_2_KLEIN: Final = MeasuredModel(
    model_type=None,
    layers=25,
    vocabulary=None,
    blocks={"transformer_blocks.*": 5, "single_transformer_blocks.*": 20},
    modules=(
        ("time_guidance_embed.timestep_embedder.linear_1", "time_embedding", (256, 3072)),
        ("time_guidance_embed.timestep_embedder.linear_2", "time_embedding", (3072, 3072)),
        ("double_stream_modulation_img.linear", "modulation", (3072, 18432)),
        ("double_stream_modulation_txt.linear", "modulation", (3072, 18432)),
        ("single_stream_modulation.linear", "modulation", (3072, 9216)),
        ("x_embedder", "patch_embedding", (128, 3072)),
        ("context_embedder", "projector", (7680, 3072)),
        ("transformer_blocks.*.attn.to_q", "attention_query", (3072, 3072)),
        ("transformer_blocks.*.attn.to_k", "attention_key", (3072, 3072)),
        ("transformer_blocks.*.attn.to_v", "attention_value", (3072, 3072)),
        ("transformer_blocks.*.attn.to_out.0", "attention_output", (3072, 3072)),
        ("transformer_blocks.*.attn.norm_q", "norm", (128, 128)),
        ("transformer_blocks.*.attn.norm_k", "norm", (128, 128)),
        ("transformer_blocks.*.attn.norm_added_q", "norm", (128, 128)),
        ("transformer_blocks.*.attn.norm_added_k", "norm", (128, 128)),
        ("transformer_blocks.*.attn.add_q_proj", "attention_query", (3072, 3072)),
        ("transformer_blocks.*.attn.add_k_proj", "attention_key", (3072, 3072)),
        ("transformer_blocks.*.attn.add_v_proj", "attention_value", (3072, 3072)),
        ("transformer_blocks.*.attn.to_add_out", "attention_output", (3072, 3072)),
        ("transformer_blocks.*.ff.linear_in", "mlp_gate_up", (3072, 18432)),
        ("transformer_blocks.*.ff.linear_out", "mlp_down", (9216, 3072)),
        ("transformer_blocks.*.ff_context.linear_in", "mlp_gate_up", (3072, 18432)),
        ("transformer_blocks.*.ff_context.linear_out", "mlp_down", (9216, 3072)),
        ("single_transformer_blocks.*.attn.to_qkv_mlp_proj", "attention_mlp_in", (3072, 27648)),
        ("single_transformer_blocks.*.attn.to_out", "attention_mlp_out", (12288, 3072)),
        ("single_transformer_blocks.*.attn.norm_q", "norm", (128, 128)),
        ("single_transformer_blocks.*.attn.norm_k", "norm", (128, 128)),
        ("norm_out.linear", "modulation", (3072, 6144)),
        ("proj_out", "head", (3072, 128)),
    ),
)
MEASURED: Final[dict[str, MeasuredModel]] = {
    "meta-llama/Llama-3.2-3B": _LLAMA,
    "black-forest-labs/FLUX.2-klein-base-4B": _FLUX_2_KLEIN,
}
"""By the model's identifier in `Training.model_id`."""
