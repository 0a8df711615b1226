"""Serving engines as frozen records: what each loads of what peft saves, and how that is known.

The topics are the questions that can be asked of an engine; a fact is one engine's answer. Kinds of
bases and model classes have answers of the same form, and rules answer for what no single setting
shows. Who asks them of which adapter is for the room `serve` to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints

from peft_shop.catalog.methods import PLAIN
from peft_shop.records import Date, Frozen, Name, Record, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ANY_OTHER",
    "BASE_KINDS",
    "CIRCUMSTANCES",
    "FORMATS",
    "OTHER_FORMAT",
    "TOPICS",
    "TOPIC_IDS",
    "TRAIT_IDS",
    "Architectures",
    "BaseKind",
    "Command",
    "Conversion",
    "Engine",
    "EngineSource",
    "Fact",
    "Hazard",
    "LoadRule",
    "Modality",
    "RankRule",
    "Topic",
]

Modality: TypeAlias = Literal["text", "image"]
FactValue: TypeAlias = Literal["yes", "no", "reject", "silent", "unknown"]
"""`reject` is a no with an error; `silent` loads and computes something else."""
EngineName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=40)
]
Period: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\d{4}(-\d\d(-\d\d)?)?$")]
"""A date, or as much of it as is known."""

OTHER_FORMAT: Final = "other_formats"
ANY_OTHER: Final = "*"
"""In a list of model classes: every class that no list of the engine names."""

BaseKind: TypeAlias = Literal[
    "decoder",
    "hybrid",
    "experts",
    "multimodal",
    "encoder_decoder",
    "encoder",
    "vision",
    "speech",
    "unet",
    "diffusion_transformer",
]
BASE_KINDS: Final[dict[BaseKind, str]] = {
    "decoder": "a decoder-only language model",
    "hybrid": "a model with state-space or linear-attention layers",
    "experts": "a mixture of experts",
    "multimodal": "a language model that also takes images or sound",
    "encoder_decoder": "a text model of an encoder and a decoder",
    "encoder": "a text encoder",
    "vision": "a model of images alone, such as a classifier",
    "speech": "a speech model",
    "unet": "a diffusion UNet",
    "diffusion_transformer": "a diffusion transformer",
}
"""Kinds of bases, and what they are called. A base can be of several: Mixtral is a decoder and a
mixture of experts."""

CIRCUMSTANCES: Final[dict[str, str]] = {
    "pattern": "`target_modules` is a pattern and no list of names",
    "adapts": "it adapts one of `names`",
    "adapts_without": "it adapts one of `names`, but not all of `lacking`",
    "adapts_other": "it adapts a layer that is none of `names`",
    "uneven_layers": "some layer lacks an adapter on modules that have one in other layers",
    "experts": "it adapts the experts of a mixture",
    "towers": "it adapts the part of a multimodal model that sees or hears",
    "foreign_names": "its modules have names that only one trainer's own models use",
    "grown_vocabulary": "it was trained with a vocabulary that was extended",
    "other_base": "it has tensors for modules that the base does not have",
    "tied_head": "it adapts a head that is tied to the embedding",
    "peft_keys": "its keys begin with `base_model.model.`, as those that peft saves",
    "named_keys": "its keys hold an adapter's name, such as `lora_A.default.weight`",
    "other_keys": "its keys do not begin with `base_model.model.`",
}
"""What a rule can look for in an adapter on its base; how, is for the room `serve`."""


class Topic(Record):
    """One question about an engine.

    Attributes:
        id: key in `Engine.facts`.
        group: `format` (what a method saves), `trait` (what one adapter may have) or `engine`.
        question: what the fact answers.
    """

    id: Name
    group: Literal["format", "trait", "engine"]
    question: Text


def _topics() -> tuple[Topic, ...]:
    formats = {
        PLAIN: "LoRA",
        "adalora": "AdaLoRA",
        "boft": "BOFT",
        "glora": "GLoRA",
        "ia3": "(IA)³",
        "loha": "LoHa",
        "lokr": "LoKr",
        "oft": "OFT",
        "prompt_tuning": "prompt tuning",
        "vera": "VeRA",
        OTHER_FORMAT: "any method without a fact of its own",
    }
    traits = {
        "scale": "Is lora_alpha / r applied where it is not 1?",
        "rslora": "Is the scale lora_alpha / sqrt(r) of rsLoRA applied?",
        "dora": "Are the magnitudes of DoRA applied?",
        "lora_bias": "Is the trained bias of B applied (`lora_bias`)?",
        "changed_base": "What of PiSSA, OLoRA and CorDA, saved relative to a changed base?",
        "lora_ga": "What of LoRA-GA, saved relative to a changed base?",
        "loftq": "What of LoftQ, made for the base that it quantized?",
        "extra_tensors": "What of tensors besides A and B (KaSA, VeLoRA, MonteCLoRA)?",
        "alora": "Does aLoRA start at its invocation tokens?",
        "qalora": "Does QA-LoRA's pooled input work?",
        "bdlora": "Are the block-diagonal shapes of BD-LoRA read?",
        "arrow": "Does it route tokens as Arrow does?",
        "rank_pattern": "Are ranks per layer read (`rank_pattern`)?",
        "alpha_pattern": "Are alphas per layer read (`alpha_pattern`)?",
        "layer_replication": "Are replicated layers served (`layer_replication`)?",
        "bias": "Are biases trained beside the adapter applied (`bias`)?",
        "embeddings": "Are adapters on embeddings and lm_head applied?",
        "saved_head": "Is one classifier or score head from `modules_to_save` loaded?",
        "saved_embeddings": "Are embed_tokens and lm_head from `modules_to_save` loaded?",
        "saved_modules": "Are other modules from `modules_to_save` loaded?",
        "trainable_tokens": "Are single trained tokens loaded (`trainable_token_indices`)?",
        "parameters": "Are adapters on bare parameters applied (`target_parameters`)?",
    }
    engine = {
        "quantized_base": "Does it serve adapters on a quantized base?",
        "merge_at_load": "Does it merge an adapter while loading it?",
    }
    topics = [
        Topic(id=key, group="format", question=f"Does it load {what} as peft saves it?")
        for key, what in formats.items()
    ]
    topics += [Topic(id=key, group="trait", question=text) for key, text in traits.items()]
    topics += [Topic(id=key, group="engine", question=text) for key, text in engine.items()]
    return tuple(topics)


TOPICS: Final[tuple[Topic, ...]] = _topics()
TOPIC_IDS: Final[tuple[str, ...]] = tuple(topic.id for topic in TOPICS)
TRAIT_IDS: Final[tuple[str, ...]] = (
    *(topic.id for topic in TOPICS if topic.group == "trait"),
    "kasa",
    "miss_bat",
    "sampling",
)
"""What an adapter can have: what engines are asked about, and three that only conversions are."""
FORMATS: Final[frozenset[str]] = frozenset(topic.id for topic in TOPICS if topic.group == "format")


_HEADS: Final = re.compile(r"For(?:Sequence|Token)Classification$")


class EngineSource(Record):
    """A file or page that was read.

    Attributes:
        place: the file, page or thread.
        version: what it belongs to; `None` where it is the engine's own version.
        date: of that version; `None` where it is not on record.
    """

    place: Text
    version: str | None = None
    date: Period | None = None


class Fact(Record):
    """An engine's answer to one topic.

    Attributes:
        value: yes, no, reject (a no with an error; the note says where it is not a clear one),
            silent (loads and computes something else) or unknown. Of a kind of base, `no` means
            that it is not served at all, `reject` that it is, without adapters.
        note: what else there is to say; required for `unknown`.
        needs: what to do so that the result is right; makes even a `silent` usable.
        layout: names of keys under which it reads the format; anything but `peft` means that a
            file that peft saved does not load as it is.
        source: key in `Engine.sources`.
    """

    value: FactValue
    note: Text | None = None
    needs: Text | None = None
    layout: Literal["peft", "kohya", "lycoris", "own"] = "peft"
    source: str = "code"


class RankRule(Record):
    """What an engine asks of ranks.

    Attributes:
        flag: setting that must be at least every rank.
        choices: values that the flag takes; empty for any.
        default: value of the flag; `None` where there is none.
        least: below it nobody knows whether it works.
        most: above it nobody knows whether it works.
        note: what else there is to say.
        source: key in `Engine.sources`.
    """

    flag: Text | None = None
    choices: tuple[int, ...] = ()
    default: int | None = None
    least: int | None = None
    most: int | None = None
    note: Text | None = None
    source: str = "code"


class Hazard(Record):
    """Something that goes wrong in ways a configuration does not show; `source` as in a fact."""

    text: Text
    source: str = "code"


class Architectures(Record):
    """Model classes whose adapters an engine treats alike.

    Attributes:
        value: as in a fact about a kind of base.
        names: classes as a base's configuration names them; `*` for every class that no list of
            the engine names.
        note: what else there is to say; required for `unknown`.
        needs: what to do so that the result is right.
        source: key in `Engine.sources`.
    """

    value: FactValue
    names: tuple[Text, ...]
    note: Text | None = None
    needs: Text | None = None
    source: str = "code"


class LoadRule(Record):
    """What an engine does with an adapter under a circumstance that no single setting shows.

    Attributes:
        when: the circumstance, a key of `CIRCUMSTANCES`.
        names: modules that it is about, by the last part of their names.
        lacking: modules that must be adapted as well.
        kinds: only on bases of one of these kinds; empty for any.
        value: as in a fact; never `yes`.
        note: what happens.
        needs: what to do so that the result is right; makes it usable.
        source: key in `Engine.sources`.
    """

    when: Name
    names: tuple[Text, ...] = ()
    lacking: tuple[Text, ...] = ()
    kinds: tuple[BaseKind, ...] = ()
    value: Literal["no", "reject", "silent", "unknown"]
    note: Text
    needs: Text | None = None
    source: str = "code"


class Command(Record):
    """How the engine is started with an adapter.

    Attributes:
        line: the command; `BASE`, `ADAPTER` and `RANK` stand for what the user has.
        flags: options that its own list of arguments has, as far as they matter to adapters.
        source: key in `Engine.sources`.
    """

    line: Text
    flags: tuple[Text, ...]
    source: str = "code"


class Engine(Record):
    """One serving engine; a topic without a fact is one that nobody looked up.

    Attributes:
        id: such as `vllm`.
        title: as its project writes it.
        aliases: other spellings.
        kind: where it runs.
        models: kinds of models that the facts are about.
        version: that the facts are about.
        checked: when they were read.
        sources: what was read, by key.
        facts: by topic.
        ranks: what it asks of ranks.
        whole_alpha: whether it reads `lora_alpha` as a whole number.
        layers: which layers it serves adapters on.
        hazards: what else goes wrong.
        kinds: what it does with adapters on each kind of base; of one without a fact nobody knows.
        architectures: the same by model class, where it differs by class.
        heads_aside: whether it takes a classifier for the language model that it is put on, so that
            the list with that class answers for it.
        rules: what it does with adapters under circumstances.
        command: how it is started with an adapter; `None` where nobody read its arguments.
    """

    id: EngineName
    title: Text
    aliases: tuple[str, ...] = ()
    kind: Literal["llm_server", "local", "edge", "image"]
    models: tuple[Modality, ...] = ("text",)
    version: str
    checked: Date
    sources: Frozen[dict[str, EngineSource]]
    facts: Frozen[dict[str, Fact]]
    ranks: RankRule = Field(default_factory=RankRule)
    whole_alpha: bool = False
    layers: Text | None = None
    hazards: tuple[Hazard, ...] = ()
    kinds: Frozen[dict[BaseKind, Fact]] = Field(default_factory=dict)
    architectures: tuple[Architectures, ...] = ()
    heads_aside: bool = False
    rules: tuple[LoadRule, ...] = ()
    command: Command | None = None

    def cited(self) -> Iterator[tuple[str, str]]:
        """Every place that names a source, with the source's key."""
        yield from ((f"facts.{topic}", fact.source) for topic, fact in self.facts.items())
        if self.ranks != RankRule():
            yield "ranks", self.ranks.source
        yield from ((f"hazards[{i}]", hazard.source) for i, hazard in enumerate(self.hazards))
        yield from ((f"kinds.{kind}", fact.source) for kind, fact in self.kinds.items())
        yield from (
            (f"architectures[{i}]", architecture.source)
            for i, architecture in enumerate(self.architectures)
        )
        yield from ((f"rules[{i}]", rule.source) for i, rule in enumerate(self.rules))
        if self.command is not None:
            yield "command", self.command.source

    def of_class(self, name: str) -> Architectures | None:
        """The list that answers for a model class; `None` where nothing is known of it."""
        names = [name]
        if self.heads_aside:
            names.append(_HEADS.sub("ForCausalLM", name))
        names.append(ANY_OTHER)
        return next(
            (group for each in names for group in self.architectures if each in group.names), None
        )


class Conversion(Record):
    """What becomes of an adapter on a way out: converted to LoRA, by peft or here, or merged.

    Attributes:
        way: `convert` (peft's `convert_to_lora`), `extract` (`peft-shop convert`) or `merge`. The
            rank of an exact `convert` is the update's own, and so holds for `extract` too.
        method: the method it is about; `None` for all.
        traits: what the adapter must have for it to apply; empty for every adapter.
        verdict: `exact` (at the rank that `rank` gives), `approximate`, `wrong` (peft does it,
            and what comes out computes something else), `refused` or `unknown`.
        rank: the exact rank as a sum of products of configuration fields and whole numbers; a list
            counts by its length. No layer's update has a higher one.
        defaults: values of those fields where a configuration does not state them.
        because: the reason; required unless exact.
        initial_model: whether saving against the untrained adapter gives an exact LoRA instead
            (`path_initial_model_for_weight_conversion`, twice the rank).
        level: how it is known: `verified` by numbers, or `declared` in code.
    """

    way: Literal["convert", "extract", "merge"] = "convert"
    method: Name | None = None
    traits: tuple[Name, ...] = ()
    verdict: Literal["exact", "approximate", "wrong", "refused", "unknown"]
    rank: tuple[tuple[str, ...], ...] = ()
    defaults: Frozen[dict[str, int]] = Field(default_factory=dict)
    because: Text | None = None
    initial_model: bool = False
    level: Literal["declared", "verified"] = "verified"
