"""Parts of a forecast's memory against the device, and figures of several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.show.plots.canvas import COLOURS, axes_for, plain, scale_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from peft_shop.ask.spread import HasFigures
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.forecast.devices import Device
    from peft_shop.forecast.records import Forecast

__all__ = ["plot_forecast", "plot_side_by_side"]

_PARTS: Final = (
    *("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#999999"),
    *("#004C78", "#2B7BA8", "#00664B", "#A89E00", "#9E6D00", "#8F3F00", "#8A4A72", "#555555"),
)
_SMALL: Final = 0.03
"""Share of a bar below which a part is not named in it."""
_GIB: Final = 2**30


def plot_forecast(
    forecast: Forecast, device: Device | None = None, *, ax: Axes | None = None
) -> Axes:
    """The parts of the peak memory stacked in one bar, its range, and what the device leaves.

    Args:
        forecast: what training costs.
        device: drawn as a dashed line where its memory ends.
        ax: where to draw; new axes by default.
    """
    (drawn,) = axes_for(ax, 1, "a plot of the forecast")
    peak = forecast.peak_memory
    unit, size = ("GiB", _GIB) if peak.value >= _GIB / 2 else ("MiB", 2**20)
    left = 0.0
    ordered = sorted(forecast.terms, key=lambda term: -term.bytes)
    for place, term in enumerate(ordered):
        width = term.bytes / size
        share = term.bytes / peak.value if peak.value else 0.0
        name = term.name.replace("_", " ")
        drawn.barh(
            0,
            width,
            left=left,
            height=0.5,
            color=_PARTS[place % len(_PARTS)],
            edgecolor="white",
            lw=0.6,
            label=f"{name}: {width:.1f} {unit}" if share >= _SMALL else None,
            gid=term.name,
        )
        left += width
    low, value, high = (one / size for one in (peak.low, peak.value, peak.high))
    drawn.errorbar(
        value,
        0,
        xerr=[[value - low], [high - value]],
        color=COLOURS["yardstick"],
        capsize=4,
        lw=1.4,
    )
    most = high
    if device is not None:
        usable = device.usable_bytes / size
        most = max(most, usable)
        drawn.axvline(usable, color=COLOURS["limit"], ls="--", lw=1.2)
        drawn.annotate(
            plain(f"{device.name}: {usable:.1f} {unit} usable"),
            (usable, 0.42),
            ha="right",
            xytext=(-4, 0),
            textcoords="offset points",
            fontsize=8,
            color=COLOURS["limit"],
        )
    drawn.set_xlim(0, most * 1.06)
    drawn.set_ylim(-0.5, 0.6)
    drawn.set_yticks([])
    drawn.set_xlabel(f"Peak memory [{unit}], with its {peak.confidence * 100:.0f} % range")
    drawn.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False, fontsize=8
    )
    return drawn


def plot_side_by_side(
    names: Sequence[str],
    measured: Sequence[HasFigures | None],
    metrics: Sequence[Metric],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Bars of what several runs score and need, one picture a metric, with one sd as whiskers.

    Args:
        names: of the runs or methods, short.
        measured: their figures; `None` for what was not measured.
        metrics: one picture each.
        ax: where to draw, for one metric; new axes by default.
    """
    drawn = axes_for(ax, len(metrics), "a plot of the comparison")
    rows = range(len(names))
    for one, metric in zip(drawn, metrics, strict=True):
        values = [
            None if figures is None else figures.values.get(metric.id) for figures in measured
        ]
        scale = scale_of(metric, [value for value in values if value is not None])
        for row, (figures, value) in enumerate(zip(measured, values, strict=True)):
            if value is None or figures is None:
                one.annotate("not known", (0, row), fontsize=8, va="center", color="#555555")
                continue
            sd = figures.sds.get(metric.id, 0.0) * scale.factor
            one.barh(row, value * scale.factor, color=COLOURS["front"], height=0.6, alpha=0.85)
            if sd:
                one.errorbar(value * scale.factor, row, xerr=sd, color="black", capsize=3, lw=1)
        one.set_yticks(list(rows), [plain(name) for name in names] if one is drawn[0] else [])
        one.set_ylim(len(names) - 0.5, -0.5)
        better = "higher" if metric.better == "higher" else "lower"
        one.set_xlabel(f"{scale.title}, {better} is better")
    return drawn[0]
