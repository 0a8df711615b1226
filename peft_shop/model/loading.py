"""What a user hands over -> an instance on the meta device and its configuration."""

from __future__ import annotations

import contextlib
import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PretrainedConfig
from transformers.initialization import no_init_weights

from peft_shop.errors import ModelError
from peft_shop.model.checkpoints import Checkpoint
from peft_shop.model.choosing import class_for, unmapped
from peft_shop.model.configurations import configuration_of
from peft_shop.model.datatypes import ASSUMED, most_of, stated_dtype
from peft_shop.model.limits import check_sizes
from peft_shop.model.quantized import quantize_skeleton
from peft_shop.model.quiet import quiet
from peft_shop.model.skeletons import meta_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.features import TaskType

__all__ = ["Loaded", "load_model"]

Library = Literal["transformers", "diffusers", "torch"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can be inspected.

    Attributes:
        name: how the user named it, or its class.
        instance: on the meta device.
        config: of transformers or diffusers, or `None`.
        library: where its class comes from.
        dtype: that it states; `None` where it states none, and for an instance of the user's.
        assumed: whether its data type is an assumption.
        checkpoint: where its files are; `None` where it came otherwise.
        remarks: what a reader should know of the way it was read.
    """

    name: str
    instance: nn.Module
    config: Any
    library: Library
    dtype: str | None = None
    assumed: bool = False
    checkpoint: Checkpoint | None = None
    remarks: tuple[str, ...] = ()


def load_model(
    model: Any, *, trust_remote_code: bool = False, task_type: TaskType | None = None
) -> Loaded:
    """An instance on the meta device of what `model` names; see `inspect_model`.

    Raises:
        ModelError: it cannot be inspected; the message says why and what to do.
        MissingExtraError: a library that it needs is not installed.
    """
    with quiet():
        return _load(model, trust_remote_code=trust_remote_code, task_type=task_type)


def _load(model: Any, *, trust_remote_code: bool, task_type: TaskType | None) -> Loaded:
    if isinstance(model, nn.Module):
        return _copied(model)
    checkpoint = model if isinstance(model, Checkpoint) else None
    if checkpoint is not None:
        place = checkpoint.place
        check_sizes(checkpoint.content, place)
        stated = stated_dtype(checkpoint.content, place) or most_of(checkpoint.stored_types)
        model = configuration_of(checkpoint, trust_remote_code=trust_remote_code)
    else:
        place = "the configuration"
        stated = None
    remarks: tuple[str, ...] = ()
    if isinstance(model, tuple):
        if len(model) != 2 or not isinstance(model[0], type) or not issubclass(model[0], nn.Module):
            raise ModelError(f"expected (class of a model, configuration), got {_short(model)}")
        cls, config = model
    elif _is_config(model):
        config = model
        cls = class_for(config, task_type=task_type, trust_remote_code=trust_remote_code)
        remarks = unmapped(config, cls)
    else:
        raise ModelError(
            f"cannot inspect {_short(model)}: expected a model, a configuration of transformers or "
            "diffusers, (class, configuration), a folder or a hub id"
        )
    if checkpoint is None and (_is_config(config) or isinstance(config, dict)):
        check_sizes(config, place)
        stated = stated_dtype(config, place)
    instance = _build(cls, config, stated or ASSUMED)
    library = _library(instance)
    return Loaded(
        name=type(instance).__name__ if checkpoint is None else checkpoint.name,
        instance=instance,
        config=getattr(instance, "config", config),
        library=library,
        dtype=stated,
        assumed=stated is None and library != "torch",
        checkpoint=checkpoint,
        remarks=(*remarks, *(() if checkpoint is None else checkpoint.remarks)),
    )


def _copied(model: nn.Module) -> Loaded:
    """The model on meta, whatever was done to the instance since it was made."""
    _refuse_wrapped(model)
    try:
        instance = meta_copy(model)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{type(model).__name__} holds something that cannot be copied: {_first_line(error)}; "
            "pass (class, configuration) instead"
        ) from error
    config, library = getattr(instance, "config", None), _library(instance)
    if not isinstance(config, PretrainedConfig) and library != "diffusers":
        config = None  # something else of that name
    return Loaded(type(model).__name__, instance, config, library)


def _is_config(thing: Any) -> bool:
    return isinstance(thing, PretrainedConfig) or (
        isinstance(thing, dict) and "_class_name" in thing
    )


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) < 60 else f"{text[:57]}..."


def _library(model: nn.Module) -> Library:
    for cls in type(model).__mro__:
        top = cls.__module__.partition(".")[0]
        if cls.__name__ == "PreTrainedModel" and top == "transformers":
            return "transformers"
        if cls.__name__ == "ModelMixin" and top == "diffusers":
            return "diffusers"
    return "torch"


def _refuse_wrapped(model: nn.Module) -> None:
    if "peft" not in sys.modules:
        return  # nothing can have been wrapped, and loading peft takes seconds
    from peft import PeftModel  # noqa: PLC0415 - see above
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer  # noqa: PLC0415 - see above

    for name, module in model.named_modules():
        if isinstance(module, PeftModel | BaseTuner | BaseTunerLayer):
            where = f" ({name} is a {type(module).__name__})" if name else ""
            raise ModelError(
                f"{type(model).__name__} has been wrapped by peft already{where}; pass the base "
                "model: `model.unload()` gives it back"
            )


def _build(cls: type[nn.Module], config: Any, dtype: str) -> nn.Module:
    """A new instance on the meta device, in `dtype`; `config` is not changed."""
    with _meta(), quiet():  # again: diffusers sets its own level when it is imported
        try:
            return _construct(cls, copy.deepcopy(config), getattr(torch, dtype))
        except ImportError as error:
            raise ModelError(
                f"{cls.__name__} needs a package that is not installed: {_first_line(error)}"
            ) from error
        except (
            ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError,
            OSError,
            RuntimeError, StrictDataclassError, TypeError, ValueError,
        ) as error:  # fmt: skip
            raise ModelError(
                f"{cls.__name__} cannot be built from this configuration: "
                f"{type(error).__name__}: {_first_line(error)}; check its sizes and its class"
            ) from error


def _construct(cls: type[nn.Module], config: Any, dtype: torch.dtype) -> nn.Module:
    if hasattr(cls, "from_config") and not hasattr(cls, "_from_config"):
        # as its loader does: made in torch's own type, then turned
        return cls.from_config(dict(config) if isinstance(config, dict) else config).to(dtype)
    if hasattr(cls, "_from_config"):
        with no_init_weights():
            made = cls._from_config(config, dtype=dtype)
        made.tie_weights()
        quantize_skeleton(made, config)
        return made
    if isinstance(config, dict):
        return cls(**config)
    return cls(config)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _meta() -> Iterator[None]:
    """Modules made herein are on the meta device; the caller's default type is kept."""
    before = torch.get_default_dtype()
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)
