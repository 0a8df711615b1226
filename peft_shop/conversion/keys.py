"""Names of keys that engines of image models read, where they are not peft's.

Read in ComfyUI's `comfy/lora.py` and `comfy/utils.py` (17358c8f), in the Stable Diffusion web UI's
`extensions-builtin/Lora/networks.py` (873edba4) and in diffusers 0.42.1. What is not listed was not
read there, and is not written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["ENGINES", "Keys", "keys_for"]

_KOHYA: Final = ("lora_down.weight", "lora_up.weight", "alpha")
_PEFT: Final = ("lora_A.weight", "lora_B.weight", "alpha")
_UNET_BLOCKS: Final = (
    r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\."
    r"(resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)"
    r"|attentions\.\d+\.(proj_in|proj_out"
    r"|transformer_blocks\.\d+\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))))"
    r"|down_blocks\.\d+\.downsamplers\.0\.conv|conv_in|conv_out|time_embedding\.linear_[12]"
)
_JOINT_BLOCKS: Final = (
    r"transformer_blocks\.\d+\.(attn\.(to_(q|k|v|out\.0|add_out)|add_[qkv]_proj)"
    r"|ff(_context)?\.net\.(0\.proj|2)|norm1(_context)?\.linear)"
)
_SINGLE_BLOCKS: Final = (
    r"single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_mlp|proj_out|norm\.linear)"
)
_DIFFUSERS_FILE: Final = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Keys:
    """How an engine names the layers of one kind of model.

    Attributes:
        prefix: before a module's name.
        dot: what the dots in a module's name become.
        ends: of the two matrices and of the scale.
        modules: pattern of the names that it knows.
        holds: what else must be so in the model's configuration.
        needs: that, in words.
        file: name of the file; `None` for that of the output folder.
    """

    prefix: str
    dot: str
    ends: tuple[str, str, str]
    modules: str = ".*"
    holds: Callable[[Mapping[str, Any]], bool] = lambda _: True
    needs: str = ""
    file: str | None = None

    def key(self, module: str) -> str:
        """Beginning of a module's keys, without the dot after it."""
        return self.prefix + module.replace(".", self.dot)

    def unknown(self, modules: Iterable[str]) -> tuple[str, ...]:
        """Modules that the engine has no names for."""
        pattern = re.compile(self.modules)
        return tuple(name for name in modules if pattern.fullmatch(name) is None)


def _two_each(config: Mapping[str, Any]) -> bool:
    return bool(config.get("layers_per_block", 2) == 2)


ENGINES: Final[Mapping[str, Mapping[str, Keys]]] = {
    "comfyui": {
        "UNet2DConditionModel": Keys(
            "lora_unet_",
            "_",
            _KOHYA,
            rf"{_UNET_BLOCKS}|up_blocks\.\d+\.upsamplers\.0\.conv|add_embedding\.linear_[12]",
        ),
        "FluxTransformer2DModel": Keys(
            "transformer.", ".", _PEFT, rf"{_JOINT_BLOCKS}|{_SINGLE_BLOCKS}"
        ),
        "SD3Transformer2DModel": Keys("transformer.", ".", _PEFT, _JOINT_BLOCKS),
        "PixArtTransformer2DModel": Keys(
            "transformer.",
            ".",
            _PEFT,
            r"transformer_blocks\.\d+\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))",
        ),
        "QwenImageTransformer2DModel": Keys(
            "transformer.",
            ".",
            _PEFT,
            r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0|add_out)|add_[qkv]_proj)",
        ),
    },
    "a1111": {
        "UNet2DConditionModel": Keys(
            "lora_unet_",
            "_",
            _KOHYA,
            _UNET_BLOCKS,
            _two_each,
            "it counts the blocks of a UNet with two layers each, as Stable Diffusion has them",
        ),
    },
    "diffusers": {
        name: Keys(f"{part}.", ".", (*_PEFT[:2], ""), file=_DIFFUSERS_FILE)
        for name, part in {
            "UNet2DConditionModel": "unet",
            "FluxTransformer2DModel": "transformer",
            "PixArtTransformer2DModel": "transformer",
            "QwenImageTransformer2DModel": "transformer",
            "SD3Transformer2DModel": "transformer",
        }.items()
    },
}
"""By engine and class of the base."""


def keys_for(engine: str, config: Any, modules: Iterable[str]) -> Keys | str | None:
    """How an engine names these layers; why nobody knows; or `None` where peft's names will do.

    Args:
        engine: its identifier.
        config: configuration of the base.
        modules: names of the adapted modules.
    """
    if engine not in ENGINES:
        return None
    kind = config.get("_class_name") if isinstance(config, dict) else None
    known = ENGINES[engine].get(kind or "")
    if known is None:
        what = kind or getattr(config, "model_type", None) or "model of this kind"
        return f"nobody has looked up which keys it reads for a {what}"
    if not known.holds(config):
        return f"its keys for this {kind} are not known: {known.needs}"
    unknown = known.unknown(modules)
    if unknown:
        return f"it has no key for {unknown[0]} of a {kind} ({len(unknown)} such layers)"
    return known
