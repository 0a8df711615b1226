"""The ways from an adapter to an engine: as it is, converted to LoRA by peft or here, merged.

Facts about engines and conversions are data of the catalog; what each says of an adapter is
gathered in `cases.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.serve.adapter import variants_of
from peft_shop.serve.cases import KINDS, PEFT, Basis, Case, Way, ask_capability, judge_rules
from peft_shop.serve.loading import load
from peft_shop.serve.matching import ask_origin, ask_serving
from peft_shop.serve.ranks import (
    NO_PLACE,
    TOLERANCE,
    exact_rule,
    formula,
    loss,
    matching_rules,
    rank_by,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Conversion, Engine
    from peft_shop.catalog.methods import Fidelity
    from peft_shop.serve.adapter import Adapter
    from peft_shop.serve.bases import Base

__all__ = ["KINDS", "Basis", "Way", "conversions", "merged", "native", "whole_model"]

_EXTRACTABLE: Final = "extractable_to_lora"


# --- as it is ---


def native(engine: Engine, adapter: Adapter) -> Way:
    """Loading the adapter as peft saved it."""
    case = Case()
    load(case, engine, adapter)
    return case.way("native")


# --- converted to LoRA ---


def conversions(catalog: Catalog, engine: Engine, adapter: Adapter) -> Iterable[Way]:
    """Loading a LoRA that is made of the adapter: by peft, and by `peft-shop convert`."""
    rules = matching_rules(catalog.conversions, adapter, "convert")
    if any(rule.initial_model for rule in rules):
        # the other way asks for a folder that must have been saved before training
        yield _extracted(catalog, engine, adapter)
        yield _against_start(catalog, engine, adapter, rules)
        return
    yield _by_peft(catalog, engine, adapter, rules)
    yield _extracted(catalog, engine, adapter)


def _by_peft(
    catalog: Catalog, engine: Engine, adapter: Adapter, rules: Sequence[Conversion]
) -> Way:
    """Loading the LoRA that peft's own conversion makes."""
    case = Case()
    ask_origin(case, adapter)
    ask_capability(case, catalog, adapter, "convertible_to_lora", "peft does not convert it")
    judge_rules(case, catalog, rules)
    if case.refusals:
        return case.way("convert", by="peft", exact=False)
    exact = exact_rule(catalog.conversions, adapter, "convert")
    rank = _load_lora(case, catalog, engine, adapter, exact)
    shown = rank if rank is not None else formula(exact) if exact is not None else "..."
    case.conditions.insert(0, f"Convert with peft: save_as_lora(folder, model, rank={shown}).")
    if exact is not None and formula(exact) != "r":
        case.warnings.append("peft refuses a rank above the smaller side of any adapted layer.")
    return case.way("convert", by="peft", exact=_is_exact(case, exact), rank=rank)


def _extracted(catalog: Catalog, engine: Engine, adapter: Adapter) -> Way:
    """Loading the LoRA that `peft-shop convert` writes: the change of each weight, factorised."""
    case = Case()
    method = catalog.method_by_id[adapter.method]
    ask_origin(case, adapter)
    fidelities = _fidelities(catalog, adapter)
    kinds = list(dict.fromkeys(kind for fidelity in fidelities for kind in fidelity.delta))
    case.refusals += [NO_PLACE[kind] for kind in kinds if kind in NO_PLACE]
    if not case.refusals and _EXTRACTABLE in method.capabilities:
        ask_capability(
            case, catalog, adapter, _EXTRACTABLE, "no LoRA holds its update", partly=True
        )
    judge_rules(case, catalog, matching_rules(catalog.conversions, adapter, "extract"))
    if not fidelities:
        case.doubts.append("nobody measured how well a LoRA holds its update")
    for fidelity in fidelities:
        case.basis.append(_measured(catalog, fidelity))
    if case.refusals:
        return case.way("convert", by="peft-shop", exact=False)
    exact = exact_rule(catalog.conversions, adapter)
    rank = _load_lora(case, catalog, engine, adapter, exact, renamed=True)
    if "embedding" in kinds:
        case.doubts.append(
            "right only where the model's head is not tied to its embedding: peft-shop convert "
            "measures it"
        )
    wanted = "auto" if rank is None else str(rank)
    case.conditions.insert(
        0,
        f"Convert: peft-shop convert ADAPTER --base MODEL --to lora --rank {wanted} "
        f"--engine {engine.id} -o OUT.",
    )
    if "base_bias" in kinds:
        case.conditions.append("No adapted layer may have a bias, which it changes as well.")
    return case.way("convert", by="peft-shop", exact=_is_exact(case, exact), rank=rank)


def _is_exact(case: Case, exact: Conversion | None) -> bool:
    return exact is not None and not case.doubts


def _load_lora(
    case: Case,
    catalog: Catalog,
    engine: Engine,
    adapter: Adapter,
    exact: Conversion | None,
    *,
    renamed: bool = False,
) -> int | None:
    """Asks the engine about the LoRA that a conversion makes; its rank, `None` where it is open."""
    if exact is None:
        return _load_approximation(case, catalog, engine, adapter, renamed=renamed)
    rank = rank_by(exact, adapter) if adapter.stated else None
    load(case, engine, adapter.converted(rank, renamed=renamed))
    if case.excess is not None:
        case.excess = None
        case.doubts.append(
            f"exact at rank {rank}, which is more than the engine takes; what a lower rank loses "
            "depends on the adapter: peft-shop convert measures it"
        )
    case.basis.append(
        Basis(
            about=PEFT,
            version=catalog.peft_version,
            topic="exact rank",
            value=formula(exact),
            place=exact.level,
        )
    )
    return rank


def _load_approximation(
    case: Case, catalog: Catalog, engine: Engine, adapter: Adapter, *, renamed: bool
) -> int | None:
    """As `_load_lora`, where no rank is exact: judged by what was seen to be lost.

    Measured under one setting on one layer, a loss beyond the tolerance speaks against it, since
    larger layers lose more; one within it does not yet speak for it.
    """
    most = max(engine.ranks.choices, default=engine.ranks.most)
    found = loss(_fidelities(catalog, adapter), most)
    load(case, engine, adapter.converted(None if found is None else found.rank, renamed=renamed))
    rules = matching_rules(catalog.conversions, adapter, "convert")
    rules += matching_rules(catalog.conversions, adapter, "extract")
    because = [rule.because for rule in rules if rule.verdict == "approximate" and rule.because]
    why = f" ({because[0].rstrip('.')})" if because else ""
    if found is None:
        case.doubts.append(f"no rank is known to be exact, and no error was measured{why}")
        return None
    if found.error > TOLERANCE:
        case.refusals.append(f"{found}, and larger layers lose more{why}")
    else:
        case.doubts.append(
            f"{found}, and larger layers may lose more: peft-shop convert measures it on yours{why}"
        )
    return found.rank


def _fidelities(catalog: Catalog, adapter: Adapter) -> tuple[Fidelity, ...]:
    """What was measured of an adapter's variants, recognised where nobody named them."""
    method = catalog.method_by_id[adapter.method]
    return method.fidelities(adapter.variants or variants_of(method, adapter.config))


def _measured(catalog: Catalog, fidelity: Fidelity) -> Basis:
    """What was measured of the update, as a fact."""
    # a rank that follows from the settings is told by its rule
    rank = f", rank {fidelity.rank} of {min(fidelity.shape)}" if fidelity.errors else ""
    return Basis(
        about=PEFT,
        version=catalog.peft_version,
        topic="update",
        value=f"{' and '.join(kind.replace('_', ' ') for kind in fidelity.delta)}{rank}",
        place="verified" if fidelity.rank is not None else "declared",
    )


def _against_start(
    catalog: Catalog, engine: Engine, adapter: Adapter, rules: Sequence[Conversion]
) -> Way:
    """Saving against the untrained adapter, where the start changed the base."""
    case = Case()
    judge_rules(case, catalog, [rule for rule in rules if not rule.initial_model])
    patterned = {"rank_pattern", "alpha_pattern"} & set(adapter.traits)
    if patterned and "rslora" in adapter.traits:
        case.refusals.append("rslora: peft refuses it together with patterns")
    outcome = adapter.saved_against_start()
    if not case.refusals:
        load(case, engine, outcome)
    case.basis += [
        Basis(
            about=PEFT,
            version=catalog.peft_version,
            topic="convertible_to_lora",
            value=rule.verdict,
            place=rule.level,
        )
        for rule in rules
        if rule.initial_model
    ]
    case.conditions.insert(
        0,
        "Save the adapter once before training, with init_lora_weights set to true, and give that "
        "folder to save_pretrained as path_initial_model_for_weight_conversion: a LoRA of twice "
        "the rank results.",
    )
    case.warnings += [
        f"Do not use peft's save_as_lora on it: {rule.because}"
        for rule in rules
        if rule.initial_model
    ]
    return case.way("convert", by="peft", rank=max(outcome.ranks, default=None))


# --- merged ---


def merged(catalog: Catalog, engine: Engine, adapter: Adapter) -> Way:
    """Serving the whole model with the adapter merged into it."""
    case = Case()
    ask_capability(case, catalog, adapter, "merging", "it does not merge into the base")
    judge_rules(case, catalog, matching_rules(catalog.conversions, adapter, "merge"))
    ask_serving(case, engine, adapter.base)
    ask_origin(case, adapter)
    case.conditions += [
        "Merge it into the base in fp32 or bf16 (merge_and_unload) and save the whole model.",
        f"{engine.title} must serve the base model itself.",
    ]
    case.warnings += [
        "Costs a full copy of the model for every task.",
        "Lossy on a 4-bit base: load the base in bf16 or fp32, merge, and quantize again.",
    ]
    return case.way("merge")


def whole_model(engine: Engine, base: Base | None = None) -> Way:
    """Serving what full fine-tuning leaves: a whole model."""
    case = Case()
    ask_serving(case, engine, base)
    case.conditions.append(f"{engine.title} must serve the base model itself.")
    case.warnings.append("Costs a full copy of the model for every task.")
    return case.way("merge")
