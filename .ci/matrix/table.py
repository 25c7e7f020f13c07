"""The table of results that stands in the documentation."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, Final

from matrix.machine import ROOT, facts
from matrix.sections import LIMIT, Section
from matrix.state import Outcome, State

RECOVERY: Final = 2.0
"""Seconds within which events are to flow again."""

TABLE: Final = ROOT / "docs" / "reference" / "test-matrix.md"

_INTRODUCTION: Final = """# Test matrix

What `.ci/full` saw on one machine; it writes this page.
*Not applicable* are rules for backends with history on one without, and the reverse;
*not proved* are rules that need a hook which that broker does not allow, such as stopping it.
Any other test that is skipped fails its section, and a section that takes more than ten minutes is marked.
"""


def write(state: State, sections: list[Section]) -> None:
    """Write the page from everything that is known about the commit."""
    today = datetime.datetime.now(datetime.UTC).date()
    bullets = [f"date: {today}", f"commit: {state.commit}", *(f"machine: {fact}" for fact in facts())]
    outcomes = [(section, [state.get(section.name, step.name) for step in section.steps]) for section in sections]
    parts = [
        _INTRODUCTION,
        "\n".join(f"- {bullet}" for bullet in bullets),
        _heading("Suites"),
        _rows(
            ("section", "broker", "passed", "failed", "not applicable", "not proved", "seconds", "result"),
            _suite_rows(outcomes),
        ),
        _heading("Faults", f"{_FAULT_WORDS}\n{_slow(state.rows())}"),
        _rows(
            ("backend", "fault", "broker", "received", "again", "gaps per channel", "recovery, s"),
            _fault_rows(state.rows()),
        ),
    ]
    TABLE.write_text("\n".join(parts), "utf-8")


_FAULT_WORDS: Final = """A publisher and a subscriber in two processes, 2,000 events each through `publish` and
`wait_published`, with a fault after the first 1,000.
*Received* counts different events, *again* those that came more than once.
*Recovery* is the end of the longest silence since the fault, counted from when the broker could be used again
(half-open: from the latest moment at which a probe misses)."""


def _heading(title: str, text: str = "") -> str:
    return f"\n## {title}\n" + (f"\n{text}\n" if text else "")


def _rows(titles: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    titles = tuple(titles)
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def _suite_rows(outcomes: list[tuple[Section, list[Outcome | None]]]) -> Iterable[tuple[object, ...]]:
    for section, found in outcomes:
        known = [outcome for outcome in found if outcome is not None]
        seconds = sum(outcome.seconds for outcome in known)
        yield (
            _title(section, found),
            _brokers(section, known),
            *(
                sum(getattr(outcome, name) for outcome in known)
                for name in ("passed", "failed", "skipped", "not_proved")
            ),
            round(seconds),
            _result(found) + (f", **over {LIMIT:.0f} s**" if seconds > LIMIT else ""),
        )


def _title(section: Section, found: list[Outcome | None]) -> str:
    return section.name if len(found) == 1 else f"{section.name} ({len(found)} times)"


def _brokers(section: Section, known: list[Outcome]) -> str:
    """Name the brokers that the section was about."""
    words = [broker.partition(" (")[0] for outcome in known for broker in outcome.brokers]
    return ", ".join(dict.fromkeys(words))


def _result(found: list[Outcome | None]) -> str:
    if any(outcome is None for outcome in found):
        return "not run"
    bad = [outcome for outcome in found if outcome is not None and not outcome.is_good]
    return "; ".join(dict.fromkeys(outcome.complaint for outcome in bad)) or "passed"


def _slow(rows: list[dict[str, Any]]) -> str:
    """Say how often the promise about recovery was not kept, which no test asserts: it depends on the machine."""
    seconds = [row["recovery"] for row in rows if row["kind"] == "fault"]
    slow = sum(each > RECOVERY for each in seconds)
    return f"It took longer than {RECOVERY:g} s in {slow} of {len(seconds)} cases."


def _fault_rows(rows: list[dict[str, Any]]) -> Iterable[tuple[object, ...]]:
    for row in rows:
        if row["kind"] == "fault":
            gaps = "; ".join(", ".join(reasons) or "none" for reasons in row["gaps"].values())
            received = f"{row['received']} of {row['published']}"
            yield row["backend"], row["fault"], row["broker"], received, row["repeated"], gaps, row["recovery"]
