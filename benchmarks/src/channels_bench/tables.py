"""What the terminal shows of a workload once it is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from channels_bench.catalogue import SYSTEMS
from channels_bench.measure import Measured, ratio
from channels_bench.plan import Workload

__all__ = ("table",)


def table(workload: Workload, measured: Mapping[str, Measured]) -> Table:
    """Return a row per system: what was counted, or the value, its spread and how we compare."""
    return _counts(workload, measured) if workload.columns else _values(workload, measured)


def _values(workload: Workload, measured: Mapping[str, Measured]) -> Table:
    drawn = _empty(workload, (workload.unit, "±", "ours is times better"))
    ours = next(measured[name].value for name in workload.systems if SYSTEMS[name].kind == "ours")
    for name, each in measured.items():
        entry = SYSTEMS[name]
        if each.value is None:
            drawn.add_row(entry.label, entry.kind, each.error[:60])
            continue
        against = ratio(ours, each.value, higher_is_better=workload.higher_is_better) if ours is not None else None
        number = f"{each.value:,.4g}" if each.value < 100 else f"{each.value:,.0f}"
        drawn.add_row(
            entry.label, entry.kind, number, f"{each.spread:.0%}", "" if against is None else f"{against:.2f}"
        )
    return drawn


def _counts(workload: Workload, measured: Mapping[str, Measured]) -> Table:
    drawn = _empty(workload, [name.replace("_", " ") for name in workload.columns])
    for name, each in measured.items():
        entry = SYSTEMS[name]
        cells = [each.error[:60]] if each.value is None else [f"{each.extra[key]:.0f}" for key in workload.columns]
        drawn.add_row(entry.label, entry.kind, *cells)
    return drawn


def _empty(workload: Workload, heads: Iterable[str]) -> Table:
    drawn = Table(title=f"{workload.name}: {workload.title}", title_justify="left")
    for head in ("system", "kind"):
        drawn.add_column(head)
    for head in heads:
        drawn.add_column(head, justify="right")
    return drawn
