"""Pictures of results: one per section, a panel per workload, bars as long as the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from channels_bench.catalogue import SYSTEMS
from channels_bench.measure import Measured, Results
from channels_bench.plan import WORKLOADS, Workload

__all__ = ("draw",)

_COLOURS: Final = {"ours": "#2563eb", "peer": "#9ca3af", "floor": "#d6d3d1"}


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what was measured and return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    sections: dict[str, list[Workload]] = {}
    for workload in WORKLOADS:
        if any(each.value is not None for each in results.get(workload.name, {}).values()):
            sections.setdefault(workload.section, []).append(workload)
    for section, workloads in sections.items():
        _draw_section(workloads, results, folder / f"{section}.png")
    return [f"{section}.png" for section in sections]


def _draw_section(workloads: Sequence[Workload], results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [len(results[each.name]) + 1.5 for each in workloads]
    figure, axes = pyplot.subplots(
        len(workloads), 1, figsize=(9, 0.26 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axis, workload in zip(axes[:, 0], workloads, strict=True):
        _draw_panel(axis, workload, results[workload.name])
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_panel(axis: Any, workload: Workload, rows: Mapping[str, Measured]) -> None:
    bars = [(SYSTEMS[name], each.value) for name, each in rows.items() if each.value is not None][::-1]
    axis.barh(
        [entry.label for entry, _ in bars],
        [value for _, value in bars],
        color=[_COLOURS[entry.kind] for entry, _ in bars],
    )
    better = "longer" if workload.higher_is_better else "shorter"
    axis.set_title(f"{workload.title} ({workload.unit}, {better} is better)", fontsize=9, loc="left")
    axis.bar_label(axis.containers[0], [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for _, value in bars],
                   fontsize=7, padding=3)  # fmt: skip
    axis.tick_params(labelsize=7)
    axis.set_xticks([])
    axis.margins(x=0.12)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
