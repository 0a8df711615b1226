"""Recipe, setup, method and model -> how the training step of a script runs, decided once.

A `Setup` is taken whole. Of bare `Settings` only what was stated counts; the rest is as measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from peft_shop.adapt.circumstances import measured_circumstances, model_circumstances
from peft_shop.catalog.conditions import TRIED_DTYPES
from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.errors import ConfigError
from peft_shop.forecast.records import Dtype, Settings, Setup

if TYPE_CHECKING:
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.features import Support
    from peft_shop.catalog.methods import Capability, Method
    from peft_shop.catalog.runs import Recipe, Run
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["ACCUMULATION", "Step", "step_of"]

ACCUMULATION: Final = "accumulation"
"""Key in `Training.options`: forward passes that a step of a trial was divided into."""

_DTYPES: Final = get_args(Dtype)
_BITS: Final = {"bnb_4bit": 4, "bnb_8bit": 8}
"""Backends that quantize a plain base while it is loaded, and the bits of one weight."""
_ATTENTION: Final = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
"""Kernels of attention by their name in transformers."""
_USUAL: Final = "sdpa"
_OWN: Final = {"lora_fa": "lora-fa", "riemannian": "riemannian"}
"""Optimizers of peft by their name in recipes."""
_OTHER: Final = {"sgd": "SGD", "adafactor": "Adafactor"}
"""Optimizers that may stand in for AdamW, by their name in `torch.optim`."""
_PLAIN: Final = "AdamW"
"""The optimizer of a recipe that does not need one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How a script's training step runs.

    Attributes:
        batch_size: texts or images of one forward pass.
        accumulation: forward passes of one step of the optimizer.
        max_length: of a text [tokens], or the side of an image [pixels].
        prompt_length: tokens that the prompt of an image is padded to; `None` for the usual ones.
        dtype: of the base's weights and activations; the compute type of a quantized base.
        autocast_adapter_dtype: whether adapters of a half-precision base are float32.
        backend: of a quantized base, or the format of its files; else `None`.
        quantize: whether the script quantizes the base; else it is loaded as it is.
        double_quantization: 4 bit: whether the scales are quantized once more.
        prepare: whether the base is prepared for k-bit training.
        checkpointing: whether blocks are run again in the backward pass.
        chunked: whether the loss is reckoned from some tokens at a time.
        attention: kernel by its name in transformers; `None` leaves the choice there.
        optimizer: as recipes call it.
        optimizer_options: its arguments besides the learning rate.
        eight_bit: whether the states of AdamW are kept in 8 bit.
        notes: what a reader should know about these choices.
    """

    batch_size: int
    accumulation: int
    max_length: int
    prompt_length: int | None = None
    dtype: str
    autocast_adapter_dtype: bool
    backend: str | None = None
    quantize: bool = False
    double_quantization: bool = True
    prepare: bool = False
    checkpointing: bool = False
    chunked: bool = False
    attention: str | None = None
    optimizer: str = _PLAIN
    optimizer_options: dict[str, Json] = field(default_factory=dict)
    eight_bit: bool = False
    notes: tuple[str, ...] = ()

    @property
    def half(self) -> bool:
        """Whether gradients have to be scaled, since small ones are zero in float16."""
        return self.dtype == "float16"


def step_of(
    run: Run,
    recipe: Recipe,
    benchmark: Benchmark,
    *,
    setup: Setup | Settings | None = None,
    method: Method | None = None,
    model: Structure | None = None,
) -> Step:
    """The step of a script that trains `recipe` under `setup`.

    Args:
        run: where the recipe comes from; its variants are judged.
        recipe: what is trained.
        benchmark: what the run was measured on.
        setup: how; `None` means as measured.
        method: what the catalog knows of the method; `None` where it knows nothing.
        model: the base, where it is not the measured one.

    Raises:
        ConfigError: the method was seen not to train so, or a script cannot do it.
    """
    return _Decision(run, recipe, benchmark, setup, method, model).step()


@dataclass(slots=True)
class _Decision:
    """Judges one setting after another; what has to be told gathers in `notes`."""

    run: Run
    recipe: Recipe
    benchmark: Benchmark
    setup: Setup | Settings | None
    method: Method | None
    model: Structure | None
    notes: list[str] = field(default_factory=list)

    def step(self) -> Step:
        training = self.recipe.training
        batch_size, accumulation = self.batches()
        backend, quantize = self.quantization()
        optimizer, options, eight_bit = self.optimizer()
        if not self.stated("padding", default=True):
            self.notes.append("batches are padded: packing is not in this script")
        return Step(
            batch_size=batch_size,
            accumulation=accumulation,
            max_length=self.length(),
            prompt_length=self.prompt_length(),
            dtype=self.dtype(),
            autocast_adapter_dtype=self.stated(
                "autocast_adapter_dtype", training.autocast_adapter_dtype
            ),
            backend=backend,
            quantize=quantize,
            double_quantization=self.stated("double_quantization", default=True),
            prepare=backend is not None and self.prepare(backend),
            checkpointing=self.checkpointing(),
            chunked=self.chunked(),
            attention=self.attention(),
            optimizer=optimizer,
            optimizer_options=options,
            eight_bit=eight_bit,
            notes=tuple(self.notes),
        )

    def stated(self, name: str, default: Any) -> Any:
        """The setting as the setup has it, else `default`."""
        if self.setup is None:
            return default
        if isinstance(self.setup, Setup):
            return getattr(self.setup.settings, name)
        return getattr(self.setup, name) if name in self.setup.model_fields_set else default

    @property
    def image(self) -> bool:
        return self.benchmark.modality == "image"

    @property
    def title(self) -> str:
        return self.run.experiment

    def batches(self) -> tuple[int, int]:
        """Micro-batch and accumulation; what is not stated makes up the measured product."""
        if isinstance(self.setup, Setup):
            return self.planned(self.setup)
        training = self.recipe.training
        measured = training.batch_size
        batch_size: int | None = self.stated("batch_size", None)
        divided = training.options.get(ACCUMULATION) if batch_size is None else None
        parts = divided if isinstance(divided, int) and divided > 0 else None
        accumulation: int | None = self.stated("accumulation", parts)
        if batch_size is None:
            # where it does not divide, rather more than less
            batch_size = measured if accumulation is None else -(-measured // accumulation)
        return batch_size, accumulation or -(-measured // batch_size)

    def planned(self, plan: Setup) -> tuple[int, int]:
        """Micro-batch and accumulation of a plan; one device does the work of all."""
        settings = plan.settings
        whole = -(-plan.effective_batch // settings.batch_size)
        if whole <= settings.accumulation:
            return settings.batch_size, settings.accumulation
        self.notes.append(
            f"the plan shares {plan.effective_batch} among devices; this script trains on one"
        )
        return settings.batch_size, whole

    def length(self) -> int:
        measured = self.recipe.training.max_length
        length: int = self.stated("image_size" if self.image else "sequence_length", measured)
        longest = None if self.model is None else self.model.dimensions.max_positions
        if self.image or longest is None or length <= longest:
            return length
        if self.stated("sequence_length", None) is not None:
            msg = f"no script for {length} tokens: {self.model_name} takes {longest} at most"
            raise ConfigError(msg)
        self.notes.append(f"texts are cut to the {longest} tokens that this model takes")
        return longest

    def prompt_length(self) -> int | None:
        measured = self.recipe.training.options.get("max_sequence_length")
        length: int | None = self.stated("sequence_length", measured) if self.image else None
        return length

    @property
    def model_name(self) -> str:
        return self.recipe.training.model_id if self.model is None else self.model.name

    def dtype(self) -> str:
        dtype: str = self.stated("dtype", self.recipe.training.dtype)
        if dtype not in _DTYPES:
            msg = (
                f"no script for training.dtype {dtype!r}; "
                f"scripts load the base model as {', '.join(_DTYPES)}"
            )
            raise ConfigError(msg)
        return dtype

    def quantization(self) -> tuple[str | None, bool]:
        """Format of a quantized base, and whether the script has to quantize it."""
        own = None if self.model is None else self.model.stored_format
        backend: str | None = self.stated("quantization", own) or own
        if own is not None and backend != own:
            msg = (
                f"no script that quantizes {self.model_name} with {backend}: it comes quantized "
                f"with {own}; leave quantization out, or name the model in 16 bit"
            )
            raise ConfigError(msg)
        if backend is None:
            return None, False
        if own is None and backend not in _BITS:
            msg = (
                f"no script that quantizes a base with {backend}: scripts do it with "
                f"{' or '.join(_BITS)}; for {backend} name a model that comes quantized so"
            )
            raise ConfigError(msg)
        bits = self.stated("quantization_bits", None)
        if own is None and bits not in {None, _BITS[backend]}:
            raise ConfigError(f"no script for {backend} with {bits} bits: it has {_BITS[backend]}")
        others = f"`peft-shop recommend --quantization {backend}` lists what does"
        self.trains(f"quantization.{backend}", f"on a {backend} base", others)
        self.notes.append(f"scores were measured on a base in {self.recipe.training.dtype}")
        return backend, own is None

    def trains(self, feature: str, where: str, hint: str = "") -> None:
        """Refuses what was seen not to train, and tells what nobody knows.

        Args:
            feature: the capability.
            where: what it is about, in words.
            hint: what to do where it does not train.

        Raises:
            ConfigError: the catalog says no.
        """
        if self.method is None:
            return
        if feature not in self.method.capabilities:
            self.notes.append(f"nobody has tried whether it trains {where}")
            return
        capability = self.method.capability(feature, self.run.variants)
        if self.supports(capability) == "no":
            because = f": {capability.note}" if capability.note else ""
            advice = f"; {hint}" if hint else ""
            raise ConfigError(f"no script: {self.title} does not train {where}{because}{advice}")
        if capability.support == "unknown":
            self.notes.append(f"nobody knows whether it trains {where}: {capability.note}")

    def prepare(self, backend: str) -> bool:
        """Whether the base is prepared: as the method needs it, else as the setup says."""
        feature = f"quantization.{backend}"
        # a format that nobody has tried is left as it comes
        usual = Settings.model_fields["prepare_kbit"].default and feature in FEATURE_IDS
        asked: bool = self.stated("prepare_kbit", usual)
        if self.method is None or feature not in self.method.capabilities:
            return asked
        capability = self.method.capability(feature, self.run.variants)
        works = {
            prepared: self.supports(capability, prepared=frozenset({prepared}))
            for prepared in (False, True)
        }
        if works[asked] == "yes" or works[not asked] != "yes":
            return asked
        verb = "not prepared" if asked else "prepared"
        self.notes.append(f"the base is {verb} for k-bit training: otherwise it does not train")
        return not asked

    def supports(self, capability: Capability, **stated: frozenset[object]) -> Support:
        """Support on the script's base, under what is `stated` besides."""
        if self.model is None:
            given = measured_circumstances(self.recipe.training.model_id)
        else:
            given = model_circumstances(self.model, self.recipe.config)
        dtype = self.dtype()
        known = {"dtype": frozenset({dtype})} if dtype in TRIED_DTYPES else {}
        return capability.under({**given, **known, **stated})

    def checkpointing(self) -> bool:
        measured = self.recipe.training.gradient_checkpointing
        asked: bool = self.stated("gradient_checkpointing", measured)
        if asked and not measured:
            self.trains("gradient_checkpointing", "with gradient checkpointing")
        return asked

    def chunked(self) -> bool:
        asked: bool = self.stated("fused_loss", default=False)
        if not asked:
            return False
        from peft_shop.forecast.ladder import chunkable  # noqa: PLC0415 - numpy only where it is asked

        because = None
        if self.image:
            because = "a model of images has no logits"
        elif self.method is not None and self.method.own_loss == "outputs":
            because = f"{self.method.title} predicts the labels once more from whole logits"
        elif self.model is not None and not chunkable(self.model):
            because = f"{self.model_name} has no linear head whose outputs are the logits"
        if because is not None:
            raise ConfigError(f"no script with a chunked loss (fused_loss): {because}")
        return True

    def attention(self) -> str | None:
        measured = self.recipe.training.options.get("attn_implementation")
        asked = None if self.image else self.stated("attention", None)
        if asked is None:
            return None if measured is None or self.image else str(measured)
        if asked == _USUAL and isinstance(self.setup, Setup) and measured is None:
            # transformers takes it by itself, and another one for models that lack it
            return None
        return _ATTENTION[asked]

    def optimizer(self) -> tuple[str, dict[str, Json], bool]:
        """Name, options and whether its states are in 8 bit."""
        training = self.recipe.training
        options = dict(training.optimizer_options)
        asked = self.stated("optimizer", "adamw")
        if asked == "adamw" or _OWN.get(asked) == training.optimizer:
            return training.optimizer, options, False
        if asked == "adamw_8bit" and training.optimizer == _PLAIN:
            return _PLAIN, options, True
        if asked == "adamw_8bit":
            self.notes.append(f"the optimizer stays {training.optimizer}, which the recipe needs")
            return training.optimizer, options, False
        if asked in _OTHER and training.optimizer == _PLAIN:
            self.notes.append(f"the learning rate was measured with {_PLAIN}")
            decay = {name: value for name, value in options.items() if name == "weight_decay"}
            return _OTHER[asked], decay, False
        msg = (
            f"no script that trains {self.title} with optimizer {asked!r}: its recipe has "
            f"{training.optimizer}, with settings of its own"
        )
        raise ConfigError(msg)
