"""The verb: an adapter's folder and its base in, a measured LoRA or merged model out.

Light until it is called: torch, transformers and peft are loaded then.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.store import load
from peft_shop.conversion.options import By, Check, Options, To
from peft_shop.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.conversion.report import ConversionReport

__all__ = ["convert"]


def convert(
    adapter_dir: str | PathLike[str],
    *,
    base: Any,
    output: str | PathLike[str],
    to: To = PLAIN,
    rank: str | float = "auto",
    engine: str | None = None,
    way: By = "auto",
    initial: str | PathLike[str] | None = None,
    tolerance: float | None = None,
    allow_inexact: bool = False,
    dtype: str | None = None,
    check: Check = "auto",
    inputs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    catalog: Catalog | None = None,
) -> ConversionReport:
    """Turns an adapter that peft saved into a plain LoRA, or merges it, and measures the result.

    Layers are taken one at a time from the base's safetensors files. The change that the adapter
    makes to each is measured against the base as it was before peft touched it; what is written is
    compared with that, and the outputs of the whole model with those of the original adapter.
    The report that is returned lies in the output folder too, as `conversion_report.json`.

    Args:
        adapter_dir: folder that peft's `save_pretrained` wrote.
        base: the model that the adapter was trained on: its folder, the identifier of a model in
            the hub's cache, or a `torch.nn.Module`.
        output: folder to make; it appears whole or not at all.
        to: `lora`, or `merged` for the whole model with the adapter in it.
        rank: `auto` for the lowest at which nothing is lost, a whole number, or a share of the
            squared singular values that every layer must keep, such as 0.99. Every layer gets the
            same rank, because many engines read no other.
        engine: that is to load the LoRA, such as `vllm`: its highest rank bounds `auto`, and its
            documented rules must accept the result.
        way: `peft` or `generic` insist on one; `auto` takes peft's own conversion where that is
            right and fast enough.
        initial: folder of the same adapter before training, saved with `init_lora_weights` true,
            for starts that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA).
        tolerance: largest error of a layer's change and largest deviation of the outputs [1] that
            count as done; by default 0.001, of a LoRA in 16 bits 0.01, and of a model merged into
            16 bits 0.05 for the outputs alone.
        allow_inexact: write the result even beyond the tolerance, or if the engine refuses it.
        dtype: `float32`, `bfloat16` or `float16`; by default fp32 for a LoRA and the base's own
            types for a merged model. All arithmetic is in fp32 or better.
        check: `logits` compares the whole model's outputs, `layers` only the layers; `auto` takes
            the first where the model in fp32 fits into memory.
        inputs: keyword arguments of the model's forward for that comparison; by default random
            tokens.
        overwrite: replace an earlier conversion in `output`; the old one stays until the new one
            is complete.
        trust_remote_code: let code run that comes with the base. Without it a model that needs its
            own code is refused, and nobody is asked.
        progress: called with the number of layers done, of all, and the next one's name.
        catalog: facts about methods and engines; by default those that come with peft-shop.

    Raises:
        InexactError: the result is further off than `tolerance`; nothing was written.
        ConversionError: the adapter cannot be converted or merged, or does not fit the base.
        AdapterError: its configuration cannot be read.
        UnknownNameError: there is no such engine.
        MissingExtraError: peft, torch or transformers is not installed.
    """
    for package in ("torch", "transformers", "peft", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "peft", "converting an adapter")
    from peft_shop.conversion.work import ConversionJob  # noqa: PLC0415 - torch only where it is needed

    options = Options.of(
        adapter_dir,
        output,
        initial,
        base=base,
        to=to,
        rank=rank,
        engine=engine,
        way=way,
        tolerance=tolerance,
        allow_inexact=allow_inexact,
        dtype=dtype,
        check=check,
        inputs=inputs,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    return ConversionJob.of(options, catalog or load()).run(progress)
