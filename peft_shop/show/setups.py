"""Setups in words: how to train so that it fits, what that costs, what to do if nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.judging import MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Unmeasured
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.forecast.records import Interval, NothingFits, Settings
    from peft_shop.model.structure import Structure

__all__ = [
    "answer_setup",
    "gib",
    "interval",
    "nothing_fits_sentences",
    "setup_sentences",
    "setup_words",
]

_BITS: Final = {"bnb_4bit": "4-bit base", "bnb_8bit": "8-bit base"}
_SAMPLES: Final = {"vision": "image", "audio": "recording", "unknown": "sample"}
"""What a batch is of where its size follows from the model."""
_NOTICED: Final = 0.05
"""Share of the step time below which a difference is not told."""


def gib(size: float) -> str:
    """A size with one decimal: "20.9 GiB"; small ones in MiB."""
    return f"{_number(size)} {_unit(size)}"


def interval(peak: Interval) -> str:
    """Value and range: "20.9 GiB (18.0 to 22.5)"."""
    unit = _unit(peak.value)
    size = 2**30 if unit == "GiB" else 2**20
    low, value, high = (f"{one / size:.1f}" for one in (peak.low, peak.value, peak.high))
    return f"{value} {unit} ({low} to {high})"


def _unit(size: float) -> str:
    return "GiB" if size >= 2**30 else "MiB"


def _number(size: float) -> str:
    return f"{size / (2**30 if _unit(size) == 'GiB' else 2**20):.1f}"


def setup_words(settings: Settings, model: Structure | None) -> str:
    """The training step: "bfloat16, 4 sequences of 512 tokens a step, gradient checkpointing"."""
    batch = _batch(settings, "text" if model is None else model.modality)
    return ", ".join([*_base(settings, model), f"{batch} a step", *_rest(settings)])


def _base(settings: Settings, model: Structure | None) -> Iterable[str]:
    if settings.quantization is None:
        stored = None if model is None else model.stored_quantization
        yield settings.dtype if stored is None else f"{stored.name} base in {settings.dtype}"
        return
    prepared = ", prepared in float32" if settings.prepare_kbit else ""
    name = f"{settings.quantization} base{prepared}"
    if settings.quantization in _BITS:
        name = f"{_BITS[settings.quantization]} ({settings.quantization}{prepared})"
    yield f"{name} computing in {settings.dtype}"


def _batch(settings: Settings, modality: str) -> str:
    times = settings.accumulation
    count = settings.batch_size if times == 1 else f"{settings.batch_size} x {times}"
    one = settings.batch_size * times == 1
    if modality in _SAMPLES:
        return f"{count} {_SAMPLES[modality]}{'' if one else 's'}"
    if modality == "image":
        return f"{count} image{'' if one else 's'} of {settings.image_size} pixels"
    return f"{count} sequence{'' if one else 's'} of {settings.sequence_length} tokens"


def _rest(settings: Settings) -> Iterable[str]:
    if settings.gradient_checkpointing:
        yield "gradient checkpointing"
    if settings.fused_loss:
        yield "loss in chunks"
    if settings.optimizer == "adamw_8bit":
        yield "AdamW in 8 bit"


def answer_setup(recommendation: Recommendation) -> tuple[str, ...]:
    """The answer's setup and for how many candidates it does; what is told of several devices."""
    setup, limit = recommendation.setup, recommendation.query.memory
    if limit is None or recommendation.query.fit == "off":
        return ()
    there = f"{limit.text} ({gib(limit.bytes)} usable)" if limit.device else limit.text
    model = recommendation.query.model
    shared = (
        f"Each of the {limit.count} devices holds the whole model and takes its share of the batch "
        "(data parallel); sharding (FSDP, ZeRO-3) is not modelled."
    )
    if recommendation.nothing_fits is not None:
        told = nothing_fits_sentences(recommendation.nothing_fits, there, model)
        return (*told, *((shared,) if limit.count > 1 else ()))
    if setup is None:
        reasons = [
            failure.reason
            for dropped in recommendation.dropped
            for failure in dropped.failures
            if failure.constraint == MEMORY
        ]
        if reasons and not any(True for _ in recommendation.kept):
            return (f"Nothing fits {there}: {reasons[0].rpartition(': ')[2]}.",)
        return (f"Whether anything fits {there} is not known: no memory could be forecast.",)
    text = f"Setup: {setup_words(setup.settings, model)}"
    if abs(setup.time_factor - 1) >= _NOTICED:
        text += f" (about {setup.time_factor:.1f} times the step time)"
    sure, close, unknown, total = _counted(recommendation)
    if sure:
        text += f"; fits {there} surely for {sure} of {total}"
        text += f", too close to call for {close}" if close else ""
        text += f", not known for {unknown}" if unknown else ""
    elif total:
        text += (
            f"; whether it fits {there} is too close to call for {close} of {total}, sure for none"
        )
    found = [text + "."]
    if setup.effect == "slight":
        found.append(
            "Scores were measured in 16 bit: on a quantized base they will be a little off."
        )
        found += _unpacked(setup.settings, model)
    if limit.count > 1:
        found.append(shared)
    asked = recommendation.query.effective_batch
    if asked is not None and setup.effective_batch > asked:
        found.append(
            f"The batch of {asked} becomes {setup.effective_batch}: each device takes one at least."
        )
    return tuple(found)


def _unpacked(settings: Settings, model: Structure | None) -> Iterable[str]:
    """How much of a mixture of experts a base in few bits leaves as it is."""
    if model is None or settings.quantization not in _BITS:
        return
    weights = sum(group.parameters * group.count for group in model.groups if group.experts)
    if weights:
        kept = "float32" if settings.prepare_kbit else "16 bit"
        share = f"{100 * weights / model.parameters:.0f} %"
        yield f"bitsandbytes packs no fused experts: {share} of the weights stay in {kept}."


def _counted(recommendation: Recommendation) -> tuple[int, int, int, int]:
    """Candidates that surely fit, too close to call, unknown, and all that fail nothing else."""
    kept = list(recommendation.kept)
    fits = [None if candidate.setup is None else candidate.setup.fits for candidate in kept]
    alone = sum(
        {failure.constraint for failure in dropped.failures} == {"max_memory"}
        for dropped in recommendation.dropped
    )
    return fits.count("yes"), fits.count("maybe"), fits.count(None), len(kept) + alone


def nothing_fits_sentences(
    found: NothingFits, there: str, model: Structure | None
) -> Iterable[str]:
    """What needs least, what would hold it, and what would fit instead."""
    least = found.least
    if least is None:
        yield f"Nothing fits {there}."
    else:
        words = setup_words(least.settings, model)
        yield f"Nothing fits {there}: the least needs {interval(least.peak)}, with {words}."
        yield from _unpacked(least.settings, model)
    if found.device is not None:
        yield f"The smallest device on record that surely holds it: {found.device}."
    if found.longest_sequence is not None:
        yield f"With that setup sequences of up to {found.longest_sequence} tokens would fit."
    if found.parameters is not None:
        yield f"Models of up to about {_many(found.parameters)} parameters fit there, in 4 bit."


def _many(count: int) -> str:
    if count >= 10**9:
        return f"{count / 10**9:.{0 if count >= 10**10 else 1}f} billion"
    return f"{max(1, round(count / 10**6))} million"


def setup_sentences(
    recommendation: Recommendation, candidate: Candidate | Unmeasured
) -> tuple[str, ...]:
    """Whether a candidate fits and how, as far as that differs from the answer's setup."""
    limit = recommendation.query.memory
    if limit is None or recommendation.query.fit == "off":
        return ()
    setup = candidate.setup
    if setup is None:
        return ("Memory: not known; `peft-shop forecast` or `Candidate.forecast` may tell.",)
    text = "Fits" if setup.fits == "yes" else "Too close to call"
    text += f": {interval(setup.peak)}"
    common = recommendation.setup
    model = recommendation.query.model
    if common is not None and _differs(setup.settings, common.settings):
        text += f", with a setup of its own: {setup_words(setup.settings, model)}"
    if (
        setup.longest_sequence is not None
        and setup.longest_sequence > setup.settings.sequence_length
    ):
        text += f"; up to {setup.longest_sequence} tokens"
    found = [text + "."]
    if setup.effect == "slight" and (common is None or common.effect == "same"):
        found.append("Its score was measured in 16 bit.")
    other = setup.alternative
    if other is not None:
        usable = _number(limit.bytes)
        found.append(
            f"In 16 bit it may fit: {interval(other.peak)} of {usable}, with "
            f"{setup_words(other.settings, model)}; it would fail in the first steps if at "
            "all."
        )
    time = _time(recommendation, candidate)
    return (*found, *(() if time is None else (time,)))


def _differs(mine: Settings, common: Settings) -> bool:
    """Whether two setups differ in what a reader must set; how a base is prepared is told apart."""
    names = ("batch_size", "accumulation", "gradient_checkpointing", "fused_loss")
    return any(getattr(mine, name) != getattr(common, name) for name in names) or (
        (mine.quantization, mine.optimizer == "adamw_8bit")
        != (common.quantization, common.optimizer == "adamw_8bit")
    )


def _time(recommendation: Recommendation, candidate: Candidate | Unmeasured) -> str | None:
    """Its time against plain LoRA's: as both were measured, times what their setups cost."""
    plain = recommendation.yardstick
    mine = getattr(candidate, "values", {}).get("train_time")
    theirs = None if plain is None else plain.values.get("train_time")
    if candidate.setup is None or plain is None or plain.setup is None or not mine or not theirs:
        return None
    factor = mine / theirs * candidate.setup.time_factor / plain.setup.time_factor
    return f"Takes about {factor:.1f} times as long as plain LoRA ({plain.name}) in its own setup."
