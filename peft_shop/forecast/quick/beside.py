"""Forecast beside a traced base: what plain LoRA took, and what another adapter adds to it.

Blocks of which no closed form knows were run with one adapter; counts, files and what an adapter
adds follow from shapes all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.errors import ConfigError
from peft_shop.forecast.constants import constants
from peft_shop.forecast.intervals import memory_interval
from peft_shop.forecast.quick.base_memory import base_bytes
from peft_shop.forecast.quick.closed_forms import counted, saved_bytes
from peft_shop.forecast.quick.methods.registry import adapter_of
from peft_shop.forecast.quick.spread import ShapeSpread, shape_of
from peft_shop.forecast.records import Forecast, Term
from peft_shop.forecast.reference import plain_lora
from peft_shop.forecast.traced import traced_base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.forecast.records import Settings, TermName
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["beside", "require_plain"]

_TRACED = (
    "dry runs of plain LoRA at this length told what the blocks take, what this adapter adds is "
    "reckoned; other lengths were not traced, nor an 8-bit base"
)


def beside(structure: Structure, config: Mapping[str, Json], settings: Settings) -> Forecast | None:
    """What training `config` costs on a model whose base was traced at these settings.

    `None` where it was not.

    Args:
        structure: of the base model.
        config: a peft configuration as JSON.
        settings: the training step.

    Raises:
        ConfigError: there is no closed form for the adapter, or it changes what the blocks do.
    """
    base = traced_base(structure, settings)
    if base is None or not base.knows(settings):
        return None
    method = str(config["peft_type"]).lower()
    adapter = adapter_of(structure, config)
    shape = shape_of(structure, adapter, settings)
    require_plain(method, prompts=bool(shape.prompt or shape.prefix))
    plain = settings.model_copy(update={"optimizer": "adamw"})
    lora = shape_of(structure, adapter_of(structure, plain_lora(structure)), plain)
    own = float(ShapeSpread(structure, [lora]).added(plain)[0])
    added = float(ShapeSpread(structure, [shape]).added(settings)[0])
    value = base.peak(settings) + added - own
    regime = constants().checkpointed if settings.gradient_checkpointing else constants().whole
    held, weights = round(shape.held), round(base_bytes(structure, settings))
    sizes: dict[TermName, int] = {
        "base": weights,
        "adapter": held,
        "optimizer": round(shape.trained * shape.states),
    }
    sizes["activations_other"] = round(value) - sum(sizes.values())
    trained, total = counted(structure, adapter)
    return Forecast(
        method=method,
        way="dry_run",
        settings=settings,
        trainable_parameters=trained,
        total_parameters=total,
        checkpoint_bytes=saved_bytes(adapter, settings),
        peak_memory=memory_interval(value, method, structure, settings, regime),
        terms=tuple(Term(name=name, bytes=size) for name, size in sizes.items() if size),
        warnings=(_TRACED, *dict.fromkeys(adapter.notes)),
    )


def require_plain(method: str, *, prompts: bool) -> None:
    """Raise unless the candidate differs from plain LoRA by what it adds alone.

    Raises:
        ConfigError: it lengthens sequences, of which the traced ones tell nothing.
    """
    if prompts:
        msg = (
            f"{method}: it lengthens sequences, for which this model's blocks were not traced; "
            "make a dry run, which needs torch"
        )
        raise ConfigError(msg)
