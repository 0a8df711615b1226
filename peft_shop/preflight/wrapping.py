"""`get_peft_model` on a model without weights: the adapter's true shapes at hardly any cost."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from peft_shop.errors import ConfigError, WeightsNeededError
from peft_shop.preflight.stand_ins import standing_in
from peft_shop.upstream.configs import config_from_dict

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

    from peft_shop.records import Json

__all__ = ["REFUSALS", "as_config", "give_values", "inject", "refusal"]

REFUSALS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    StopIteration,  # of a search for a weight in a layer that has none
    TypeError,
    ValueError,
)
"""What peft, a model or an adapter raises for what it cannot work with."""


def as_config(config: PeftConfig | Mapping[str, Json]) -> PeftConfig:
    """A new configuration object that peft may change.

    Raises:
        ConfigError: the installed peft cannot make it; see `configs.config_from_dict`.
    """
    if isinstance(config, Mapping):
        return config_from_dict(config)
    return copy.deepcopy(config)


def inject(
    model: Any,
    config: PeftConfig | Mapping[str, Json],
    *,
    adapter_name: str = "default",
    autocast_adapter_dtype: bool = True,
) -> PeftModel:
    """`model`, wrapped in place as `get_peft_model` would wrap it, all on the meta device.

    Names, shapes, dtypes and what is trainable are those of an adapter on the real model. Nothing
    is initialised, decomposed or allocated. `config` is left as it is.

    Args:
        model: on the meta device. It is of no use after an error.
        config: a configuration, or the fields of one with `peft_type`.
        adapter_name: name of the adapter.
        autocast_adapter_dtype: as for `get_peft_model`: adapters of a half-precision model are
            float32.

    Raises:
        WeightsNeededError: the method's set-up reads weights in a way that is not known here.
        ConfigError: the model is not on meta, or peft refuses the configuration on this model.
    """
    own = as_config(config)
    places = {str(parameter.device) for parameter in model.parameters()}
    if places - {"meta"}:
        msg = (
            f"the model has parameters on {', '.join(sorted(places))}; give a model made under "
            "torch.device('meta'), such as Target.skeleton()"
        )
        raise ConfigError(msg)
    # what it says of another model would only draw a warning
    own.base_model_name_or_path = None
    method = str(own.peft_type.value)
    try:
        with standing_in(own):
            return peft.get_peft_model(
                model,
                own,
                adapter_name=adapter_name,
                autocast_adapter_dtype=autocast_adapter_dtype,
            )
    except REFUSALS as error:
        # torch's own words for what cannot be known without numbers
        if isinstance(error, RuntimeError | TypeError) and "meta" in str(error).lower():
            said = f"{type(error).__name__}: {error}"
            msg = f"{method} cannot be wrapped around a model without weights: {said}"
            raise WeightsNeededError(msg) from error
        raise refusal(error, own, model) from error


def give_values(model: Any) -> None:
    """Give numbers to the few tensors whose values decide about sizes.

    FRoD (peft 0.21.2) keeps the shape of its square sparse factor in a tensor and reads it in each
    pass; the factor is as wide as the other factors that it stands between.
    """
    for module in model.modules():
        sizes = getattr(module, "frod_s_size", None)
        if sizes is None or not isinstance(module, BaseTunerLayer):
            continue
        for name in list(sizes.keys()):
            width = module.in_features  # peft's own count, which knows every kind of layer
            sizes[name] = torch.tensor([width, width], device="cpu")


def refusal(error: Exception, config: Any, model: Any) -> ConfigError:
    """What to raise where peft cannot work with `config` on `model`: its words, and what to do."""
    said = f"{type(error).__name__}: {error}"
    method = str(config.peft_type.value)
    hint = ""
    if isinstance(error, KeyError) and getattr(config, "target_modules", ...) is None:
        hint = "; peft chooses no modules for this kind of model: name target_modules"
    return ConfigError(
        f"peft {peft.__version__} refuses {method} on {type(model).__name__}: {said}{hint}"
    )
