"""What the page says of a goal that is not met: the reasons that we know, and where the time or the memory goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from channels_bench.catalogue import SYSTEMS
from channels_bench.judging import Compare, Goal, Times, Verdict
from channels_bench.plan import WORKLOADS

__all__ = ("explanations", "unexplained")

_INTRODUCTION: Final = """\
## Why some goals are not met

The profiles are of one more round each, of our system and of the floor that it was compared with, under `cProfile`:
setting the round up is in them, waiting is not, and calls of small functions weigh more than without the profiler.
Memory is what `tracemalloc` counts, in bytes per subscriber.
"""

_HEADS: Final = {"": ("function", "calls", "own time"), "idle_memory_lines": ("line", "bytes", "share")}


def unexplained(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """Return each workload and system whose profile says why a goal is not met, once.

    These are our system, and the floor that it was compared with.
    """
    pairs = [
        (verdict.goal.measure.workload, system)
        for verdict in verdicts
        if not verdict.met
        for system in (verdict.goal.measure.system, *_floors(verdict.goal))
    ]
    return list(dict.fromkeys(pairs))


def explanations(verdicts: Sequence[Verdict], stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the part of the page on goals that are not met: reasons first, then a profile per workload and system."""
    missed = [verdict.goal for verdict in verdicts if not verdict.met]
    if not missed:
        return
    yield _INTRODUCTION
    reasons = [f"- {goal.text}: {goal.why}" for goal in missed if goal.why]
    if reasons:
        yield "\n".join(reasons) + "\n"
    profiles = stored.get("profiles", {})
    for workload, system in unexplained(verdicts):
        rows = profiles.get(workload, {}).get(system)
        if rows:
            yield _profile(workload, system, rows)


def _floors(goal: Goal) -> Sequence[str]:
    match goal.measure:
        case Compare(others=others):
            names: Sequence[str] = others
        case Times(other=other):
            names = (other,)
        case _:
            names = ()
    return [name for name in names if SYSTEMS[name].kind == "floor"]


def _profile(workload: str, system: str, rows: Sequence[Mapping[str, Any]]) -> str:
    plan = next(each for each in WORKLOADS if each.name == workload)
    heads = _HEADS[plan.profile]
    lines = [
        f"Profile of {SYSTEMS[system].label}, {plan.section}: {plan.title}.\n",
        "| " + " | ".join(heads) + " |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| `{row['where']}` | {row['calls']:,} | {row['share']:.0%} |" for row in rows]
    return "\n".join(lines) + "\n"
