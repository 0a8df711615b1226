"""From peaks of candidates at all rungs: which rung each takes, and which one is the answer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from peft_shop.catalog.features import QuantizationBackend
    from peft_shop.forecast.grid import Fittable, Grid
    from peft_shop.forecast.ladder import Rung

__all__ = ["GridChoice", "denials"]

_SHARE: Final = 0.8
"""Of the candidates that fit in a class, for which the answer's one setup has to do."""
_FASTER: Final = 0.9
"""Share of the answer's time below which a candidate keeps a faster setup of its own."""
_HALF: Final = 0.5
"""Of all that fit, the share that a class has to hold for the answer's setup to be of it."""


def denials(
    fittable: Fittable,
    rung: Rung,
    *,
    stored: QuantizationBackend | None,
    fixed: Collection[str],
    prepared: bool,
) -> Iterator[str]:
    """Capabilities that a candidate lacks for a rung; '' for what is not its own way.

    Args:
        fittable: the candidate.
        rung: the setup.
        stored: backend of a base that is quantized already.
        fixed: fields that the user stated.
        prepared: whether a base in bits is prepared in float32 unless its method needs otherwise.
    """
    step = rung.settings
    backend = step.quantization or stored
    if step.gradient_checkpointing and not fittable.checkpointing and fittable.config is not None:
        yield "gradient_checkpointing"
    if step.fused_loss and not fittable.chunked:
        yield ""
    if step.optimizer == "adamw_8bit" and "optimizer" in rung.changes and not fittable.plain_adamw:
        yield ""
    if backend is None:
        return
    if fittable.config is None:
        yield ""
        return
    ways = {"bnb_4bit": fittable.bnb_4bit, "bnb_8bit": fittable.bnb_8bit}
    way = ways.get(backend, "yes")
    if way == "no":
        yield f"quantization.{backend}"
    if backend == "bnb_8bit" and "quantization" in rung.changes and fittable.bnb_4bit != "no":
        yield ""
    if backend not in ways:
        if step.prepare_kbit and "prepare_kbit" not in fixed:
            yield ""
        return
    wanted = {"prepared": True, "as_loaded": False}.get(way)
    if wanted is None and "prepare_kbit" not in fixed:
        wanted = prepared
    if wanted is not None and step.prepare_kbit != wanted:
        yield "" if "prepare_kbit" not in fixed else f"quantization.{backend}"


class GridChoice:
    """Choices from a grid.

    Args:
        grid: peaks; its columns are the ladder, the cheapest first.
        fixed: fields that the user stated.
        prepared: whether a base in bits is prepared in float32 unless its method needs otherwise.
        usable: what the allocator may take [B].
        wanted: rows of the candidates, without that of the reference.

    Attributes:
        denied: per row and column, the capabilities that the candidate lacks.
        allowed: (n, m) whether it lacks none.
        sure: (n, m) allowed, and fits surely.
        near: (n, m) allowed, and too close to call.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        fixed: frozenset[str],
        prepared: bool,
        usable: int,
        wanted: Sequence[int],
    ) -> None:
        self.grid = grid
        self.fixed = fixed
        self.prepared = prepared
        self.usable = usable
        self.wanted = list(wanted)
        rungs = grid.rungs
        # many candidates can do the same
        known: dict[tuple[object, ...], list[tuple[str, ...]]] = {}
        for one in grid.rows:
            if one.abilities not in known:
                known[one.abilities] = [tuple(self._denials(one, rung)) for rung in rungs]
        self.denied = [known[one.abilities] for one in grid.rows]
        free = {key: np.array([not denied for denied in row]) for key, row in known.items()}
        self.allowed = np.zeros((len(grid.rows), len(rungs)), dtype=bool)
        for row, one in enumerate(grid.rows):
            self.allowed[row] = free[one.abilities]
        sure = grid.high <= usable
        if rungs[0].settings.attention == "eager":
            # how much of it is lost to holes depends on the order of allocations
            sure = np.zeros_like(sure)
        self.sure = sure & self.allowed
        self._alike = [rung.alike for rung in rungs]
        self.near = (grid.low <= usable) & self.allowed & ~self.sure

    def _denials(self, fittable: Fittable, rung: Rung) -> Iterator[str]:
        return denials(
            fittable,
            rung,
            stored=self.grid.structure.quantization,
            fixed=self.fixed,
            prepared=self.prepared,
        )

    # --- one candidate

    def _least(self, row: int, columns: NDArray[np.bool_]) -> int | None:
        """The cheapest of the marked rungs: least cost, then least bytes."""
        marked = np.flatnonzero(columns)
        if not len(marked):
            return None
        cost = self.grid.rungs[marked[0]].cost
        equal = [column for column in marked if self.grid.rungs[column].cost == cost]
        return int(min(equal, key=lambda column: self.grid.values[row, column]))

    def cheapest(self, row: int) -> int | None:
        """The candidate's rung: surely, else likely, else possibly."""
        likely = self.near[row] & (self.grid.values[row] <= self.usable)
        for marked in (self.sure[row], likely, self.near[row]):
            column = self._least(row, marked)
            if column is not None:
                return column
        return None

    def alternative(self, row: int, column: int) -> int | None:
        """A rung with less effect on the result that is too close to call."""
        rungs = self.grid.rungs
        if not rungs[column].slight:
            return None
        same = np.array([not rung.slight for rung in rungs])
        return self._least(row, same & self.near[row] & (self.grid.values[row] <= self.usable))

    # --- all candidates

    def common(self) -> tuple[object, ...] | None:
        """What the answer's setup is for all, by `Rung.alike`; `None` where nothing fits."""
        likely = self.near & (self.grid.values <= self.usable)
        for marked in (self.sure, likely, self.near):
            found = self._shared(marked[self.wanted])
            if found is not None:
                return found
        return None

    def _shared(self, marked: NDArray[np.bool_]) -> tuple[object, ...] | None:
        """The cheapest kind of setup that does for most candidates of its class."""
        rungs = self.grid.rungs
        kinds: dict[tuple[object, ...], list[int]] = {}
        for column, alike in enumerate(self._alike):
            kinds.setdefault(alike, []).append(column)
        if not marked.any():
            return None
        classes = np.array([rung.slight for rung in rungs])
        pools = {slight: marked[:, classes == slight].any(axis=1) for slight in (False, True)}
        everyone = int(marked.any(axis=1).sum())
        best: tuple[float, tuple[object, ...]] | None = None
        size = np.median(self.grid.values[self.wanted], axis=0)
        order = sorted(kinds.items(), key=lambda item: (rungs[item[1][0]].cost, size[item[1][0]]))
        for kind, columns in order:
            slight = rungs[columns[0]].slight
            pool = pools[slight]
            # few that fit unquantized do not decide for the many that do not
            if not pool.any() or pool.sum() < _HALF * everyone:
                continue
            share = float(marked[:, columns].any(axis=1).sum() / pool.sum())
            if share >= _SHARE:
                return kind
            if best is None or share > best[0]:
                best = share, kind
        return None if best is None else best[1]

    def of_common(self, row: int, common: tuple[object, ...] | None) -> int | None:
        """The candidate's own rung of the answer's kind."""
        columns = (
            column
            for column, alike in enumerate(self._alike)
            if alike == common and self.allowed[row, column]
        )
        return next(columns, None)

    def takes(self, row: int, column: int, mine: int) -> bool:
        """Whether a candidate gives up its own rung for the answer's."""
        rungs = self.grid.rungs
        if self.sure[row, mine] and not self.sure[row, column]:
            return False
        if not (self.sure[row, column] or self.near[row, column]):
            return False
        if rungs[mine].slight < rungs[column].slight and self.sure[row, mine]:
            return False
        return rungs[mine].time >= _FASTER * rungs[column].time

    def compared(self, row: int, common: tuple[object, ...] | None, mine: int | None) -> int:
        """The rung at which a candidate is compared with the others."""
        column = self.of_common(row, common)
        if column is not None:
            return column
        if mine is not None:
            return mine
        allowed = np.where(self.allowed[row], self.grid.values[row], np.inf)
        return int(allowed.argmin())

    def lacking(self, own: Mapping[int, int | None]) -> dict[str, tuple[str, ...]]:
        """Capabilities with which candidates that do not fit would."""
        found = {}
        possible = self.grid.low <= self.usable
        for row, column in own.items():
            if column is not None:
                continue
            sets = [
                self.denied[row][other]
                for other in np.flatnonzero(possible[row])
                if self.denied[row][other] and "" not in self.denied[row][other]
            ]
            if sets:
                found[self.grid.rows[row].key] = min(sets, key=len)
        return found
