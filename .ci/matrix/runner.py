"""Running steps and reading what pytest says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final
from xml.etree import ElementTree

from matrix.machine import ROOT
from matrix.sections import Section, Step
from matrix.state import Outcome, State

_STEP_TIMEOUT: Final = 1_800.0
"""Seconds; only against hanging."""


def run_section(section: Section, state: State) -> list[Outcome]:
    """Run the steps that have not passed on this commit."""
    with ExitStack() as stack:
        environment: dict[str, str] | None = None
        outcomes = []
        for step in section.steps:
            known = state.get(section.name, step.name)
            if known is None or not known.is_good:
                # Only now: preparing may take minutes, and a resume must not repeat it for nothing.
                if environment is None:
                    environment = stack.enter_context(section.prepare())
                known = run_step(section, step, state, environment)
            outcomes.append(known)
        return outcomes


def run_step(section: Section, step: Step, state: State, environment: Mapping[str, str]) -> Outcome:
    """Run pytest and remember how it went."""
    report = state.path(section.name, step.name, "xml")
    results = state.path(section.name, step.name, "results")
    for file in (report, results):
        file.unlink(missing_ok=True)
    started = time.monotonic()
    status, text = _run_pytest(step, [f"--junitxml={report}"], {**environment, "CHANNELS_TEST_RESULTS": str(results)})
    state.path(section.name, step.name, "log").write_text(text, "utf-8")
    counts = _counts(report.read_text("utf-8")) if report.exists() else Counter()
    outcome = Outcome(
        section.name,
        step.name,
        passed=counts["passed"],
        failed=counts["failure"] + counts["error"],
        skipped=counts["pytest.skip"],
        not_proved=counts["pytest.xfail"],
        seconds=round(time.monotonic() - started, 1),
        brokers=tuple(re.findall(r"^\w+ broker: (.*)$", text, re.MULTILINE)),
        complaint=_complaint(status, text, step),
    )
    state.put(outcome)
    return outcome


def _run_pytest(step: Step, options: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    command = [step.python(), "-m", "pytest", "-p", "no:cacheprovider", *step.arguments, *options]
    try:
        result = subprocess.run(
            command, cwd=ROOT, env=os.environ | dict(environment), timeout=_STEP_TIMEOUT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        return -1, exc.stdout.decode("utf-8", "replace") if isinstance(exc.stdout, bytes) else str(exc.stdout)
    return result.returncode, result.stdout


def _complaint(status: int, text: str, step: Step) -> str:
    if status != 0:
        return f"pytest ended with {status}"
    if step.proof and not re.search(step.proof, text):
        return f"the header does not say {step.proof!r}"
    return ""


def _counts(xml: str) -> Counter[str]:
    """Count the tests by their ends; the kit reports a rule that lacks a hook as an expected failure."""
    return Counter(_end(case) for case in ElementTree.fromstring(xml).iter("testcase"))


def _end(case: ElementTree.Element) -> str:
    for child in case:
        if child.tag in ("failure", "error"):
            return child.tag
        if child.tag == "skipped":
            return child.get("type", "pytest.skip")
    return "passed"
