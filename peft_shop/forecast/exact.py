"""What is exact: counts and the checkpoint's size, by injection into a model without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.forecast.checkpoint import checkpoint_bytes
from peft_shop.preflight.saving import saved_state
from peft_shop.preflight.wrapping import inject
from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftConfig

    from peft_shop.model.inspection import Target
    from peft_shop.records import Json

__all__ = ["Counts", "exact_counts"]


class Counts(Record):
    """Exact figures of one configuration on one model, under the installed peft.

    Attributes:
        trainable_parameters: as `get_nb_trainable_parameters` counts them.
        total_parameters: base and adapter, by the same function.
        checkpoint_bytes: size of `adapter_model.safetensors`, header included [B].
    """

    trainable_parameters: int
    total_parameters: int
    checkpoint_bytes: int


def exact_counts(
    target: Target, config: PeftConfig | Mapping[str, Json], *, autocast_adapter_dtype: bool = True
) -> Counts:
    """Counts and checkpoint size of `config` on `target`.

    Args:
        target: what `inspect_model` gave.
        config: the configuration, which is not changed.
        autocast_adapter_dtype: whether adapters of a half-precision base are float32.

    Raises:
        ConfigError: the configuration cannot be injected into the model.
    """
    model = inject(target.skeleton(), config, autocast_adapter_dtype=autocast_adapter_dtype)
    trainable, total = model.get_nb_trainable_parameters()
    return Counts(
        trainable_parameters=int(trainable),
        total_parameters=int(total),
        checkpoint_bytes=checkpoint_bytes(saved_state(model)),
    )
