"""What is known about a method: observed by the probe, written by people, compiled into one."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from peft_shop.catalog.conditions import Circumstances, Given, conditions_met
from peft_shop.catalog.features import Category, EvidenceLevel, Family, LayerType, Support, TaskType
from peft_shop.records import Finite, Frozen, Json, Name, Number, Record, Text, Url

__all__ = [
    "FIDELITY_RANKS",
    "PLAIN",
    "PLAIN_TYPE",
    "Capability",
    "Condition",
    "Curated",
    "DeltaKind",
    "Environment",
    "Fidelity",
    "MeasuredRank",
    "Method",
    "Observation",
    "Override",
    "OwnLoss",
    "Paper",
    "PromptPlace",
    "Variant",
    "VariantObservation",
]

PLAIN: Final = "lora"
"""What people take by default: the yardstick of answers, and what servers and trainers read."""
PLAIN_TYPE: Final = "LORA"
"""How a configuration of it calls itself in `peft_type`."""


class Capability(Record):
    """What is known about one feature of one method.

    Attributes:
        support: yes, partial, no or unknown.
        level: how it is known.
        note: required for `partial` and `unknown`.
        source: observed by the probe, or decided by a curator (then `note` says why).
        environment: key into the method's `environments`: the versions it was observed with.
        measured: numbers behind a `verified` value. Deviations are powers of ten that were not
            exceeded, relative to the largest output, so that they agree among machines.
        conditions: of `partial`, the circumstances of which each alone makes it a `yes`; empty
            where no circumstance does, or the support is another.
    """

    support: Support
    level: EvidenceLevel
    note: Text | None = None
    source: Literal["observed", "curated"] = "observed"
    environment: str = "cpu"
    measured: Frozen[dict[str, Number]] = Field(default_factory=dict)
    conditions: tuple[Circumstances, ...] = ()

    def under(self, given: Given) -> Support:
        """Support under circumstances: `yes` where a condition is met, `no` where none can be.

        What depends on circumstances that are not known stays `partial`.
        """
        if self.support != "partial" or not self.conditions:
            return self.support
        met = conditions_met(self.conditions, given)
        return "partial" if met is None else "yes" if met else "no"


class Environment(Record):
    """Versions and hardware under which capabilities were observed."""

    peft: str
    python: str
    torch: str | None = None
    transformers: str | None = None
    device: str = "cpu"
    packages: Frozen[dict[str, str]] = Field(default_factory=dict)


DeltaKind: TypeAlias = Literal[
    "weight",
    "bias",
    "base_bias",
    "embedding",
    "norm",
    "activation",
    "prompt",
    "input_dependent",
]
"""What an adapter changes: the weight, the bias, rows of an embedding or a norm of a layer;
`base_bias` changes a bias only where the base has one, `activation` adds to a block's output
without a layer, `prompt` adds virtual tokens, and `input_dependent` is no fixed matrix: another one
for other inputs, positions or tasks."""

FIDELITY_RANKS: Final = (8, 16, 32, 64)
"""Ranks at which the error of a truncated update is told."""


class MeasuredRank(Record):
    """The rank of the update under some settings.

    Attributes:
        config: settings beyond those of the probe's set-up.
        ranks: singular values above 1e-5 of the largest, by inputs and outputs of the layer, such
            as `48x40`.
    """

    config: Frozen[dict[str, Json]] = Field(default_factory=dict)
    ranks: Frozen[dict[str, int]]


class Fidelity(Record):
    """What a trained adapter changes, and how well a LoRA can hold it.

    Measured on single layers from outside: outputs for unit vectors, less the weight as it was
    before peft touched it.

    Attributes:
        delta: kinds of change.
        base_changed: whether wrapping changed the base's own weights.
        rank: rank of the update on a layer of `shape` at the probe's settings; `None` where it
            is no matrix.
        errors: relative error (Frobenius) of the best approximation at each of `FIDELITY_RANKS`,
            the larger one of `shape` and its transpose; empty where the rank is at most the
            highest of them.
        shape: inputs and outputs of the layer.
        layers: types of layers on which a LoRA reproduced the outputs.
        grid: what exact ranks are checked against; left out of the compiled catalog.
    """

    delta: tuple[DeltaKind, ...] = ("weight",)
    base_changed: bool = False
    rank: int | None = None
    errors: tuple[Finite, ...] = ()
    shape: tuple[int, int] = (128, 160)
    layers: tuple[LayerType, ...] = ()
    grid: tuple[MeasuredRank, ...] = ()


class VariantObservation(Record):
    """Where a variant differs from its method: only the differing features.

    `fidelity` is `None` where it is the method's.
    """

    capabilities: Frozen[dict[str, Capability]] = Field(default_factory=dict)
    fidelity: Fidelity | None = None


class Observation(Record):
    """One file `catalog/observed/<method>.json`: what the probe saw.

    Attributes:
        method: the method's identifier.
        config_class: name of its class in peft.
        category: adapter, prompt learning or other.
        environments: versions, by the key that capabilities refer to.
        capabilities: one entry for every feature.
        options: configuration fields worth knowing when choosing (`rank_pattern`, `bias`, ...).
        requires: packages besides peft's own that the method needs.
        variants: differences, by variant.
        initialisation: how long wrapping takes at full width, in words, when it matters.
        inference: what an unmerged adapter adds to a forward pass, in words.
        fidelity: how well a LoRA can hold what it changes.
    """

    method: Name
    config_class: str
    category: Category
    environments: Frozen[dict[str, Environment]]
    capabilities: Frozen[dict[str, Capability]]
    options: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    variants: Frozen[dict[str, VariantObservation]] = Field(default_factory=dict)
    initialisation: Text | None = None
    inference: Text | None = None
    fidelity: Fidelity | None = None


PromptPlace: TypeAlias = Literal["input", "cache"]
"""`input`: in front of the input, which gets longer by them and needs labels for them. `cache`:
keys and values that every layer finds ahead of the input."""

OwnLoss: TypeAlias = Literal["weights", "outputs"]
"""A term made from the adapter's weights, or from another prediction of the labels."""


class Paper(Record):
    """The publication that introduced a method or variant."""

    title: Text
    year: Annotated[int, Field(ge=1990, le=2100)]
    url: Url


class Condition(Record):
    """One test on a recipe; a variant is recognised when all its conditions hold.

    Exactly one of `config` and `training` names the field; exactly one of the other members says
    what it must be. A field that the recipe does not state has its class default, `None` here.
    """

    config: str | None = None
    training: str | None = None
    equals: Json = None
    one_of: tuple[Json, ...] | None = None
    prefix: str | None = None
    is_set: bool | None = None

    def met_by(self, value: Json) -> bool:
        """Whether a field with this value meets the condition; `None` stands for not stated."""
        if self.one_of is not None:
            return any(_same(value, option) for option in self.one_of)
        if self.prefix is not None:
            return isinstance(value, str) and value.startswith(self.prefix)
        if self.is_set is not None:
            return (value is not None) == self.is_set
        return _same(value, self.equals)


def _same(value: Json, wanted: Json) -> bool:
    # 1 == True in Python, yet `init_weights = 1` is not `init_weights = true`
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


class Variant(Record):
    """A named setting of a method.

    Attributes:
        id: identifier, such as `rslora`.
        title: name as its authors write it.
        summary: one or two sentences.
        paper: `None` only where there is no paper.
        when: conditions that recognise it in a recipe.
        looks_at_data: what must run beside wrapping, because it starts from data, and when; `None`
            where wrapping is all.
        left_to_loop: a term of the loss that peft does not add by itself; `None` without one.
        allocates: whether a loop must call `update_and_allocate` after each step.
        capabilities: only those that differ from the method's (filled by the compiler).
        fidelity: how well a LoRA can hold it; `None` where it is as for the method.
        since: first peft release that has it.
    """

    id: Name
    title: Text
    summary: Text
    paper: Paper | None = None
    when: tuple[Condition, ...] = ()
    looks_at_data: Text | None = None
    left_to_loop: Text | None = None
    allocates: bool = False
    capabilities: Frozen[dict[str, Capability]] = Field(default_factory=dict)
    fidelity: Fidelity | None = None
    since: str | None = None


class Override(Record):
    """A curator's decision that replaces an observation, with the reason."""

    support: Support
    because: Text


class Curated(Record):
    """One file `catalog/curated/<method>.toml`: what people wrote.

    `peft_type` is the member of peft's `PeftType`; `probe` is the set-up of the probe and opaque
    here; `no_paper_because` is required when `paper` is absent. For `prompt`, `loop_needs`,
    `own_loss` and `allocates` see `Method`.
    """

    title: Text
    peft_type: str
    config_class: str
    summary: Text
    family: Family
    task_types: tuple[TaskType, ...]
    paper: Paper | None = None
    no_paper_because: Text | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[Text, ...] = ()
    prompt: PromptPlace | None = None
    loop_needs: Text | None = None
    own_loss: OwnLoss | None = None
    allocates: bool = False
    variants: tuple[Variant, ...] = ()
    overrides: Frozen[dict[str, Override]] = Field(default_factory=dict)
    probe: Frozen[dict[str, Json]] = Field(default_factory=dict)


class Method(Record):
    """One parameter-efficient fine-tuning method as the catalog knows it.

    Attributes:
        id: lower-case `PeftType`, such as `lora`.
        prompt: where its virtual tokens go; `None` where it has none.
        loop_needs: what a training loop must hand it besides batches; `None` where batches do.
        own_loss: what it adds to the model's loss by itself; `None` where it adds nothing.
        allocates: whether a loop must call `update_and_allocate` after each step, which decides by
            its gradients what to train on.
        capabilities: one entry for every feature in `FEATURES`.
        fidelity: how well a LoRA can hold what it changes; `None` where nobody measured it.
        fields: configuration fields and the first peft release that has each.
        since: first peft release that has the method.
    """

    id: Name
    peft_type: str
    config_class: str
    title: Text
    summary: Text
    family: Family
    category: Category
    task_types: tuple[TaskType, ...]
    paper: Paper | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[Text, ...] = ()
    prompt: PromptPlace | None = None
    loop_needs: Text | None = None
    own_loss: OwnLoss | None = None
    allocates: bool = False
    capabilities: Frozen[dict[str, Capability]]
    environments: Frozen[dict[str, Environment]]
    options: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    initialisation: Text | None = None
    inference: Text | None = None
    fidelity: Fidelity | None = None
    variants: tuple[Variant, ...] = ()
    since: str | None = None
    fields: Frozen[dict[str, str]] = Field(default_factory=dict)

    def capability(self, feature: str, variants: tuple[str, ...] = ()) -> Capability:
        """Capability of this method under `variants`; the weakest one where they differ."""
        found = [
            variant.capabilities[feature]
            for variant in self.variants
            if variant.id in variants and feature in variant.capabilities
        ]
        if not found:
            return self.capabilities[feature]
        order: tuple[Support, ...] = ("no", "unknown", "partial", "yes")
        return min(found, key=lambda capability: order.index(capability.support))

    def fidelities(self, variants: tuple[str, ...] = ()) -> tuple[Fidelity, ...]:
        """How well a LoRA holds it under `variants`: of each that differs, else the method's."""
        found = [
            variant.fidelity
            for variant in self.variants
            if variant.id in variants and variant.fidelity is not None
        ]
        return tuple(found) if found or self.fidelity is None else (self.fidelity,)
