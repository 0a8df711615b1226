"""Trainers as frozen records: which methods and options each tool takes, and how that is known.

The topics are the questions that can be asked of a trainer; a fact is one trainer's answer, and a
rule says what changes under a circumstance, such as a quantized base. Who asks them of which recipe
is for the room `serve` to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints

from peft_shop.catalog.engines import Modality, Period
from peft_shop.records import Date, Frozen, Name, Record, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peft_shop.catalog.methods import Method

__all__ = [
    "CONDITIONS",
    "HOW",
    "OTHER_METHODS",
    "OTHER_OPTIONS",
    "OTHER_VARIANTS",
    "RECIPE_FIELDS",
    "TRAINER_OPTIONS",
    "TRAINER_TOPICS",
    "Trainer",
    "TrainerFact",
    "TrainerHazard",
    "TrainerRule",
    "TrainerSource",
    "topics_of",
]

TrainerValue: TypeAlias = Literal["yes", "own", "no", "reject", "silent", "unknown"]
"""`own` is a yes by code of its own instead of peft's; `no` means that there is no way to ask for
it, `reject` an error; `silent` trains something else without a word."""
How: TypeAlias = Literal["declared", "validated", "trained", "verified"]
HOW: Final[dict[How, str]] = {
    "declared": "read in the code of the version named",
    "validated": "the tool's own check of configurations was run",
    "trained": "a small model was trained with it and the adapter saved",
    "verified": "trained, and the saved adapter gave the same outputs when loaded anew",
}
TrainerName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=40)
]

OTHER_METHODS: Final = "other_methods"
OTHER_VARIANTS: Final = "other_variants"
OTHER_OPTIONS: Final = "other_options"
TRAINER_OPTIONS: Final[dict[str, str]] = {
    "rank_pattern": "Ranks per layer (`rank_pattern`)?",
    "alpha_pattern": "Alphas per layer (`alpha_pattern`)?",
    "modules_to_save": "Whole modules beside the adapter (`modules_to_save`)?",
    "trainable_token_indices": "Single trained tokens (`trainable_token_indices`)?",
    "target_parameters": "Adapters on bare parameters (`target_parameters`)?",
    "exclude_modules": "Modules that are left out (`exclude_modules`)?",
    "layers_to_transform": "Only some layers (`layers_to_transform`, `layers_pattern`)?",
    "bias": "Biases trained beside the adapter (`bias`)?",
    "target_pattern": "Target modules by a pattern instead of names?",
    OTHER_OPTIONS: "Any other field of the configuration that the file has no key for?",
}
"""Settings of an adapter that a trainer may lose, and what is asked about them."""
TRAINER_TOPICS: Final[dict[str, str]] = {
    OTHER_METHODS: "Does it train a method without a fact of its own?",
    OTHER_VARIANTS: "Does it train a variant without a fact of its own?",
    "quantized_base": "Does it train on a base that it loads in 4 or 8 bit?",
    "data_format": "Which data does it read?",
    "whole_text": "Can the loss count the question and the answer, as the benchmark's did?",
    "completion_only": "Can the loss count the answer alone?",
    "chat_template": "What does it do with chat templates?",
    "packing": "Can several texts share a row (packing)?",
    "chunked_loss": "Is the loss reckoned without whole logits?",
    "dpo_reference": "Is the reference of DPO the model before training?",
}
"""Questions about a trainer that are about no single method or option."""
CONDITIONS: Final[dict[str, str]] = {
    "quantized": "the base is in 4 or 8 bit",
    "checkpointing": "gradient checkpointing is on",
    "half": "the base is in bfloat16 or float16, not in float32",
    "experts_dropout": "it adapts bare parameters with a dropout above 0",
    "head": "it adapts `lm_head`",
    "vocabulary": "it adapts `embed_tokens` or `lm_head`",
}
"""Circumstances under which a fact is another one; how they are seen, is for the room `serve`."""
RECIPE_FIELDS: Final[dict[str, str]] = {
    "model": "base model",
    "data": "data set",
    "output": "folder of the adapter",
    "method": "method",
    "learning_rate": "learning rate",
    "lr_scheduler": "schedule of the rate",
    "warmup": "steps of warm-up",
    "max_steps": "steps of the optimizer",
    "batch_size": "sequences or images of one forward pass",
    "accumulation": "forward passes of one step",
    "max_length": "tokens of a text, or pixels of an image's side",
    "optimizer": "optimizer",
    "weight_decay": "weight decay",
    "grad_norm_clip": "greatest norm of the gradient",
    "seed": "seed",
    "dtype": "type of the base",
    "checkpointing": "gradient checkpointing",
    "quantization": "base in 4 or 8 bit",
    "chunked_loss": "loss in chunks",
    "packing": "packing",
    "completion_only": "loss on the answer alone",
    "loraplus": "ratio of the rates of B and A (LoRA+)",
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "adapted modules",
    "target_parameters": "adapted parameters",
    "modules_to_save": "modules trained whole",
    "use_rslora": "scale of rsLoRA",
    "use_dora": "DoRA",
    "init_lora_weights": "start of A and B",
    "rank_pattern": "ranks per layer",
    "alpha_pattern": "alphas per layer",
    "trainable_token_indices": "single trained tokens",
    "layers_to_transform": "adapted layers",
    "bias": "trained biases",
}
"""What a recipe says, in words; a trainer's `keys` and `defaults` go by these names."""


class TrainerSource(Record):
    """A file that was read, or a trial that was made.

    Attributes:
        place: the file, page or trial.
        version: what it belongs to; `None` where it is the trainer's own version.
        date: of that version or trial; `None` where it is not on record.
        steps: steps of the optimizer that were made; `None` where nothing was trained.
        learning_rate: at which, in words; `None` likewise.
    """

    place: Text
    version: str | None = None
    date: Period | None = None
    steps: Text | None = None
    learning_rate: Text | None = None


class TrainerFact(Record):
    """A trainer's answer to one topic.

    Attributes:
        value: yes, own (by code of its own), no (there is no way to ask for it), reject (an error;
            the note says where it is not a clear one), silent (trains something else) or unknown.
        how: how it is known.
        key: what is written to ask for it; `None` where the configuration of peft says it.
        note: what else there is to say; required for `unknown`.
        needs: what to do so that the result is right; makes even a `silent` usable.
        written: whether the file that `peft-shop snippet --trainer` writes does what it needs.
        source: key in `Trainer.sources`.
    """

    value: TrainerValue
    how: How = "declared"
    key: Text | None = None
    note: Text | None = None
    needs: Text | None = None
    written: bool = False
    source: str = "code"


class TrainerRule(Record):
    """What a trainer does with a recipe under a circumstance.

    Attributes:
        when: the circumstance, a key of `CONDITIONS`.
        topics: methods, variants and options that it is about; empty for all methods.
        value: as in a fact; never `yes`.
        how: how it is known.
        note: what happens.
        needs: what to do so that the result is right.
        written: whether the file that `peft-shop snippet --trainer` writes does that.
        source: key in `Trainer.sources`.
    """

    when: Name
    topics: tuple[Name, ...] = ()
    value: Literal["no", "reject", "silent", "unknown"]
    how: How = "declared"
    note: Text
    needs: Text | None = None
    written: bool = False
    source: str = "code"


class TrainerHazard(Record):
    """Something that goes wrong whatever the method; `source` as in a fact."""

    text: Text
    source: str = "code"


class Trainer(Record):
    """One tool that people train with; a topic without a fact is one that nobody looked up.

    Attributes:
        id: such as `llama-factory`.
        title: as its project writes it.
        aliases: other spellings.
        kind: what a user writes: a Python script (`library`), a configuration file (`file`) or a
            command line (`command`).
        models: kinds of models that the facts are about.
        version: that the facts are about.
        checked: when they were read.
        package: distribution that is installed; `None` where it comes from a repository.
        peft: versions of peft that it asks for; `None` where it does not use peft.
        python: versions of Python that it asks for; `None` where that is not on record.
        entry: whether it takes a `PeftConfig`, has flags for peft's methods, or code of its own.
        saves: names of keys and files in which the adapter is saved.
        stored: formats of quantized checkpoints that it loads as they come, besides those of
            bitsandbytes; a tool that takes a `PeftConfig` takes the model as you loaded it.
        file: what `peft-shop snippet --trainer` writes; `None` where it writes nothing.
        retired: why it is not recommended; `None` where it is looked after.
        sources: what was read or tried, by key.
        facts: by topic: methods, variants, `TRAINER_OPTIONS` and `TRAINER_TOPICS`.
        rules: what changes under circumstances.
        keys: what the trainer calls a field of a recipe, by `RECIPE_FIELDS`.
        extra_keys: further keys that are written into its file, besides those of the recipe.
        defaults: values that apply where nothing is written, as far as they differ from a recipe.
        hazards: what else goes wrong.
    """

    id: TrainerName
    title: Text
    aliases: tuple[str, ...] = ()
    kind: Literal["library", "file", "command"]
    models: tuple[Modality, ...] = ("text",)
    version: str
    checked: Date
    package: str | None = None
    peft: str | None = None
    python: str | None = None
    entry: Literal["peft_config", "flags", "own"]
    saves: Literal["peft", "own", "kohya", "diffusers"]
    stored: tuple[Name, ...] = ()
    file: Literal["script", "yaml", "shell"] | None = None
    retired: Text | None = None
    sources: Frozen[dict[str, TrainerSource]]
    facts: Frozen[dict[str, TrainerFact]]
    rules: tuple[TrainerRule, ...] = ()
    keys: Frozen[dict[str, str]] = Field(default_factory=dict)
    extra_keys: tuple[str, ...] = ()
    defaults: Frozen[dict[str, str]] = Field(default_factory=dict)
    hazards: tuple[TrainerHazard, ...] = ()

    def cited(self) -> Iterator[tuple[str, str]]:
        """Every place that names a source, with the source's key."""
        yield from ((f"facts.{topic}", fact.source) for topic, fact in self.facts.items())
        yield from ((f"rules[{i}]", rule.source) for i, rule in enumerate(self.rules))
        yield from ((f"hazards[{i}]", hazard.source) for i, hazard in enumerate(self.hazards))


def topics_of(methods: Iterable[Method]) -> frozenset[str]:
    """Every topic that a trainer can have a fact about, given the catalog's methods."""
    known = list(methods)
    return frozenset(
        (
            *TRAINER_TOPICS,
            *TRAINER_OPTIONS,
            *(method.id for method in known),
            *(variant.id for method in known for variant in method.variants),
        )
    )
