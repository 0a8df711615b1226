"""Structures of the models that the benchmarks measured, committed as data.

Made by `peft_shop.model` from the models' published sizes, so that forecasts can be compared with
the runs where neither torch nor the hub is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.model.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILES", "FOLDER", "build_structures", "load_structures", "structure_bytes"]

FOLDER: Final = Path("structures")
"""Inside the data folder."""
FILES: Final = {"metamathqa": "llama-3.2-3b.json", "image_gen": "flux.2-klein-base-4b.json"}
"""File of each benchmark's model."""

_LLAMA: Final = {
    "vocab_size": 128256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "architectures": ["LlamaForCausalLM"],
}
_FLUX: Final = {
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
    "mlp_ratio": 3.0,
    "rope_theta": 2000,
}


def load_structures(data: Path) -> dict[str, Structure]:
    """Structure of each benchmark's model, from the data folder.

    Raises:
        OSError: a file cannot be read.
    """
    return {
        benchmark: Structure.model_validate_json((data / FOLDER / name).read_bytes())
        for benchmark, name in FILES.items()
    }


def build_models() -> dict[str, Any]:
    """The two models without weights, for `inspect_model`; needs torch, transformers, diffusers."""
    import torch
    from diffusers import Flux2Transformer2DModel
    from transformers import LlamaConfig

    with torch.device("meta"):
        flux = Flux2Transformer2DModel(**_FLUX)
    for tensor in (*flux.parameters(), *flux.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.bfloat16)
    return {"metamathqa": LlamaConfig(**_LLAMA, dtype="bfloat16"), "image_gen": flux}


def build_structures() -> dict[str, Structure]:
    """Structure of each benchmark's model, inspected anew."""
    from peft_shop.model.inspection import inspect_model

    names = {"metamathqa": "meta-llama/Llama-3.2-3B", "image_gen": "FLUX.2-klein-base-4B"}
    return {
        benchmark: inspect_model(model).structure.model_copy(update={"name": names[benchmark]})
        for benchmark, model in build_models().items()
    }


def structure_bytes(structure: Structure) -> bytes:
    """The file of a structure: JSON with one group per line."""
    whole: Mapping[str, Any] = structure.model_dump(mode="json", exclude_defaults=True)
    rest = json.dumps({k: v for k, v in whole.items() if k != "groups"}, sort_keys=True)
    lines = ",\n".join(json.dumps(group, sort_keys=True) for group in whole["groups"])
    return f'{{"groups": [\n{lines}\n],\n{rest[1:]}\n'.encode()
