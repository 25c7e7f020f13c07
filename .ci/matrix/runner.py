"""Running steps and reading what pytest says."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple
from xml.etree import ElementTree

from matrix.jobs import STOPPING, Ended, run_job
from matrix.sections import Section, Step
from matrix.state import Moved, Outcome, State

Tell = Callable[[str], None]
"""Takes a line for people."""

_SECTION_TIMEOUT: Final = 900.0
"""Seconds for all steps of a section, which should take less than `matrix.sections.LIMIT`; only against hanging."""

_SKIPS: Final = (
    "not applicable: ",  # a rule of the kit for other backends
    "needs a server",  # a snippet of a README
    "a cluster has one database, and Sentinel's test URL names its own",
)
"""How the reason of a test that may be skipped begins; any other one is a test that should have run."""


_SKIP: Final = "pytest.skip"


class Case(NamedTuple):
    """How a test ended: passed, failure, error, pytest.skip, or pytest.xfail, which is a rule that lacks a hook."""

    end: str
    reason: str = ""


def run_section(section: Section, state: State, tell: Tell) -> bool:
    """Run the steps that have not passed on this commit; return whether all of them have now."""
    missing = [step for step in section.steps if not _has_passed(state, section, step)]
    try:
        # Only where it is needed: preparing may take minutes, and a resume must not repeat it for nothing.
        with ExitStack() as stack:
            environment = stack.enter_context(section.prepare()) if missing and not STOPPING.is_set() else {}
            deadline = time.monotonic() + _SECTION_TIMEOUT
            for step in missing:
                if STOPPING.is_set():
                    break
                tell(f"{step.name} …")
                _run_step(section, step, state, environment, deadline - time.monotonic())
                tell(_words(state.get(section.name, step.name), step))
    except Moved as exc:
        tell(f"STOPPED: {exc}")
        # Whatever else is running is no better.
        STOPPING.set()
    except (OSError, subprocess.SubprocessError, SystemExit) as exc:
        tell(f"PREPARING FAILED, {type(exc).__name__}: {exc}")
        return False
    return all(_has_passed(state, section, step) for step in section.steps)


def _has_passed(state: State, section: Section, step: Step) -> bool:
    known = state.get(section.name, step.name)
    return known is not None and known.is_good


def _words(outcome: Outcome | None, step: Step) -> str:
    if outcome is None:
        return f"{step.name}: interrupted"
    counts = f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} not applicable"
    verdict = "" if outcome.is_good else f", NOT GOOD: {outcome.complaint}"
    return f"{step.name}: {counts} in {outcome.seconds} s{verdict}"


def _run_step(section: Section, step: Step, state: State, environment: Mapping[str, str], timeout: float) -> None:
    """Run pytest and remember how it went, unless it was interrupted."""
    report = state.path(section.name, step.name, "xml")
    results = state.path(section.name, step.name, "results")
    log = state.path(section.name, step.name, "log")
    for file in (report, results):
        file.unlink(missing_ok=True)
    with state.running(section.name, step.name):
        started = time.monotonic()
        command = [step.python(), "-m", "pytest", "-p", "no:cacheprovider", *step.arguments, f"--junitxml={report}"]
        ended = run_job(command, {**environment, "CHANNELS_TEST_RESULTS": str(results)}, log, timeout)
        seconds = time.monotonic() - started
    if not STOPPING.is_set():
        text = log.read_text("utf-8", "replace")
        cases = _cases(report.read_text("utf-8")) if report.exists() else []
        state.put(_outcome(section, step, cases, seconds, text, ended))


def _outcome(section: Section, step: Step, cases: Sequence[Case], seconds: float, text: str, ended: Ended) -> Outcome:
    counts = Counter(case.end for case in cases)
    return Outcome(
        section.name,
        step.name,
        passed=counts["passed"],
        failed=counts["failure"] + counts["error"],
        skipped=counts[_SKIP],
        not_proved=counts["pytest.xfail"],
        seconds=round(seconds, 1),
        brokers=tuple(re.findall(r"^\w+ broker: (.*)$", text, re.MULTILINE)),
        complaint=ended.complaint or _complaint(ended.status, text, step) or _unproved(cases),
    )


def _complaint(status: int, text: str, step: Step) -> str:
    if status != 0:
        return f"pytest ended with {status}"
    if step.proof and not re.search(step.proof, text, re.MULTILINE):
        return f"the header does not say {step.proof!r}"
    return ""


def _unproved(cases: Sequence[Case]) -> str:
    """Say what was left out for a reason that is none."""
    if not any(case.end == "passed" for case in cases):
        return "no test has passed"
    wrong = [case.reason for case in cases if case.end == _SKIP and not case.reason.startswith(_SKIPS)]
    return f"{len(wrong)} skipped: {'; '.join(dict.fromkeys(wrong))}" if wrong else ""


def _cases(xml: str) -> list[Case]:
    return [_case(element) for element in ElementTree.fromstring(xml).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    for child in element:
        if child.tag in ("failure", "error"):
            return Case(child.tag)
        if child.tag == "skipped":
            return Case(child.get("type", _SKIP), child.get("message", ""))
    return Case("passed")
