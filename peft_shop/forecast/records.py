"""What a forecast or a fit is asked and what it answers, as frozen records; no torch, no
arithmetic.

Bytes are those that torch's caching allocator reserves on the accelerator (what
`torch.cuda.max_memory_reserved` reports), without the CUDA context of the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from peft_shop.catalog.features import QuantizationBackend
from peft_shop.records import Finite, Name, Record, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Attention",
    "Dtype",
    "Forecast",
    "Interval",
    "NothingFits",
    "Optimizer",
    "Settings",
    "Setup",
    "StepTime",
    "Term",
    "TermName",
    "Way",
]

Dtype: TypeAlias = Literal["bfloat16", "float16", "float32"]
Attention: TypeAlias = Literal["sdpa", "eager", "flash"]
Optimizer: TypeAlias = Literal["adamw", "adamw_8bit", "sgd", "adafactor", "lora_fa", "riemannian"]
Way: TypeAlias = Literal["dry_run", "closed_form"]
TermName: TypeAlias = Literal[
    "base",
    "adapter",
    "gradients",
    "optimizer",
    "activations_norm",
    "activations_attention",
    "activations_mlp",
    "activations_adapter",
    "activations_checkpoint",
    "activations_other",
    "weights_materialized",
    "logits",
    "loss",
    "temporary",
    "allocator",
]
"""Parts of peak memory, in the order in which they are shown.

`weights_materialized` are adapter weights of the size of the base weight that a method computes in
its forward pass and keeps for the backward pass; `temporary` lives for one operation only, such as
the optimizer's fused step; `allocator` is what is reserved and not in use.
"""

Count: TypeAlias = Annotated[int, Field(ge=1)]


class Settings(Record):
    """How the training step that is forecast runs.

    Attributes:
        batch_size: sequences or images per step, before gradient accumulation.
        accumulation: steps whose gradients are added up before the optimizer moves; times
            `batch_size` they are the effective batch.
        sequence_length: tokens of the longest padded batch, prompt tokens of an adapter not
            counted; for an image model, tokens of the text prompt.
        image_size: side of a square image [pixels]; ignored for text.
        dtype: of the base weights and activations.
        quantization: backend of the base weights; `None` for unquantized ones.
        quantization_bits: of one weight; `None` for the backend's usual ones.
        double_quantization: bitsandbytes 4-bit: whether the scales are quantized once more.
        prepare_kbit: whether `prepare_model_for_kbit_training` turned what is not quantized into
            float32.
        group_size: input channels that share one scale (gptq, awq, torchao 4-bit); `None` for
            the backend's usual number.
        optimizer: `lora_fa` and `riemannian` are peft's own; the former freezes LoRA's A.
        gradient_checkpointing: whether blocks are run again in the backward pass.
        attention: kernel of attention.
        padding: whether batches carry a padding mask; packed ones do not.
        fused_loss: whether a fused or chunked cross-entropy avoids whole logits.
        autocast_adapter_dtype: whether adapters of a half-precision base are float32, as peft does.
        moved_after_injection: whether the adapter was added before the model went to the
            accelerator; else buffers that a method makes on the CPU stay there.
        accelerator: the hardware, such as `NVIDIA L40S`; `None` where it is not known.
    """

    batch_size: Count = 4
    accumulation: Count = 1
    sequence_length: Count = 512
    image_size: Count = 512
    dtype: Dtype = "bfloat16"
    quantization: QuantizationBackend | None = None
    quantization_bits: Literal[2, 3, 4, 8] | None = None
    double_quantization: bool = True
    prepare_kbit: bool = True
    group_size: Count | None = None
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: bool = False
    attention: Attention = "sdpa"
    padding: bool = True
    fused_loss: bool = False
    autocast_adapter_dtype: bool = True
    moved_after_injection: bool = False
    accelerator: str | None = None


class Term(Record):
    """One part of peak memory.

    Attributes:
        name: which part.
        bytes: its size at the moment of the peak [B].
        equation: how it was reckoned, with its source; `None` where a trace counted it.
    """

    name: TermName
    bytes: int
    equation: Text | None = None


class Interval(Record):
    """A value with the range in which it is expected.

    Attributes:
        low: lower end.
        value: the estimate.
        high: upper end.
        confidence: share of cases that the range is meant to cover.
        basis: which residuals the range rests on, and why it was widened.
    """

    low: Finite
    value: Finite
    high: Finite
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    basis: Text

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if not self.low <= self.value <= self.high:
            msg = (
                f"an interval needs low <= value <= high, not {self.low}, {self.value}, {self.high}"
            )
            raise ValueError(msg)
        return self


class StepTime(Record):
    """Forecast time of one training step.

    Attributes:
        benchmark: the suite whose runs the constants come from; a factor holds for it alone.
        factor: against plain LoRA on this model under the same settings.
        seconds: only for an accelerator that was measured, else `None` [s].
    """

    benchmark: Name
    factor: Interval
    seconds: Interval | None = None


class Forecast(Record):
    """What training one configuration on one model costs.

    Attributes:
        method: identifier of the method, or `full_finetuning`.
        way: `dry_run` (traced on the meta device) or `closed_form` (from shapes, without torch).
        settings: the training step.
        trainable_parameters: as peft counts them.
        total_parameters: base and adapter, as peft counts them.
        checkpoint_bytes: size of the adapter's safetensors file [B]; `None` where it is not known.
        peak_memory: reserved by the allocator [B].
        terms: parts of `peak_memory.value`; their sum.
        step_time: one per suite that has constants; empty where none applies.
        warnings: what a reader should know before believing the figures.
    """

    method: Name
    way: Way
    settings: Settings
    trainable_parameters: int
    total_parameters: int
    checkpoint_bytes: int | None
    peak_memory: Interval
    terms: tuple[Term, ...]
    step_time: tuple[StepTime, ...] = ()
    warnings: tuple[Text, ...] = ()

    def plot(self, device: str | None = None, *, ax: Axes | None = None) -> Axes:
        """The parts of the peak memory in one bar, with its range; needs `peft-shop[plot]`.

        Args:
            device: such as `"RTX 4090"` or `"24GiB"`: a dashed line where its memory ends.
            ax: where to draw; new axes by default.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InputError: there is no such device.
        """
        from peft_shop.forecast.devices import device_of  # noqa: PLC0415 - only when drawn
        from peft_shop.show.plots.parts import plot_forecast  # noqa: PLC0415 - as above

        return plot_forecast(self, None if device is None else device_of(device), ax=ax)


class Setup(Record):
    """The training settings under which a candidate runs on the user's device.

    Attributes:
        settings: the training step.
        effect: on the result, against the step as it was asked: `same`, or `slight` (a quantized
            base); `class` in JSON.
        changes: settings that were chosen to make it fit, by the fields of `Settings`.
        effective_batch: sequences or images behind one step of the optimizer.
        time_factor: expected time of a whole effective batch against the same base in 16 bit, in
            one piece, without checkpointing.
        fits: `yes` if even the upper end of the peak does, else `maybe`.
        peak: forecast of what the allocator reserves [B].
        longest_sequence: tokens up to which this setup still surely fits; `None` where unknown.
        alternative: a setup with less effect on the result that is too close to call.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    settings: Settings
    effect: Literal["same", "slight"] = Field(alias="class")
    changes: tuple[Name, ...] = ()
    effective_batch: Count
    time_factor: Finite
    fits: Literal["yes", "maybe"]
    peak: Interval
    longest_sequence: Count | None = None
    alternative: Setup | None = None


class NothingFits(Record):
    """What to do where no candidate has a setup that fits.

    Attributes:
        least: the setup that needs least, with its peak; its `fits` is that on `device`.
        device: the smallest device of the table that surely holds it; `None` if none does.
        longest_sequence: the longest sequence that fits with that setup; `None` if none does.
        parameters: about how many parameters of a base would fit the device asked for.
    """

    least: Setup | None = None
    device: Text | None = None
    longest_sequence: Count | None = None
    parameters: Count | None = None
