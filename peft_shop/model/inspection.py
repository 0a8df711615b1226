"""A user's model -> what is known of its structure, and fresh instances without weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_shop.errors import MissingExtraError
from peft_shop.model.cache import cached_structure, keep_structure
from peft_shop.model.common_types import structure_from
from peft_shop.model.sources import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from peft_shop.catalog.features import TaskType
    from peft_shop.model.loading import Loaded
    from peft_shop.model.structure import Structure

__all__ = ["Target", "inspect_model"]


class Target:
    """A model that was looked at: its structure, and instances of it without weights.

    Attributes:
        structure: what was understood of it.
        from_files: whether it is what a folder or the hub says, with no code of its own; what is
            found of such a model may be kept.
    """

    structure: Structure
    from_files: bool

    def __init__(
        self,
        structure: Structure,
        config: Any = None,
        instance: nn.Module | None = None,
        *,
        load: Callable[[], Loaded] | None = None,
        from_files: bool = False,
    ) -> None:
        """A target of an instance on the meta device, or of one that `load` makes when asked."""
        self.structure = structure
        self._config = config
        self._instance = instance
        self._load = load
        self.from_files = from_files

    def __repr__(self) -> str:
        return f"<Target {self.structure.name}: {self.structure.parameters:,} parameters>"

    @property
    def config(self) -> Any:
        """Its configuration of transformers or diffusers, or `None`.

        Raises:
            ModelError: it cannot be made.
            MissingExtraError: a library that it needs is not installed.
        """
        self._made()
        return self._config

    def skeleton(self) -> nn.Module:
        """A new instance of the model on the meta device, independent of all others.

        Raises:
            ModelError: it cannot be made.
            MissingExtraError: a library that it needs is not installed.
        """
        from peft_shop.model.skeletons import meta_copy  # noqa: PLC0415 - torch only where needed

        return meta_copy(self._made())

    def _made(self) -> nn.Module:
        if self._load is not None:
            loaded = self._load()
            self._config, self._instance, self._load = loaded.config, loaded.instance, None
        return self._instance


def inspect_model(
    model: Target | nn.Module | tuple[type[nn.Module], Any] | str | Path | Any,
    *,
    trust_remote_code: bool = False,
    task_type: TaskType | None = None,
) -> Target:
    """What there is in a model: its layers by role, shapes, sizes; no weight is read or fetched.

    A folder or an id of a common model type, or one that was inspected before, is understood
    without torch; an instance is made when it is asked for.

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
    if not isinstance(model, str | Path):
        return _inspected(model, trust_remote_code=trust_remote_code, task_type=task_type)
    checkpoint = open_checkpoint(model)
    alone = task_type is None and not checkpoint.remote
    known = (structure_from(checkpoint) or cached_structure(checkpoint)) if alone else None
    if known is not None:
        return Target(known, load=lambda: _loaded(checkpoint), from_files=True)
    target = _inspected(checkpoint, trust_remote_code=trust_remote_code, task_type=task_type)
    if alone:
        keep_structure(checkpoint, target.structure)
        target.from_files = True
    return target


def _inspected(model: Any, *, trust_remote_code: bool, task_type: TaskType | None) -> Target:
    loaded = _loaded(model, trust_remote_code=trust_remote_code, task_type=task_type)
    from peft_shop.model.description import describe  # noqa: PLC0415 - torch only where needed

    return Target(describe(loaded, task_type), loaded.config, loaded.instance)


def _loaded(
    model: Any, *, trust_remote_code: bool = False, task_type: TaskType | None = None
) -> Loaded:
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "peft", "inspecting a model")
    from peft_shop.model.loading import load_model  # noqa: PLC0415 - torch only where needed

    return load_model(model, trust_remote_code=trust_remote_code, task_type=task_type)
