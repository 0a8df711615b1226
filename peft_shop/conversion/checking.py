"""Does what was written do what the adapter did? Asked of the whole model, on a probe batch."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from peft_shop.conversion.report import LogitsCheck
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peft_shop.conversion.bases import Base

__all__ = ["check_layout", "compare", "memory_is_short", "probe_batch"]

_SEQUENCES: Final = 2
_TOKENS: Final = 16
_ROOM: Final = 1.25
"""Memory that a model in fp32 takes with its activations, relative to its weights [1]."""


def probe_batch(base: Base, inputs: Mapping[str, Any] | None) -> tuple[dict[str, Any], str] | str:
    """What to feed the model, and in words; or why nobody knows."""
    if inputs is not None:
        names = ", ".join(
            f"{name} {list(getattr(one, 'shape', ()))}" for name, one in inputs.items()
        )
        return dict(inputs), f"the inputs that were given: {names}"
    config = base.config
    text = getattr(config, "get_text_config", lambda: config)() if config is not None else None
    vocabulary = getattr(text, "vocab_size", None)
    if not isinstance(vocabulary, int) or isinstance(config, dict):
        return "the model takes no token identifiers, and no inputs were given"
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (_SEQUENCES, _TOKENS), generator=chance)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(config, "is_encoder_decoder", False):
        batch["decoder_input_ids"] = ids.flip(1)
    return batch, f"{_SEQUENCES} sequences of {_TOKENS} random tokens"


def memory_is_short(base: Base) -> str | None:
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
    base: Base,
    batch: Mapping[str, Any],
    described: str,
    original: Callable[[Any], Any],
    result: Callable[[Any], Any],
) -> LogitsCheck:
    """Outputs of the original and of the result, one whole model in memory at a time.

    Args:
        base: the base model.
        batch: what to feed it.
        described: that in words.
        original: the base's whole model -> the model with the adapter as it was.
        result: the base's whole model, or `None`, -> what was made of it.
    """
    with _quiet():
        model = base.whole()
        plain = _outputs(model, batch)
        model = original(model)
        wanted = _outputs(model, batch)
        del model
        gc.collect()
        model = result(base)
        found = _outputs(model, batch)
        del model
    scale = float(wanted.abs().max()) or 1.0
    if found.shape != wanted.shape:
        raise ConversionError(
            f"the result gives outputs of shape {list(found.shape)}, the original of "
            f"{list(wanted.shape)}"
        )
    return LogitsCheck(
        inputs=described,
        effect=float((wanted - plain).abs().max()) / scale if plain.shape == wanted.shape else 1.0,
        deviation=float((wanted - found).abs().max()) / scale,
        agreement=float((wanted.argmax(-1) == found.argmax(-1)).float().mean()),
    )


def _outputs(model: Any, batch: Mapping[str, Any]) -> Any:
    model.eval()
    with torch.no_grad():
        out = model(**batch)
    for name in ("logits", "start_logits", "sample", "last_hidden_state"):
        if getattr(out, name, None) is not None:
            return getattr(out, name).float()
    found = out[0] if isinstance(out, tuple | list) else out
    return found.float()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Loading talks about many things that are no news here."""
    talk = transformers.utils.logging
    bars, level = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder`, as anyone would load it."""
    return PeftModel.from_pretrained(model, str(folder), torch_device="cpu")


def check_layout(base: Base, config: Any, weights: Path) -> None:
    """Whether peft has a place for every tensor of a file, and a tensor for every place.

    Raises:
        ConversionError: it has not; a mistake of ours.
    """
    with _quiet():
        model = PeftModel(copy.deepcopy(base.skeleton()), config, low_cpu_mem_usage=True)
        places = get_peft_model_state_dict(model, save_embedding_layers=False)
    wanted = {key: tuple(one.shape) for key, one in places.items()}
    with safe_open(weights, framework="pt") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dictionary
    if wanted != found:
        odd = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        raise ConversionError(
            f"the written file does not fit: {odd[0]} is {found.get(odd[0])}, but peft expects "
            f"{wanted.get(odd[0])} ({len(odd)} such keys)"
        )


def merged_model(base: Base, folder: Path) -> Any:
    """The merged model in `folder`, in fp32, as anyone would load it."""
    kind = type(base.skeleton())
    options = {"torch_dtype" if isinstance(base.config, dict) else "dtype": torch.float32}
    if hasattr(kind, "from_pretrained"):
        return kind.from_pretrained(str(folder), local_files_only=True, **options).eval()
    model = base.whole()
    state: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            state |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dictionary
    model.load_state_dict(state, strict=False)
    return model
