"""What was published beside what a trial measured, in words and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.documents import Cell, Column, Item, Listing, Row, Table, label
from peft_shop.show.figures import quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.beside import Beside, Orders

__all__ = ["agreement", "beside_parts", "beside_sentence"]


def beside_sentence(orders: Orders, row: Beside) -> str:
    """One configuration: "published: 47.4 %, rank 3 of 6; yours: 5.958, rank 1"."""
    published = quantity(row.published, orders.metric).text
    own = quantity(row.own, orders.own_metric).text
    return (
        f"published: {published}, rank {row.published_rank} of {len(orders.rows)}; "
        f"yours: {own}, rank {row.own_rank}"
    )


def agreement(orders: Orders) -> str:
    """How far the two orders agree, with the number of configurations behind it."""
    number = len(orders.rows)
    what = f"{orders.metric.label} on {orders.benchmark.title} and your {orders.own_metric.label}"
    if orders.tau is None:
        return f"{number} configuration{'s' if number > 1 else ''} with {what}: no order to compare"
    return f"Kendall's tau of the orders by {what}: {orders.tau:.2f} (n = {number})"


def beside_parts(orders: Orders, experiments: Iterable[str]) -> tuple[Listing | Table, ...]:
    """What was published of some experiments of the user's, for people and for programs."""
    names = set(experiments)
    rows = [row for row in orders.rows if row.experiment in names]
    if not rows:
        return ()
    items = [Item(f"{row.experiment}:", (beside_sentence(orders, row),)) for row in rows]
    number = len(orders.rows)
    keys = ("name", "benchmark", "published", "published_rank", "yours", "your_rank", "tau", "n")
    return (
        Listing("Published beside yours", (*items, Item("Together:", (agreement(orders),)))),
        Table(
            "published",
            "",
            tuple(Column(key, hidden=True) for key in keys),
            tuple(
                Row(
                    (
                        label(row.experiment),
                        label(orders.benchmark.id),
                        quantity(row.published, orders.metric),
                        Cell(str(row.published_rank), row.published_rank),
                        quantity(row.own, orders.own_metric),
                        Cell(str(row.own_rank), row.own_rank),
                        Cell("", orders.tau),
                        Cell(str(number), number),
                    )
                )
                for row in rows
            ),
        ),
    )
