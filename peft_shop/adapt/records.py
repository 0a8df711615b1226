"""What becomes of a recipe on a user's model, as plain data: options, changes, what it touches.

Made by `peft_shop.adapt` and `peft_shop.preflight`; questions and answers hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from peft_shop.catalog.features import TaskType
from peft_shop.model.structure import Role, Tower
from peft_shop.records import Finite, Frozen, Json, Name, Record, Text

if TYPE_CHECKING:
    from peft_shop.catalog.runs import Recipe

__all__ = [
    "Change",
    "Preflight",
    "Retargeted",
    "TargetOptions",
    "Touched",
    "retargeted_recipe",
]


class TargetOptions(Record):
    """What the user wants to be otherwise than measured; `None` keeps what was measured.

    Attributes:
        roles: what to adapt; `None` means the roles that the recipe adapted.
        include_routers: adapt routers of experts too.
        include_heads: adapt output heads too.
        include_towers: adapt vision and audio towers and projectors beside a language model too.
        total_steps: optimizer steps of the user's training [count], for methods with a plan.
        num_virtual_tokens: length of a prompt or prefix [tokens].
        token_indices: rows of the token embedding to train, or the tokens of a context (CPT).
        adapters: folders of trained LoRA adapters (X-LoRA).
        task_type: the peft task type; `None` means the one that fits the model's head.
        peft_version: only fields that this peft knows are used; `None` means the catalog's.
    """

    roles: tuple[Role, ...] | None = None
    include_routers: bool = False
    include_heads: bool = False
    include_towers: bool = False
    total_steps: Annotated[int, Field(ge=1)] | None = None
    num_virtual_tokens: Annotated[int, Field(ge=1)] | None = None
    token_indices: tuple[int, ...] | None = None
    adapters: tuple[str, ...] | None = None
    task_type: TaskType | None = None
    peft_version: str | None = None


class Change(Record):
    """One value that had to differ from the measured recipe.

    Attributes:
        field: field of the peft configuration, such as `target_modules`.
        before: value in the recipe (peft's own choice where the recipe states none); `None` where
            it had none.
        after: value on this model; `None` where the field is left at its class default.
        because: why, in words.
    """

    field: Text
    before: Json = None
    after: Json = None
    because: Text


class Retargeted(Record):
    """A configuration for one model, and everything that was done to get there.

    Attributes:
        method: identifier of the method.
        config: `peft_type` and the fields that differ from the class's defaults, JSON-able.
        resolved: what peft fills in for fields that `config` leaves to it, such as the
            `target_modules` of its own table for this type of model.
        changes: every difference from the recipe, once.
        problems: why it cannot work on this model; empty means that it applies.
        notes: what the user should know; changes nothing.
        tried: what was tried with the method's defaults on a tiny model of this architecture;
            `None` where nobody did.
    """

    method: Name
    config: Frozen[dict[str, Json]]
    resolved: Frozen[dict[str, Json]] = Field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    problems: tuple[Text, ...] = ()
    notes: tuple[Text, ...] = ()
    tried: Text | None = None

    @property
    def applies(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems

    @property
    def whole_config(self) -> dict[str, Json]:
        """The configuration with what peft fills in: what names its modules without peft."""
        return {**self.resolved, **self.config}


def retargeted_recipe(recipe: Recipe, retargeted: Retargeted) -> Recipe:
    """The recipe with the configuration for another model in place of the measured one."""
    config = {key: value for key, value in retargeted.config.items() if key != "peft_type"}
    return recipe.model_copy(update={"config": config, "resolved": {}})


class Touched(Record):
    """Modules of one group that the adapter wraps or trains.

    Attributes:
        role: what they do.
        tower: where they are.
        pattern: their name with every index as `*`.
        touched: modules that the adapter wraps or trains [count].
        present: modules of the group [count].
        parameters: trainable parameters that belong to one of them alone [count]; what several
            share (a vector bank) counts for the whole model only.
    """

    role: Role
    tower: Tower
    pattern: str
    touched: int
    present: int
    parameters: int


class Preflight(Record):
    """What a configuration does to a model, found by wrapping it without weights.

    Attributes:
        touched: modules by group, in the model's order.
        trainable_parameters: as peft counts them [count].
        total_parameters: of the wrapped model, as peft counts them [count].
        trainable_share: trainable of total [fraction].
        trained_in_full: patterns of modules or parameters of the base that are trained whole.
        warnings: surprises, in plain words.
        basis: `meta`, the whole model was wrapped, or `stand_in`, a few real layers of the same
            widths were, and the figures were extrapolated from them.
        forward: `passed`, one forward pass with the adapter in place went through without
            weights, or `not_tried`.
        not_tried_because: why no forward pass could be tried; `None` where one passed.
    """

    touched: tuple[Touched, ...]
    trainable_parameters: int
    total_parameters: int
    trainable_share: Finite
    trained_in_full: tuple[str, ...] = ()
    warnings: tuple[Text, ...] = ()
    basis: Literal["meta", "stand_in"] = "meta"
    forward: Literal["passed", "not_tried"] = "not_tried"
    not_tried_because: Text | None = None
