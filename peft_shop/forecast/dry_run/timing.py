"""Work of a step -> its time, by constants of one suite's runs on one accelerator.

A step's time is taken to be linear in its work: products in half and in full precision, bytes
moved, kernels started. The constants are fitted per suite; a factor between two methods that was
measured in one suite says little about another (rank correlation 0.58 on the runs on file), so
each suite answers for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from peft_shop.forecast.records import Interval, StepTime

if TYPE_CHECKING:
    from peft_shop.forecast.dry_run.constants import DryRunConstants, StepConstants
    from peft_shop.forecast.dry_run.trace import Trace
    from peft_shop.forecast.records import Settings

__all__ = ["Work", "seconds_of", "step_times", "work_of"]


class Work(NamedTuple):
    """What a step has to do.

    Attributes:
        half_flops: floating-point operations of products in half precision.
        full_flops: those in full precision.
        traffic: bytes read and written.
        launches: kernels started.
        synchronizations: values read back, for which Python waits.
    """

    half_flops: int
    full_flops: int
    traffic: int
    launches: int
    synchronizations: int


def work_of(trace: Trace) -> Work:
    """Work of the last step of a trace."""
    half = sum(kernel.flops for kernel in trace.kernels if kernel.half)
    return Work(half, trace.flops - half, trace.traffic, trace.launches, trace.synchronizations)


def seconds_of(work: Work, constants: StepConstants) -> float:
    """Time of a step [s]."""
    return (
        work.half_flops * constants.half_flop
        + work.full_flops * constants.full_flop
        + work.traffic * constants.byte
        + work.launches * constants.launch
        + work.synchronizations * constants.synchronization
    )


def step_times(
    work: Work, plain: Work, settings: Settings, constants: DryRunConstants, method: str
) -> tuple[StepTime, ...]:
    """Time of a step against plain LoRA of the same model, as each suite's constants have it.

    Seconds are given where the settings name the accelerator that the suite ran on.
    """
    found = []
    for step in constants.steps:
        seconds = seconds_of(work, step)
        reference = seconds_of(plain, step)
        if not reference:
            continue
        low, high = step.residuals.low, step.residuals.high
        basis = (
            f"90 % of {step.residuals.runs} runs of {step.benchmark} took {low:+.0%} to "
            f"{high:+.0%} against a forecast made without their method"
        )
        if method not in step.methods:
            low, high = min(2 * low, -_NEW), max(2 * high, _NEW)
            basis += f"; {method} was not among them, so the range is doubled"
        factor = seconds / reference
        measured = settings.accelerator == step.accelerator
        found.append(
            StepTime(
                benchmark=step.benchmark,
                factor=Interval(
                    low=factor * (1 + low), value=factor, high=factor * (1 + high), basis=basis
                ),
                seconds=Interval(
                    low=seconds * (1 + low), value=seconds, high=seconds * (1 + high), basis=basis
                )
                if measured
                else None,
            )
        )
    return tuple(found)


_NEW = 0.2
"""Least range for a method that no suite timed."""
