"""Recipe x trainer -> Acceptance: what a training tool takes of it, loses, refuses, and needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.trainers import (
    CONDITIONS,
    OTHER_METHODS,
    OTHER_OPTIONS,
    OTHER_VARIANTS,
    TrainerFact,
)
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.records import Record
from peft_shop.serve.cases import Basis
from peft_shop.serve.recipes import TrainerRecipe

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.trainers import Trainer, TrainerRule

__all__ = [
    "PARTLY",
    "Acceptance",
    "Verdict",
    "accepts",
    "demanded_trainer",
    "methods_taken",
    "resolve_trainer",
    "resolve_trainer_demand",
    "variants_taken",
]

Verdict: TypeAlias = Literal["accepts", "partly", "no", "unknown"]
PARTLY: Final = "partly"
_PARTIAL: Final = {"partly", "partial"}
_SEPARATOR: Final = "=="
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
_WRAPPING: Final = {
    "peft_type",
    "task_type",
    "inference_mode",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
}
"""Fields of a configuration that say nothing about what is trained."""
_OPTIONS: Final = {
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trainable_token_indices",
    "target_parameters": "target_parameters",
    "exclude_modules": "exclude_modules",
    "layers_to_transform": "layers_to_transform",
    "layers_pattern": "layers_to_transform",
    "bias": "bias",
}
"""Topics of fields that trainers are asked about."""
_LORA: Final = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
}
"""Fields of LoRA that every trainer of it has, or that variants are asked about."""
_NO_BIAS: Final = (None, "none")


class Lost(Record):
    """An option that a trainer does not carry out, and what that changes."""

    option: str
    change: str


class Acceptance(Record):
    """What one trainer takes of one recipe.

    Attributes:
        recipe: its name.
        trainer: identifier of the trainer.
        version: of the trainer that the facts are about.
        verdict: `accepts` (all of it, once `needs` is done), `partly` (it trains, without what is
            `lost`), `no` or `unknown`.
        own: whether the trainer's own code stands in for peft's.
        lost: options that it does not carry out.
        reasons: why it does not take it, or why nobody knows.
        needs: what to do so that what was asked for is trained.
        written: those of `needs` that the file of `peft-shop snippet --trainer` does by itself.
        cautions: what goes wrong under circumstances of which the recipe says nothing.
        basis: the facts it rests on, each with how it is known.
    """

    recipe: str
    trainer: str
    version: str
    verdict: Verdict
    own: bool = False
    lost: tuple[Lost, ...] = ()
    reasons: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    basis: tuple[Basis, ...] = ()

    def satisfies(self, *, partly: bool = False) -> bool:
        """Whether a demand is met: by all of the recipe, or `partly` as well."""
        return self.verdict == "accepts" or (partly and self.verdict == PARTLY)

    @property
    def obstacles(self) -> str:
        """What stands in the way of all of it, in words."""
        lost = [f"{one.option} is lost: {one.change.rstrip('.')}" for one in self.lost]
        texts = [text.rstrip(".") for text in self.reasons]
        return "; ".join(texts or lost)


# --- names ---


def resolve_trainer(catalog: Catalog, name: str) -> Trainer:
    """Trainer called `name` or one of its aliases; case, dots, hyphens and spaces are ignored.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    for trainer in catalog.trainers:
        names = (trainer.id, trainer.title, *trainer.aliases)
        if _fold(name) and _fold(name) in map(_fold, names):
            return trainer
    hint = None if catalog.trainers else "this catalog knows no trainers; compile it anew"
    raise UnknownNameError("trainer", name, catalog.trainer_by_id, hint=hint)


def _fold(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def resolve_trainer_demand(catalog: Catalog, text: str) -> str:
    """A demand such as `trl`, `TRL==1.15` or `axolotl:partly` in its usual spelling.

    Raises:
        UnknownNameError: there is no such trainer; names the nearest.
        QueryError: a part is missing or is none.
    """
    rest, colon, least = text.partition(":")
    name, equals, version = rest.partition(_SEPARATOR)
    if not name.strip() or (colon and not least.strip()) or (equals and not version.strip()):
        raise QueryError(
            "trainer: expected a trainer such as 'trl', 'trl==1.16.0' or 'trl:partly', "
            f"got {text!r}"
        )
    if equals and not _VERSION.fullmatch(version.strip()):
        raise QueryError(f"trainer: expected a version such as '1.16.0', got {version.strip()!r}")
    if colon and least.strip().lower() not in _PARTIAL:
        raise UnknownNameError("demand on a trainer", least, (PARTLY,))
    trainer = resolve_trainer(catalog, name)
    stated = f"{_SEPARATOR}{version.strip()}" if equals else ""
    return f"{trainer.id}{stated}{f':{PARTLY}' if colon else ''}"


def demanded_trainer(text: str) -> tuple[str, str | None, bool]:
    """Trainer, version and whether `partly` is enough, of what `resolve_trainer_demand` gave."""
    rest, colon, _ = text.partition(":")
    name, _, version = rest.partition(_SEPARATOR)
    return name, version or None, bool(colon)


# --- the evaluator ---


@dataclass(slots=True)
class _Case:
    """What speaks for and against a trainer."""

    trainer: Trainer
    own: bool = False
    lost: list[Lost] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    basis: list[Basis] = field(default_factory=list)

    def rest_on(self, topic: str, trainer_fact: TrainerFact | TrainerRule) -> None:
        source = self.trainer.sources[trainer_fact.source]
        self.basis.append(
            Basis(
                about=self.trainer.id,
                version=source.version or self.trainer.version,
                topic=topic,
                value=f"{trainer_fact.value}, {trainer_fact.how}",
                place=source.place,
                date=source.date,
            )
        )

    def judge(
        self, name: str, topic: str, trainer_fact: TrainerFact | TrainerRule, *, option: bool
    ) -> None:
        """Counts a fact for or against; without an option the rest can be trained."""
        self.rest_on(topic, trainer_fact)
        note = trainer_fact.note or _USUAL[trainer_fact.value]
        if trainer_fact.value == "unknown":
            self.doubts.append(f"{name}: {note}")
        elif trainer_fact.value in {"yes", "own"} or trainer_fact.needs is not None:
            self.own = self.own or trainer_fact.value == "own"
            if trainer_fact.needs is not None:
                because = "" if trainer_fact.value in {"yes", "own"} else f" Otherwise: {note}"
                self.needs.append(f"{trainer_fact.needs}{because}")
                if trainer_fact.written:
                    self.written.append(self.needs[-1])
        elif trainer_fact.value == "silent" or option:
            self.lost.append(Lost(option=name, change=note))
        else:
            self.refusals.append(f"{name}: {note}")

    def acceptance(self, recipe: TrainerRecipe) -> Acceptance:
        verdict: Verdict = "accepts"
        if self.refusals:
            verdict = "no"
        elif self.doubts:
            verdict = "unknown"
        elif self.lost:
            verdict = PARTLY
        refused = verdict == "no"
        return Acceptance(
            recipe=recipe.name,
            trainer=self.trainer.id,
            version=self.trainer.version,
            verdict=verdict,
            own=self.own,
            lost=() if refused else tuple(dict.fromkeys(self.lost)),
            reasons=tuple(dict.fromkeys(self.refusals or self.doubts)),
            needs=() if refused else tuple(dict.fromkeys(self.needs)),
            written=() if refused else tuple(dict.fromkeys(self.written)),
            cautions=() if refused else tuple(dict.fromkeys(self.cautions)),
            basis=tuple(dict.fromkeys(self.basis)),
        )


_USUAL: Final = {
    "yes": "It takes it.",
    "own": "It takes it.",
    "no": "There is no way to ask for it.",
    "reject": "It is refused.",
    "silent": "Something else is trained without a word.",
    "unknown": "Nobody looked it up.",
}
"""What a fact without a note says."""
_OPEN: Final = TrainerFact(value="unknown", note="Nobody looked it up.")


def accepts(
    catalog: Catalog, recipe: TrainerRecipe, trainer: Trainer, *, version: str | None = None
) -> Acceptance:
    """What `trainer` takes of `recipe`.

    Depends on the recipe and on the catalog's facts alone.

    Args:
        catalog: holds the facts.
        recipe: what is to be trained.
        trainer: the tool.
        version: that the user has; a caution tells where the facts are about another one.
    """
    case = _Case(trainer)
    if version is not None and version != trainer.version:
        case.cautions.append(
            f"The facts are about {trainer.title} {trainer.version}, not about {version}: try a "
            "few steps before you rely on them."
        )
    if trainer.retired is not None:
        case.cautions.append(trainer.retired)
    if recipe.models is not None and recipe.models not in trainer.models:
        trained = " and ".join(trainer.models)
        case.refusals.append(f"It trains {trained} models, no {recipe.models} models.")
        return case.acceptance(recipe)
    if recipe.method == FULL_FINETUNING:
        case.doubts.append("The facts are about adapters, not about full fine-tuning.")
        return case.acceptance(recipe)
    method = catalog.method_by_id[recipe.method]
    asked = _asked(recipe, method)
    for name, topic, fallback, option in asked:
        key, fact = _fact(trainer, topic, fallback)
        case.judge(name, key, fact, option=option)
    names = {topic for _, topic, _, _ in asked}
    if recipe.stored is not None and trainer.entry != "peft_config":
        if recipe.stored not in trainer.stored:
            known = f" (on record: {', '.join(trainer.stored)})" if trainer.stored else ""
            case.doubts.append(
                f"a base in {recipe.stored}: it is not on record that it loads one as it "
                f"comes{known}."
            )
    elif recipe.quantized:
        key, fact = _fact(trainer, "quantized_base", None)
        case.judge("a quantized base", key, fact, option=False)
    _rules(case, recipe, names)
    return case.acceptance(recipe)


def _rules(case: _Case, recipe: TrainerRecipe, topics: set[str]) -> None:
    """What circumstances change; open ones are told."""
    for rule in case.trainer.rules:
        about = topics.intersection(rule.topics)
        if rule.topics and not about:
            continue
        holds = recipe.condition(rule.when)
        if holds:
            name = ", ".join(sorted(about)) or recipe.method
            case.judge(f"{name}, where {_when(rule)}", rule.when, rule, option=False)
        elif holds is None:
            cure = f" {rule.needs}" if rule.needs else ""
            case.cautions.append(f"Where {_when(rule)}: {rule.note}{cure}")


def _when(rule: TrainerRule) -> str:
    return CONDITIONS[rule.when]


def _fact(trainer: Trainer, topic: str, fallback: str | None) -> tuple[str, TrainerFact]:
    """The fact about a topic, or about what stands for it, with its key."""
    for key in (topic, fallback):
        if key is not None and key in trainer.facts:
            return key, trainer.facts[key]
    return topic, _OPEN


def _asked(recipe: TrainerRecipe, method: Method) -> list[tuple[str, str, str, bool]]:
    """Name, topic, what stands for it, and whether the rest trains without it."""
    found: list[tuple[str, str, str, bool]] = [(method.title, method.id, OTHER_METHODS, False)]
    titles = {variant.id: variant.title for variant in method.variants}
    found += [
        (titles.get(variant, variant), variant, OTHER_VARIANTS, False)
        for variant in recipe.variants
    ]
    spoken_for = {
        str(condition.config)
        for variant in method.variants
        if variant.id in recipe.variants
        for condition in variant.when
        if condition.config is not None
    }
    for name, value in (recipe.config or {}).items():
        if value in (None, [], {}, ()) or name in _WRAPPING or name in spoken_for:
            continue
        if name in _OPTIONS:
            if name != "bias" or value not in _NO_BIAS:
                found.append((name, _OPTIONS[name], OTHER_OPTIONS, True))
        elif name == "target_modules" and isinstance(value, str):
            found.append((name, "target_pattern", OTHER_OPTIONS, True))
        elif recipe.method == PLAIN and name not in _LORA:
            found.append((name, name, OTHER_OPTIONS, True))
    return list(dict.fromkeys(found))


def methods_taken(catalog: Catalog, trainer: Trainer) -> list[Acceptance]:
    """What a trainer takes of every method as such."""
    return [
        accepts(catalog, TrainerRecipe(name=method.id, method=method.id), trainer)
        for method in catalog.methods
    ]


def variants_taken(catalog: Catalog, trainer: Trainer) -> list[Acceptance]:
    """What a trainer takes of every variant of LoRA as such."""
    return [
        accepts(
            catalog, TrainerRecipe(name=variant.id, method=PLAIN, variants=(variant.id,)), trainer
        )
        for variant in catalog.method_by_id[PLAIN].variants
    ]
