"""What an answer ranks: candidates as frozen records.

They hold figures and reasons; what needs peft (`.config`) or a model is made on demand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, PrivateAttr

from peft_shop.adapt.records import Preflight, Retargeted, TargetOptions, retargeted_recipe
from peft_shop.ask.model import read_options, read_settings
from peft_shop.ask.snippets import Snippet, snippet_of
from peft_shop.catalog.benchmarks import Benchmark
from peft_shop.catalog.runs import Run
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.forecast.records import Forecast, Setup
from peft_shop.model.structure import Structure
from peft_shop.records import Finite, Frozen, Name, Number, Record, Text, own_names
from peft_shop.serve.adapter import adapter_of_run
from peft_shop.serve.bases import base_of_structure
from peft_shop.serve.routes import Route, resolve_engine, route
from peft_shop.serve.trainers import Acceptance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from peft import PeftConfig

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Recipe
    from peft_shop.model.inspection import Target

__all__ = [
    "Candidate",
    "LiveModel",
]


class LiveModel:
    """The question's model itself, where there is one: goes with a record, is no part of it.

    Never changed, so that all candidates of an answer share one.
    """

    __slots__ = ("target",)

    def __init__(self, target: Target | Structure | None = None) -> None:
        self.target = target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LiveModel)

    def __hash__(self) -> int:
        return hash(LiveModel)


_NOBODY: Final = LiveModel()


class Candidate(Record):
    """A run as a query sees it.

    Attributes:
        name: experiment; the run's id where an experiment is there several times.
        title: method and variants for people, such as "LoRA (rsLoRA)".
        values: comparable figures by metric id, in base units.
        unusable: why a metric has no comparable figure, by metric id.
        sds: standard deviations of the noisy figures, by metric id: of a re-run or, where the
            question's `certainty` is `questions`, of a re-run on other questions like these.
        rerun_sds: standard deviations of a re-run on the same questions.
        degrees: of freedom behind `rerun_sds`; absent where they are not estimated.
        paired_sds: what the choice of questions adds to the difference from another candidate, by
            metric id and its name, where results of single questions tell it.
        front_probability: probability of being on the front if that happened; `None` where it was
            not computed.
        configurations: how many configurations of this method the query looked at.
        pooled: number of runs behind the figures.
        seeds: of these runs, ascending.
        replicates: ids of these runs, where they are several.
        notes: what was done to the figures, and the run's flags.
        routes: how it reaches the engines that the question names, by engine.
        trainers: what the trainers that the question names take of it, by trainer.
        retargeted: the configuration for the question's model, with every change; `None` where
            the question names none.
        preflighted: what that configuration touches on the model; `None` until it was tried.
        forecasted: what training it there costs, under `setup` where there is one; `None` where the
            question has no training step, or where it cannot be told.
        setup: the training settings under which it fits the question's device.
    """

    name: str
    title: Text
    method: Name
    variants: tuple[Name, ...] = ()
    run: Run
    values: Frozen[dict[str, Number]]
    unusable: Frozen[dict[str, str]] = Field(default_factory=dict)
    sds: Frozen[dict[str, Finite]] = Field(default_factory=dict)
    rerun_sds: Frozen[dict[str, Finite]] = Field(default_factory=dict)
    degrees: Frozen[dict[str, Finite]] = Field(default_factory=dict)
    paired_sds: Frozen[dict[str, dict[str, Finite]]] = Field(default_factory=dict)
    front_probability: Finite | None = None
    configurations: int = 1
    pooled: int = 1
    seeds: tuple[int, ...] = ()
    replicates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    routes: Frozen[dict[str, Route]] = Field(default_factory=dict)
    trainers: Frozen[dict[str, Acceptance]] = Field(default_factory=dict)
    retargeted: Retargeted | None = None
    preflighted: Preflight | None = None
    forecasted: Forecast | None = None
    setup: Setup | None = None
    _benchmark: Benchmark | None = PrivateAttr(default=None)
    _model: LiveModel = PrivateAttr(default_factory=lambda: _NOBODY)
    _device: str | None = PrivateAttr(default=None)

    @property
    def recipe(self) -> Recipe:
        """The recipe to train with: as measured, or with the configuration for the model."""
        if self.retargeted is None:
            return self.run.recipe
        return retargeted_recipe(self.run.recipe, self.retargeted)

    @property
    def config(self) -> PeftConfig:
        """The configuration as a new `PeftConfig` of the installed peft.

        As measured, or valid on the question's model where it names one.

        Raises:
            MissingExtraError: peft is not installed.
            UnknownConfigKeyError: the installed peft does not know a key of the recipe.
        """
        from peft_shop.upstream.configs import build_config  # noqa: PLC0415 - peft only when asked for

        return build_config(self.recipe)

    @property
    def config_dict(self) -> dict[str, Any]:
        """The configuration as plain data: the type and the fields that differ from defaults."""
        from peft_shop.upstream.configs import config_dict  # noqa: PLC0415 - as above

        return config_dict(self.recipe)

    def retarget(
        self, model: object, adapt: TargetOptions | Mapping[str, Any] | None = None
    ) -> Retargeted:
        """The configuration for `model`, every change with its reason, or why it cannot work.

        Args:
            model: as for `inspect_model`.
            adapt: what to do otherwise than measured, by the fields of `TargetOptions`.

        Raises:
            ModelError: the model cannot be inspected.
            InputError: an option that does not exist or cannot be.
        """
        from peft_shop.adapt.installed import for_installed  # noqa: PLC0415 - not needed for an answer
        from peft_shop.adapt.retarget import retarget  # noqa: PLC0415 - as above

        options = for_installed(read_options(adapt))
        return retarget(load(), self.run, structure_of(model), options)

    def config_for(
        self, model: object, adapt: TargetOptions | Mapping[str, Any] | None = None
    ) -> PeftConfig:
        """The configuration for `model` as a new `PeftConfig`; `retarget` tells the changes.

        Args:
            model: as for `inspect_model`.
            adapt: what to do otherwise than measured, by the fields of `TargetOptions`.

        Raises:
            ConfigError: the method cannot work on this model; says why.
            MissingExtraError: peft is not installed.
            ModelError: the model cannot be inspected.
        """
        from peft_shop.upstream.configs import build_config  # noqa: PLC0415 - as above

        adaptation = self._applied(model, adapt)
        return build_config(retargeted_recipe(self.run.recipe, adaptation))

    def preflight(
        self, model: object = None, adapt: TargetOptions | Mapping[str, Any] | None = None
    ) -> Preflight:
        """What the configuration really touches on the model, tried on an empty copy of it.

        Args:
            model: as for `inspect_model`; the question's by default.
            adapt: what to do otherwise than measured, by the fields of `TargetOptions`.

        Raises:
            ConfigError: the method cannot work on this model, or no model was ever named.
            MissingExtraError: peft or torch is not installed.
        """
        from peft_shop.preflight.refused import remember_refusal  # noqa: PLC0415 - not for an answer
        from peft_shop.preflight.remembered import preflight  # noqa: PLC0415 - as above

        target = self._live(model, "a preflight")
        config = self._adapted(model, target, adapt).config
        try:
            return preflight(target, config)
        except ConfigError as error:
            if type(error) is ConfigError:  # not what is wrong with the installed peft
                remember_refusal(target.structure, config, str(error))
            raise

    def is_refused(self) -> bool:
        """Whether a preflight of the question's own configuration was refused before."""
        from peft_shop.preflight.refused import known_refusal  # noqa: PLC0415 - as above

        if self._model.target is None or self.retargeted is None:
            return False
        structure = structure_of(self._model.target)
        return known_refusal(structure, self.retargeted.config) is not None

    def forecast(
        self,
        model: object = None,
        *,
        adapt: TargetOptions | Mapping[str, Any] | None = None,
        **training: Any,
    ) -> Forecast:
        """What training this configuration on the model costs: counts, bytes, memory, time.

        With the model itself, torch and peft, a training step is run on a copy without weights;
        with only its `Structure`, closed forms are reckoned.

        Args:
            model: as for `inspect_model`, or a `Structure`; the question's by default.
            adapt: what to do otherwise than measured, by the fields of `TargetOptions`.
            **training: fields of `Settings`, such as `batch_size=8` or `sequence_length=1024`; on
                the question's model the rest is the candidate's setup, where it has one.

        Raises:
            ConfigError: the method cannot work on this model, or no model was ever named.
            ForecastError: neither way knows such a model or method.
            InputError: a setting that does not exist or cannot be.
        """
        from peft_shop.forecast.asking import forecast, settings_of  # noqa: PLC0415 - as above

        wanted = self._model.target if model is None else model
        if not isinstance(wanted, Structure):
            wanted = self._live(model, "a forecast")
        structure = structure_of(wanted)
        step = read_settings(training, structure)
        if self.setup is not None and model is None:
            stated = {name: getattr(step, name) for name in _folded(training)}
            step = self.setup.settings.model_copy(update=stated)
        settings = settings_of(self.run, step)
        return forecast(wanted, self._adapted(model, wanted, adapt).whole_config, settings)

    def _live(self, model: object, what: str) -> Target:
        """The model itself, inspected."""
        from peft_shop.model.inspection import inspect_model  # noqa: PLC0415 - torch only when asked for

        wanted = self._model.target if model is None else model
        if wanted is None or isinstance(wanted, Structure):
            raise ConfigError(f"{what} needs the model itself: pass it as `model`")
        return inspect_model(wanted)

    def _adapted(
        self, model: object, target: object, adapt: TargetOptions | Mapping[str, Any] | None
    ) -> Retargeted:
        """The configuration for `target`: the question's own where nothing else is said.

        Raises:
            ConfigError: the method cannot work on it.
        """
        if model is None and adapt is None and self.retargeted is not None:
            return self.retargeted
        return self._applied(target, adapt)

    def _applied(
        self, model: object, adapt: TargetOptions | Mapping[str, Any] | None
    ) -> Retargeted:
        retargeted = self.retarget(model, adapt)
        if retargeted.problems:
            name = structure_of(model).name
            msg = f"{self.name} cannot work on {name}: {'; '.join(retargeted.problems)}"
            raise ConfigError(msg)
        return retargeted

    def route(self, engine: str, *, model: object = None, catalog: Catalog | None = None) -> Route:
        """How the run's adapter reaches `engine`, asked for in the question or not.

        Args:
            engine: its name or an alias.
            model: the base, as for `inspect_model`, or a `Structure`; the question's by default.
                For another one than the question's, the configuration is the one as measured.
            catalog: holds the facts; the embedded one by default.

        Raises:
            UnknownNameError: there is no such engine; names the nearest.
        """
        source = catalog if catalog is not None else load()
        name = resolve_engine(source, engine).id
        if catalog is None and model is None and name in self.routes:
            return self.routes[name]
        models = None if self._benchmark is None else self._benchmark.modality
        adapter = adapter_of_run(self.run, models)
        structure = self._structure if model is None else structure_of(model)
        if structure is not None:
            adapted = self.retargeted.config if model is None and self.retargeted else None
            adapter = adapter.on(base_of_structure(structure), adapted)
        return route(source, adapter, name)

    @property
    def snippet(self) -> Snippet:
        """A complete training script with the measured hyper-parameters, under the setup if any.

        It is text; called, as in `snippet(trainer="axolotl")`, it is what that tool reads.
        """
        if self._benchmark is None:
            raise ConfigError("a snippet needs the benchmark: take the candidate from an answer")
        return snippet_of(
            self.run,
            self._benchmark,
            self.retargeted,
            self._structure,
            setup=self.setup,
            device=self._device,
        )

    def __dir__(self) -> list[str]:
        """Names of ours; the base class's own stay callable."""
        return own_names(self)

    def _repr_html_(self) -> str:
        from peft_shop.show.cards import candidate_html  # noqa: PLC0415 - only when shown

        return candidate_html(self)

    @property
    def _structure(self) -> Structure | None:
        target = self._model.target
        return target if target is None or isinstance(target, Structure) else target.structure

    def save(self, directory: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Path of the `adapter_config.json` written into `directory`, as peft writes it.

        Raises:
            ConfigError: a configuration is there already and `overwrite` is false.
            MissingExtraError: peft is not installed.
        """
        from peft_shop.upstream.configs import save_config  # noqa: PLC0415 - as above

        return save_config(self.recipe, Path(directory), overwrite=overwrite)


def _folded(names: Iterable[str]) -> list[str]:
    return [name.strip().lower().replace("-", "_") for name in names]


def structure_of(model: object) -> Structure:
    """What is understood of `model`; a `Structure` is that already.

    Raises:
        ModelError: the model cannot be inspected.
        MissingExtraError: torch or transformers is not installed.
    """
    if isinstance(model, Structure):
        return model
    from peft_shop.model.inspection import inspect_model  # noqa: PLC0415 - torch only when asked for

    return inspect_model(model).structure
