"""The page of the documentation, made of results and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from channels_bench.catalogue import SYSTEMS
from channels_bench.explain import explanations
from channels_bench.goals import GOALS
from channels_bench.judging import Verdict, judge
from channels_bench.measure import Measured, ratio
from channels_bench.plan import WORKLOADS, Workload
from channels_bench.store import results_of

__all__ = ("write_page",)

_TITLES: Final = {"memory": "In memory", "redis": "Redis", "postgres": "PostgreSQL", "web": "Through a web server"}

_INTRODUCTION: Final = """\
# Performance

This page, its numbers and its plots are written by `uv run channels-bench`; whoever edits them by hand loses the edit.
[The raw results](performance.json) hold every sample.

Compare within a row group only: all systems of a workload ran in one run, in turn, round after round,
on one machine, with servers on loopback.
A number is the median of the rounds, ± half the distance between the best and the worst round.
*channels against it* says how many times better our system is than the one in the row, whatever the unit
(of several of ours, the one named in the row group's first line); below 1 we are worse.

Peers are used as their documentation shows, each with the fastest way to publish that it offers by itself.
A *floor* is not a system: it is the least code that does the same work, with nothing that a system must do beside it.
The deque floor is a deque and one future per subscriber, consumed with `async for`; the bare loop has no iterator;
the callback floor has no consumer tasks at all. PostgreSQL runs with `fsync=off`, for everybody.
Events are 100 bytes.
The garbage collector runs as usual, but what a round has set up is kept out of its way (`gc.freeze`).
A system that takes more than eight seconds to leave is not waited for: its number is projected from those that had
left by then, which is what *left* says.
What is asked of a broker when idle is what the kernel counts on the process's own connections.

In an outage, *accepted* is what the system said it had published; *lost* is what of it a subscriber never got;
*announced* is what of that lies where the subscriber was told that something may be missing; the rest is lost silently.
"""


def write_page(stored: Mapping[str, Any], plots: Sequence[str]) -> str:
    """Return the page.

    Args:
        stored: What `channels_bench.store` keeps.
        plots: Names of pictures in the folder ``performance`` beside the page.
    """
    results = results_of(stored)
    verdicts = list(judge(results, GOALS))
    parts = [_INTRODUCTION, *_goals(verdicts), *explanations(verdicts, stored), *_facts(stored), *_plots(plots)]
    for section, title in _TITLES.items():
        workloads = [each for each in WORKLOADS if each.section == section and each.name in results]
        if workloads:
            parts.append(f"## {title}\n")
            parts.extend(_table(each, results[each.name]) for each in workloads)
    return "\n".join(parts)


def _goals(verdicts: Sequence[Verdict]) -> Iterator[str]:
    if not verdicts:
        return
    met = sum(each.met for each in verdicts)
    yield f"## Goals\n\n{met} of {len(verdicts)} measured goals are met.\n"
    rows = [_goal_row(each) for each in verdicts]
    yield "\n".join(["| goal | required | measured | |", "| --- | --- | --- | --- |", *rows, ""])


def _goal_row(verdict: Verdict) -> str:
    goal = verdict.goal
    sign = "≥" if goal.at_least else "≤"
    outcome = "met" if verdict.met else f"**not met**: {verdict.share:.0%} of it"
    return (
        f"| {goal.text} | {sign} {_number(goal.limit)}{goal.unit} | {_number(verdict.value)}{goal.unit} | {outcome} |"
    )


def _facts(stored: Mapping[str, Any]) -> Iterator[str]:
    """Tell when and where, once for each different circumstance."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for name, entry in stored["workloads"].items():
        facts = entry["facts"]
        mode = f"{facts['repeats']} rounds at most" + (", `--quick`" if facts["quick"] else "")
        versions = ", ".join(f"{package} {number}" for package, number in facts["packages"].items())
        day = facts["date"].split()[0]
        runs.setdefault((day, facts["machine"], facts["python"], mode, versions), []).append(name)
    servers = sorted({server for entry in stored["workloads"].values() for server in entry["facts"]["servers"]})
    yield "## Where and when\n"
    for (day, machine, python, mode, versions), names in runs.items():
        which = "" if len(runs) == 1 else f" ({len(names)} workloads)"
        yield f"- {day}: {machine}; {python}; {mode}{which}; {versions}"
    yield f"- servers: {', '.join(servers) or 'none'}\n"


def _plots(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"![{name.removesuffix('.png')}](performance/{name})\n"


def _table(workload: Workload, rows: Mapping[str, Measured]) -> str:
    if workload.columns:
        return _counts(workload, rows)
    ours = next(name for name in workload.systems if SYSTEMS[name].kind == "ours")
    lines = [f"### {_capital(workload.title)}\n", f"Compared with: {SYSTEMS[ours].label}.\n"]
    notes = sorted({name for measured in rows.values() for name in measured.extra})
    heads = ["system", "", workload.unit, "±", "channels against it", *(name.replace("_", " ") for name in notes)]
    lines += ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    reference = rows[ours].value if ours in rows else None
    lines += [_row(workload, name, measured, reference, notes) for name, measured in rows.items()]
    return "\n".join(lines) + "\n"


def _counts(workload: Workload, rows: Mapping[str, Measured]) -> str:
    """Return a table of what was counted, where no single number is better or worse than another."""
    heads = ["system", "", *(name.replace("_", " ") for name in workload.columns)]
    lines = [f"### {_capital(workload.title)}\n", "| " + " | ".join(heads) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(workload.columns))
    for name, measured in rows.items():
        entry = SYSTEMS[name]
        cells = [entry.label, entry.kind]
        if measured.value is None:
            cells += [f"failed: {_plain(measured.error)}", *[""] * (len(workload.columns) - 1)]
        else:
            cells += [_number(measured.extra[column]) for column in workload.columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _row(workload: Workload, name: str, measured: Measured, reference: float | None, notes: Sequence[str]) -> str:
    entry = SYSTEMS[name]
    if measured.value is None:
        return f"| {entry.label} | {entry.kind} | failed: {_plain(measured.error)} | | |" + " |" * len(notes)
    against = (
        f"{ratio(reference, measured.value, higher_is_better=workload.higher_is_better):,.2f}"
        if reference is not None
        else ""
    )
    cells = [entry.label, entry.kind, _number(measured.value), f"{measured.spread:.0%}", against]
    cells += [_number(measured.extra[note]) if note in measured.extra else "" for note in notes]
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(error: str) -> str:
    """Return one short line without anything of the machine in it."""
    words = [word for word in error.replace("|", " ").split() if "/" not in word]
    return " ".join(words)[:120]
