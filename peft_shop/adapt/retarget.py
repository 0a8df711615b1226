"""Run or method -> configuration for one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.adapt.choice import choose_modules
from peft_shop.adapt.drafts import Draft, RetargetCase
from peft_shop.adapt.intent import intent_of
from peft_shop.adapt.limits import fit_values
from peft_shop.adapt.naming import name_targets
from peft_shop.adapt.plans import plan_fields
from peft_shop.adapt.records import Retargeted, TargetOptions
from peft_shop.adapt.references import fit_references
from peft_shop.adapt.refusals import refuse, refuse_base, refuse_optimizer
from peft_shop.catalog.runs import Run
from peft_shop.errors import ConfigError
from peft_shop.upstream.defaults import class_defaults
from peft_shop.upstream.tables import own_targets
from peft_shop.upstream.targets import names_of
from peft_shop.upstream.versions import version_key

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.model.structure import Structure

__all__ = ["retarget"]

_WITHOUT_TARGETS: Final = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING",
    "PROMPT_TUNING", "P_TUNING", "SHADOW", "TRAINABLE_TOKENS", "XLORA",
}  # fmt: skip
"""Methods that find their places by themselves, or adapt no single layers."""
_CHOICE: Final = "class defaults: none of the measured recipes"
_UNMEASURED: Final = "not measured anywhere: class defaults"


def retarget(
    catalog: Catalog,
    subject: Run | Method,
    structure: Structure,
    options: TargetOptions | None = None,
) -> Retargeted:
    """Configuration of `subject` that is valid on the model of `structure`.

    A run's recipe keeps what it adapted, by role, and every value that the model allows; each
    difference is told once. A method gets its class defaults and what it needs besides.

    Args:
        catalog: where the method's fields and capabilities are looked up.
        subject: a run of a method, or a method without a run.
        structure: what is known of the model.
        options: what is to be otherwise than measured.

    Raises:
        ConfigError: the run is one of full fine-tuning, which has no configuration.
    """
    case = _case(catalog, subject, structure, options or TargetOptions())
    refuse(case)
    plan_fields(case)
    if case.peft_type not in _WITHOUT_TARGETS:
        choose_modules(case, intent_of(case))
        if case.groups or case.parameters:
            refuse_optimizer(case)
            name_targets(case)
            fit_values(case)
        fit_references(case)
    refuse_base(case)
    _keep_to_version(case, catalog.peft_version)
    _resolve(case)
    tried = _tried(case, catalog)
    return Retargeted(
        method=case.method.id,
        config={"peft_type": case.peft_type, **dict(sorted(case.draft.config.items()))},
        resolved=case.resolved,
        changes=case.draft.changes(),
        problems=tuple(case.draft.problems),
        notes=tuple(case.draft.notes),
        tried=tried,
    )


def _tried(case: RetargetCase, catalog: Catalog) -> str | None:
    """What was tried on a tiny model of this architecture; a failure there is a problem here."""
    model = catalog.tried_by_architecture.get(case.structure.architecture)
    if model is None or case.method.id in model.refused:
        return None
    failure = model.failed.get(case.method.id)
    if failure is not None:
        case.draft.problem(f"with its defaults it failed on a tiny {model.title}: {failure}")
        return None
    return f"with its defaults it trained, was saved and loaded again on a tiny {model.title}"


def _case(
    catalog: Catalog, subject: Run | Method, structure: Structure, options: TargetOptions
) -> RetargetCase:
    run = subject if isinstance(subject, Run) else None
    recipe = run.recipe if run else None
    if recipe is not None and recipe.peft_type is None:
        msg = (
            "full fine-tuning has no peft configuration that could be adapted to a model; "
            "`peft-shop forecast` tells what it costs there"
        )
        raise ConfigError(msg)
    method = catalog.method_by_id[run.method] if run else subject
    assert not isinstance(method, Run)  # noqa: S101 - tells mypy what the line above decides
    draft = Draft(
        recipe.config if recipe else {},
        class_defaults(method.peft_type),
        recipe.resolved if recipe else None,
    )
    if recipe is None:
        measured = any(one.method == method.id for one in catalog.runs)
        draft.note(_CHOICE if measured else _UNMEASURED)
    return RetargetCase(
        method=method,
        recipe=recipe,
        variants=run.variants if run else (),
        structure=structure,
        options=options,
        names=names_of(structure),
        draft=draft,
    )


def _resolve(case: RetargetCase) -> None:
    """Say what peft will fill in where the draft names no modules, by its own table."""
    if case.draft.value("target_modules") is not None:
        return
    for name, value in own_targets(case.peft_type, case.structure.model_type).items():
        if case.draft.value(name) is None:
            case.resolved.setdefault(name, value)


def _keep_to_version(case: RetargetCase, newest: str) -> None:
    """Leave out fields that the user's peft does not know; one that matters is a problem."""
    version = case.options.peft_version
    if version is None:
        return
    for name in sorted(case.draft.config):
        since = case.method.fields.get(name, newest)
        if version_key(since) <= version_key(version):
            continue
        if case.draft.config[name] == class_defaults(case.peft_type).get(name):
            case.draft.drop(
                name, f"peft {version} does not know it; it is the default of later ones"
            )
        else:
            case.draft.problem(f"{name} needs peft {since} or newer, not {version}")
