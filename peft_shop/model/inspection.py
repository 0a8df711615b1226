"""A user's model -> what is known of its structure, and fresh instances without weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_shop.errors import MissingExtraError

for _package in ("torch", "transformers"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "peft", "inspecting a model")

from peft_shop.model.checkpoints import open_checkpoint  # noqa: E402 - as below
from peft_shop.model.description import describe  # noqa: E402 - needs both packages
from peft_shop.model.loading import load_model  # noqa: E402 - as above
from peft_shop.model.skeletons import meta_copy  # noqa: E402 - as above

if TYPE_CHECKING:
    from torch import nn

    from peft_shop.catalog.features import TaskType
    from peft_shop.model.structure import Structure

__all__ = ["Target", "inspect_model"]


class Target:
    """A model that was looked at: its structure, and instances of it without weights.

    Attributes:
        structure: what was understood of it.
        config: its configuration of transformers or diffusers, or `None`.
    """

    structure: Structure
    config: Any

    def __init__(self, structure: Structure, config: Any, instance: nn.Module) -> None:
        self.structure = structure
        self.config = config
        self._instance = instance

    def __repr__(self) -> str:
        return f"<Target {self.structure.name}: {self.structure.parameters:,} parameters>"

    def skeleton(self) -> nn.Module:
        """A new instance of the model on the meta device, independent of all others."""
        return meta_copy(self._instance)


def inspect_model(
    model: Target | nn.Module | tuple[type[nn.Module], Any] | str | Path | Any,
    *,
    trust_remote_code: bool = False,
    task_type: TaskType | None = None,
) -> Target:
    """What there is in a model: its layers by role, shapes, sizes; no weight is read or fetched.

    Args:
        model: an instance (its weights are neither changed nor copied), a configuration of
            transformers or diffusers, `(class, configuration)`, a local folder with a `config.json`
            or a pipeline's `model_index.json`, or the id of a model on the hub, of which only
            configuration files are fetched; a `Target` is given back as it is.
        trust_remote_code: whether code that comes with the model may be run.
        task_type: the peft task that it is to be fine-tuned for. Chooses the class where only a
            configuration is given; by default the class that the configuration names.

    Raises:
        ModelError: it cannot be inspected; the message says why and what to do.
        MissingExtraError: a library that it needs is not installed.
    """
    if isinstance(model, Target):
        return model
    if isinstance(model, str | Path):
        model = open_checkpoint(model)
    loaded = load_model(model, trust_remote_code=trust_remote_code, task_type=task_type)
    return Target(describe(loaded, task_type), loaded.config, loaded.instance)
