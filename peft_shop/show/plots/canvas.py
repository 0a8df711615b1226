"""What all pictures share: the figure, scales with units that people read, files."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import InputError, MissingExtraError
from peft_shop.show.documents import clean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

    from peft_shop.catalog.benchmarks import Metric

__all__ = ["COLOURS", "Scale", "axes_for", "picture", "plain", "scale_of"]

COLOURS: Final = {
    "front": "#0072B2",
    "tie": "#E69F00",
    "beaten": "#999999",
    "yardstick": "#000000",
    "limit": "#D55E00",
    "band": "#56B4E9",
}
"""Okabe and Ito's colours, which people tell apart whatever their eyes; shapes differ too."""
_SIZE: Final = (7.2, 4.2)
_FORMATS: Final = {".svg": "svg", ".png": "png"}
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "peft-shop",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How a metric is drawn: its values times `factor`, in `unit`."""

    label: str
    factor: float
    unit: str

    @property
    def title(self) -> str:
        """Label of the axis."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def scale_of(metric: Metric, values: Iterable[float]) -> Scale:
    """A scale with a unit that suits the values."""
    largest = max((abs(value) for value in values), default=0.0)
    title = clean(metric.title)
    if metric.unit == "fraction":
        return Scale(title, 100, "%")
    if metric.unit == "bytes":
        return Scale(title, 2**-30, "GiB") if largest >= 2**29 else Scale(title, 2**-20, "MiB")
    if metric.unit == "seconds":
        return Scale(title, 1 / 60, "min") if largest >= 60 else Scale(title, 1, "s")
    if metric.unit == "count" and largest >= 10**6:
        return Scale(title, 1e-6, "M")
    return Scale(title, 1, "")


def plain(text: str) -> str:
    """Text that is drawn as it is: a dollar sign starts no formula."""
    return clean(text).replace("$", r"\$")


def axes_for(ax: Axes | None, count: int = 1, purpose: str = "a picture") -> list[Axes]:
    """The axes to draw on: `ax`, or `count` new ones beside each other.

    In a notebook the new figure is one that is shown; elsewhere no window is ever opened.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: one `ax` for several pictures.
    """
    if ax is not None:
        if count > 1:
            raise InputError("three objectives need three axes: name two of them as x and y")
        return [ax]
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only when something is drawn
        from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", purpose) from error
    size = (_SIZE[0] * (1 if count == 1 else 0.66 * count), _SIZE[1])
    with mpl.rc_context(_STYLE):
        if "IPython" in sys.modules:
            import matplotlib.pyplot as plt  # noqa: PLC0415 - only where it is shown

            figure = plt.figure(figsize=size, layout="constrained")
        else:
            figure = Figure(figsize=size, layout="constrained")
        made = figure.subplots(1, count, squeeze=False)
    return [one for row in made for one in row]


def picture(ax: Axes, path: Path) -> bytes:
    """The figure of `ax` as the bytes of an SVG or PNG file, the same for the same picture.

    Raises:
        InputError: the ending is of another kind.
    """
    import matplotlib as mpl  # noqa: PLC0415 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path}: a picture is written as .svg or .png")
    figure = ax.get_figure()
    if not isinstance(figure, Figure):
        raise TypeError("these axes stand in no figure")
    stream = io.BytesIO()
    stamp: dict[str, Any] = {"Creator": f"peft-shop, Matplotlib {mpl.__version__}", "Date": None}
    metadata = stamp if form == "svg" else {"Software": None}
    with mpl.rc_context(_STYLE):
        figure.draw_without_rendering()  # the layout settles, whatever was drawn before
        figure.savefig(stream, format=form, dpi=144, metadata=metadata)
    return stream.getvalue()
