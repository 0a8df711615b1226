"""Memory that no closed form tells -> told by dry runs, as far as the time reaches.

Baselines go first, which others are compared with, then the front and the ties: whatever they
tell, the question is answered again, and what comes up then is looked at next, until nothing is
unknown or the time is up.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from peft_shop.ask.adapted import retargeted
from peft_shop.ask.answer import answer
from peft_shop.ask.appraisal import Traced, own_settings
from peft_shop.ask.contenders import Contender, field_of_play
from peft_shop.ask.judging import MEMORY
from peft_shop.ask.model import read_memory, read_training
from peft_shop.ask.plans import device_in, fittable_of, planned, rungs_of
from peft_shop.ask.reading import build_query
from peft_shop.ask.watching import told
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.runs import Run
from peft_shop.errors import ForecastError, PeftShopError
from peft_shop.forecast.deadline import OutOfTimeError, until
from peft_shop.forecast.devices import Device
from peft_shop.forecast.looking import look_at_base
from peft_shop.forecast.records import Setup
from peft_shop.forecast.traced import traced_base
from peft_shop.model.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from peft_shop.adapt.records import TargetOptions
    from peft_shop.ask.query import Query
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.forecast.fitting import Fittable
    from peft_shop.forecast.ladder import Rung
    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target
    from peft_shop.units import Quantity

__all__ = ["plans_of", "settled"]

USUAL_SECONDS: Final = 60.0
"""Time for a model of which no closed form knows anything, unless the question says another."""
_LISTED_SECONDS: Final = 10.0
"""The same where nothing is ranked: plain LoRA comes first, and what is left is listed without."""
_HOPELESS: Final = 3
"""Dry runs that fail for one and the same reason, before any goes through, end the attempt."""
_BASE_SECONDS: Final = 30.0
"""Least time in which plain LoRA can be traced in all setups of a model without closed forms."""
_TRIES: Final = 8
"""Setups of one candidate that are worth a dry run each."""


def settled(
    catalog: Catalog,
    query: Query,
    target: Target,
    *,
    seconds: float | None = None,
) -> Recommendation:
    """The answer, with dry runs for what is unknown of the baselines, the front and the ties.

    Args:
        catalog: holds the facts.
        query: the question, with a model and a training step.
        target: the model itself.
        seconds: time for dry runs [s]; by default a minute where closed forms know nothing of the
            model, else none.
    """
    begun = time.monotonic()
    able = query.fit == "auto" and _can_run()
    looks = able and (seconds is None or seconds >= _BASE_SECONDS)
    end = begun + (USUAL_SECONDS if seconds is None else seconds)
    looked = looks and _look_at_base(query, target, end)
    recommendation = answer(catalog, query)
    if looked and _lacks_room(recommendation):
        _look_at_base(query, target, end, every=True)
        recommendation = answer(catalog, query)
    waiting = list(_waiting(recommendation))
    if not waiting or not _can_run():
        return recommendation
    if seconds is None:
        known = any("peak_memory" in candidate.values for candidate in recommendation.candidates)
        known = known or any(
            unmeasured.forecasted is not None for unmeasured in recommendation.unmeasured
        )
        seconds = USUAL_SECONDS if looked or not known else 0.0
        if not query.ranked:
            begun, seconds = time.monotonic(), min(seconds, _LISTED_SECONDS)
    field = field_of_play(catalog, query)
    everyone = (*field.contenders, *field.baselines)
    runs = _DryRuns(catalog, query, target, everyone, begun + seconds)
    runs.usual = None if recommendation.setup is None else recommendation.setup.settings
    while waiting and runs.time_left():
        for name in waiting:
            if not runs.time_left() and not runs.hopeless:
                break
            told(len(runs.traced), len(runs.traced) + len(waiting), name)
            runs.trace(name)
        recommendation = answer(catalog, query, runs.traced)
        waiting = [name for name in _waiting(recommendation) if name not in runs.traced]
    return recommendation


def _lacks_room(found: Recommendation) -> bool:
    """Whether something does not fit though setups are left that were not looked at."""
    model, settings = found.query.model, found.query.training
    base = None if model is None or settings is None else traced_base(model, settings)
    if base is None or base.complete:
        return False
    return any(
        failure.constraint == MEMORY for dropped in found.dropped for failure in dropped.failures
    )


def _look_at_base(query: Query, target: Target, end: float, *, every: bool = False) -> bool:
    """Trace plain LoRA where closed forms know nothing of the model, for the search to go by.

    Args:
        query: the question.
        target: the model.
        end: when to stop [s, of the monotonic clock].
        every: in all setups, even if there is room in the first.

    Returns:
        Whether there is something to go by now.
    """
    settings = query.training
    if settings is None:
        return False
    device = device_in(query)
    count = device.count if isinstance(device, Device) else 1
    with until(end):
        return look_at_base(
            target,
            settings,
            fixed=query.fixed,
            bfloat16=device.bfloat16 if isinstance(device, Device) else True,
            effective=max(1, (query.effective_batch or settings.batch_size) // count),
            usable=None if every or query.memory is None else query.memory.bytes,
            told=lambda done, of: told(done, of, "plain LoRA"),
        )


def plans_of(
    catalog: Catalog,
    model: Target | Structure,
    subjects: Sequence[Run | Method],
    *,
    device: Quantity,
    training: Settings | Mapping[str, object] | None = None,
    quantization: str | None = None,
    adapt: TargetOptions | None = None,
    peft_version: str | None = None,
) -> list[Contender]:
    """Runs and methods with the setups under which they fit a device, whatever else they are.

    Args:
        catalog: holds the facts.
        model: what is trained; without the model itself closed forms alone tell.
        subjects: what is asked about; runs of one benchmark.
        device: name or size.
        training: the training step; what it states stays.
        quantization: backend of the base that the question names.
        adapt: what to do on that model otherwise than measured.
        peft_version: version the configurations must work with.

    Raises:
        InputError: a setting or a device that cannot be read.
    """
    structure = model if isinstance(model, Structure) else model.structure
    step = read_training(training, structure, quantization)
    contenders = [
        Contender(subject.experiment, subject.method, subject.variants, subject)
        if isinstance(subject, Run)
        else Contender(subject.id, subject.id, (), None)
        for subject in subjects
    ]
    runs = [subject for subject in subjects if isinstance(subject, Run)]
    query = build_query(
        catalog,
        benchmark=runs[0].benchmark if runs else None,
        model=structure,
        adapt=adapt,
        training=step.settings,
        memory=read_memory(device, dtype=step.settings.dtype),
        fit="auto",
        fixed=step.fixed,
        effective_batch=step.effective_batch,
        peft_version=peft_version,
    )
    # these are not the contenders of a whole question, whose plans are remembered
    alone = catalog.model_copy()
    with_plans = planned(alone, query, contenders, (), {}).contenders
    unknown = [
        contender
        for contender in with_plans
        if contender.setup is None and contender.misfit is None
    ]
    if not unknown or isinstance(model, Structure) or not _can_run():
        return list(with_plans)
    runs_dry = _DryRuns(alone, query, model, contenders, time.monotonic() + USUAL_SECONDS)
    for done, one in enumerate(unknown):
        if runs_dry.time_left():
            told(done, len(unknown), one.name)
            runs_dry.trace(one.name)
    return list(planned(alone, query, contenders, (), runs_dry.traced).contenders)


def _core(reason: str) -> str:
    """What a failure is about, without what the closed forms say of the method."""
    return reason.partition("; nor do the closed forms know")[0]


def _can_run() -> bool:
    return find_spec("torch") is not None and find_spec("peft") is not None


def _waiting(found: Recommendation) -> Iterator[str]:
    """Candidates whose memory is not known: what others are compared with, then the best."""
    groups = (found.baselines, found.front, found.ties, found.dominated)
    names = [one.name for group in groups for one in group if "peak_memory" not in one.values]
    names += [unmeasured.method for unmeasured in found.unmeasured if unmeasured.forecasted is None]
    yield from dict.fromkeys(names)


class _DryRuns:
    """Dry runs of one question.

    Attributes:
        traced: what they told, by name.
    """

    def __init__(
        self,
        catalog: Catalog,
        query: Query,
        target: Target,
        contenders: Iterable[Contender],
        end: float,
    ) -> None:
        self.catalog = catalog
        self.query = query
        self.target = target
        self.end = end
        self.traced: dict[str, Traced] = {}
        self.contenders = {contender.name: contender for contender in contenders}
        self.usual: Settings | None = None
        self.failed: list[str] = []
        self.worked = False

    def time_left(self) -> bool:
        """Whether another run may be started."""
        return time.monotonic() < self.end and not self.hopeless

    @property
    def hopeless(self) -> str:
        """Why no dry run of this model goes through; empty while that is open."""
        last = self.failed[-_HOPELESS:]
        alike = len(last) == _HOPELESS and len(set(last)) == 1
        return last[0] if alike and not self.worked else ""

    def trace(self, name: str) -> None:
        """Looks at one candidate: as asked, or for a setup that fits."""
        contender = self.contenders[name]
        if self.hopeless:
            self.traced[name] = Traced(None, reason=self.hopeless)
            return
        if self.query.fit == "auto":
            self.traced[name] = self._fitted(contender)
            return
        settings = self.query.training
        if settings is not None:
            self.traced[name] = self._run(contender, settings)

    def _run(self, contender: Contender, settings: Settings) -> Traced:
        """The forecast at these settings; once per catalog, model and settings."""
        from peft_shop.forecast.asking import forecast  # noqa: PLC0415 - torch only where one is made

        adapted = retargeted(self.catalog, self.query, contender)
        if adapted is not None and adapted.problems:
            return Traced(None, reason="it cannot work on this model")
        whole = contender.method == FULL_FINETUNING or adapted is None
        config = None if whole or adapted is None else adapted.config
        settings = own_settings(self.catalog, self.query, contender, settings)
        subject = contender.name if contender.run is None else contender.run.id
        key = (
            "traced",
            self.query.benchmark,
            subject,
            settings,
            self.query.adapt,
            self.query.model,
        )
        if key not in self.catalog.derived:
            try:
                with until(self.end):
                    made = Traced(forecast(self.target, config, settings, brief=True))
                self.worked = True
            except OutOfTimeError as error:
                return Traced(None, reason=f"no forecast: {error}")
            except PeftShopError as error:
                reason = f"no forecast: {error}"
                made = Traced(None, reason=reason)
                if isinstance(error, ForecastError):
                    self.failed.append(_core(reason))
            self.catalog.derived[key] = made
        traced: Traced = self.catalog.derived[key]
        return traced

    def _fitted(self, contender: Contender) -> Traced:
        """The cheapest setup that surely fits, else one that may; tried one by one."""
        query, model = self.query, self.query.model
        asked = fittable_of(self.catalog, query, contender)
        if asked is None or model is None or query.memory is None:
            return Traced(None, reason="it cannot work on this model")
        close: Traced | None = None
        last: Traced | None = None
        rungs = self._rungs(asked)
        for number, rung in enumerate(rungs):
            if number == 1 and close is None:
                least = self._run(contender, asked.trained_by(rungs[-1].settings)).forecast
                if least is not None and least.peak_memory.low > query.memory.bytes:
                    break
            if last is not None and not self.time_left():
                return close or Traced(None, reason="no forecast: the time was up")
            tried = self._run(contender, asked.trained_by(rung.settings))
            if tried.forecast is None:
                return close or tried
            last = tried
            peak = tried.forecast.peak_memory
            fits = "yes" if peak.high <= query.memory.bytes else "maybe"
            if peak.low > query.memory.bytes:
                continue
            setup = Setup(
                settings=tried.forecast.settings,
                effect="slight" if rung.slight else "same",
                changes=rung.changes,
                effective_batch=rung.settings.batch_size
                * rung.settings.accumulation
                * query.memory.count,
                time_factor=rung.time,
                fits="yes" if fits == "yes" else "maybe",
                peak=peak,
            )
            if fits == "yes":
                self.usual = self.usual or rung.settings
                return Traced(tried.forecast, setup)
            close = close or Traced(tried.forecast, setup)
        if close is not None:
            return close
        limit = query.memory.text
        reason = f"needs more than {limit} under every setup tried by a dry run"
        return Traced(None if last is None else last.forecast, reason=reason, misfit=reason)

    def _rungs(self, asked: Fittable) -> list[Rung]:
        """Setups worth a dry run, the cheapest first; that of the others before what is cheaper.

        The last one is the dearest, which takes least.
        """
        free = rungs_of(self.query, asked)
        model, settings, limit = self.query.model, self.query.training, self.query.memory
        base = None if model is None or settings is None else traced_base(model, settings)

        def is_worth_it(rung: Rung) -> bool:
            # the loss and the optimizer's states are last resorts, not worth a run each
            if {"fused_loss", "optimizer"} & set(rung.changes):
                return False
            if base is None or limit is None or not base.knows(rung.settings):
                return True
            return base.peak(rung.settings) <= limit.bytes

        plain = [rung for rung in free[:-1] if is_worth_it(rung)]
        usual = [rung for rung in plain if rung.settings == self.usual]
        start = plain.index(usual[0]) if usual else 0
        return [*plain[start:][: _TRIES - 1], *free[-1:]]
