"""What the scripts of all kinds have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_shop.scripts.loop import FACTORIES
from peft_shop.scripts.source import call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Recipe
    from peft_shop.scripts.step import Step

__all__ = ["ScriptParts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptParts:
    """What the scripts of all kinds have in common.

    Attributes:
        recipe: what is trained.
        step: how its training step runs.
        method: what the catalog knows of it; `None` where it knows nothing.
        config_class: name in peft of what makes the configuration; `None` for full fine-tuning.
        shared: source for the template, by placeholder.
        update: statements once all gradients of a step are there.
        watch: file with the order to a trial's meter; `None` where nothing is measured.
        packages: what must be installed, as pip takes it.
        prefix: statements between wrapping and training that start a prefix.
    """

    recipe: Recipe
    step: Step
    method: Method | None
    config_class: str | None
    shared: dict[str, str]
    update: str
    watch: str | None = None
    packages: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained; else the whole model is."""
        return self.config_class is not None

    def wrap(self, base: str) -> str:
        """Source of the model that is trained: the one called `base`, with an adapter if any."""
        if not self.adapts:
            return base
        options = {"autocast_adapter_dtype": self.step.autocast_adapter_dtype}
        return call("get_peft_model", options, base, "config", used=8)

    def modules(
        self, own: Mapping[str, Sequence[str]], *, handed: bool | None = None
    ) -> dict[str, list[str]]:
        """Names to import by module: a script's `own`, and those that all kinds need.

        Args:
            own: names by module.
            handed: whether the script makes the optimizer and a trainer the schedule; `None`
                where the script makes both, and `False` where it makes neither.
        """
        training = self.recipe.training
        modules = {module: list(names) for module, names in own.items()}
        names = modules.setdefault("peft", [])
        if self.config_class is not None:
            names += [self.config_class, "get_peft_model"]
        if self.step.prepare:
            names.append("prepare_model_for_kbit_training")
        if training.options.get("init_kv_cache_prefix") is not None:
            names.append("initialize_kv_prefix_from_text")
        if self.step.optimizer in FACTORIES:
            modules["peft.optimizers"] = [FACTORIES[self.step.optimizer][0]]
        if self.step.eight_bit and handed is not False:
            modules["bitsandbytes.optim"] = ["AdamW8bit"]
        if training.lr_scheduler and handed is None:
            modules.setdefault("transformers", []).append("get_cosine_schedule_with_warmup")
        return {module: names for module, names in modules.items() if names}
