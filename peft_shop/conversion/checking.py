"""Does what was written do what the adapter did? Asked of the whole model, on a probe batch."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from peft_shop.conversion.bases import quiet
from peft_shop.conversion.report import LogitsCheck
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.probes import Probe

__all__ = ["check_layout", "compare", "memory_is_short", "merged_model", "with_adapter"]

_OUTPUTS: Final = ("logits", "start_logits", "end_logits", "sample", "last_hidden_state")
_ROOM: Final = 1.25
"""Memory that a model in fp32 takes with its activations, relative to its weights [1]."""


def memory_is_short(base: BaseWeights) -> str | None:
    """Why the whole model should not be loaded; `None` where it fits."""
    numbers = sum(weight.numel() for weight in base.skeleton().parameters())
    needed, free = int(4 * numbers * _ROOM), _available()
    if free is None or needed <= free:
        return None
    return (
        f"the model in fp32 needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory "
        "are available"
    )


def _available() -> int | None:
    """Memory that can be had without swapping [bytes]; `None` where nobody says."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(one for one in lines if one.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return None


def compare(
    base: BaseWeights,
    probe: Probe,
    original: Callable[[Any], Any],
    result: Callable[[Any], Any],
) -> LogitsCheck | str:
    """Outputs of the original and of the result, one whole model in memory at a time.

    Args:
        base: the base model.
        probe: what to feed it.
        original: the base's whole model -> the model with the adapter as it was.
        result: the base -> what was made of it.

    Returns:
        The comparison; or why the outputs of this base, or of the original, cannot be had.

    Raises:
        ConversionError: the result gives no outputs, or others.
    """
    with quiet():
        try:
            model = base.whole()
            plain = _outputs(model, probe)
            model = original(model)
            wanted = _outputs(model, probe)
        except Exception as error:  # noqa: BLE001 - models of all kinds: the layers are compared still
            return "the whole model does not run here: " + _line(error)
        del model
        gc.collect()
        try:
            model = result(base)
            found = _outputs(model, probe)
        except Exception as error:  # what we wrote must run where the original did
            raise ConversionError(f"the result does not run: {_line(error)}") from error
        del model
    if [one.shape for one in found] != [one.shape for one in wanted]:
        raise ConversionError(
            f"the result gives outputs of shape {list(found[0].shape)}, the original of "
            f"{list(wanted[0].shape)}"
        )
    scale = max(float(one.abs().max()) for one in wanted) or 1.0
    alike = [one.shape for one in plain] == [one.shape for one in wanted]
    agreeing = [
        (one.argmax(-1) == other.argmax(-1)).float().flatten()
        for one, other in zip(wanted, found, strict=True)
    ]
    return LogitsCheck(
        inputs=probe.described,
        effect=_distance(wanted, plain) / scale if alike else 1.0,
        deviation=_distance(wanted, found) / scale,
        agreement=float(torch.cat(agreeing).mean()),
    )


def _distance(one: list[Any], other: list[Any]) -> float:
    """Largest difference between outputs."""
    pairs = zip(one, other, strict=True)
    return max(float((mine - yours).abs().max()) for mine, yours in pairs)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def _outputs(model: Any, probe: Probe) -> list[Any]:
    """Everything that a model says to a probe, in fp32."""
    model.eval()
    said = []
    for batch in probe.batches:
        with torch.no_grad():
            out = model(**batch)
        named = [getattr(out, name, None) for name in _OUTPUTS]
        first = out[0] if isinstance(out, tuple | list) else out
        said += [one.float() for one in named if one is not None] or [first.float()]
    return said


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder`, as anyone would load it.

    It is the model itself that is given back, with adapted layers: peft's classes of tasks take
    inputs of their own kinds only.
    """
    return PeftModel.from_pretrained(model, str(folder), torch_device="cpu").get_base_model()


def check_layout(base: BaseWeights, config: Any, weights: Path) -> None:
    """Whether peft has a place for every tensor of a file, and a tensor for every place.

    Raises:
        ConversionError: it has not; a mistake of ours.
    """
    with quiet():
        model = PeftModel(copy.deepcopy(base.skeleton()), config, low_cpu_mem_usage=True)
        places = get_peft_model_state_dict(model, save_embedding_layers=False)
    wanted = {key: tuple(one.shape) for key, one in places.items()}
    with safe_open(weights, framework="pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dictionary
    if wanted != shapes:
        odd = sorted(key for key in {*wanted, *shapes} if wanted.get(key) != shapes.get(key))
        raise ConversionError(
            f"the written file does not fit: {odd[0]} is {shapes.get(odd[0])}, but peft expects "
            f"{wanted.get(odd[0])} ({len(odd)} such keys)"
        )


def merged_model(base: BaseWeights, folder: Path) -> Any:
    """The merged model in `folder`, in fp32, as anyone would load it."""
    kind = type(base.skeleton())
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    if isinstance(base.config, dict):
        return kind.from_pretrained(str(folder), torch_dtype=torch.float32, **options).eval()
    torch.manual_seed(0)  # what no file holds starts as it did in the base
    if hasattr(kind, "from_pretrained"):
        options |= {"dtype": torch.float32, "attn_implementation": "eager"}
        return kind.from_pretrained(str(folder), **options).eval()
    model = base.whole()
    state: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            state |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dictionary
    model.load_state_dict(state, strict=False)
    return model
