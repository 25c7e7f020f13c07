"""The pytest face is honest: what is missing, replaced or not proved is said, and nothing else is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from memory_subject import MemorySubject

from channels_core.backend import ChannelsBackend
from channels_core.memory import MemoryChannelsBackend
from channels_core.testing import RULES, Rule, prove
from channels_core.testing.suite import ChannelsBackendSuite, problems_of

SMALLEST = """
from channels_core.memory import MemoryChannelsBackend
from channels_core.testing.suite import ChannelsBackendSuite

class TestSmallest(ChannelsBackendSuite):
    def make_backend(self):
        return MemoryChannelsBackend.from_url("memory://smallest")
"""


class Complete(MemorySubject, ChannelsBackendSuite):
    keeps_history = True


def test_a_complete_suite_has_no_problems() -> None:
    """Nothing removed, nothing replaced, all mandatory hooks: nothing to say."""
    assert problems_of(Complete()) == []


def test_a_removed_rule_is_found() -> None:
    """Setting a test to None does not take the rule away in silence."""

    class Removed(Complete):
        test_joins_are_exact = None

    assert problems_of(Removed()) == ["rule 'joins-are-exact' is removed without a reason; state one in overrides"]


def test_a_silently_overridden_rule_is_found() -> None:
    """A method of the same name needs a reason."""

    class Replaced(Complete):
        def test_joins_are_exact(self) -> None: ...

    assert problems_of(Replaced()) == ["rule 'joins-are-exact' is overridden without a reason; state one in overrides"]


def test_an_override_with_a_reason_is_good() -> None:
    """Whoever states why may replace a rule."""

    class Stated(Complete):
        overrides: ClassVar = {"joins-are-exact": "proved in test_joins.py with the real broker"}

        def test_joins_are_exact(self) -> None: ...

    assert problems_of(Stated()) == []


def test_a_reason_for_nothing_is_found() -> None:
    """Reasons that are empty, or that name a rule which still runs or does not exist, are errors."""

    class Stale(Complete):
        overrides: ClassVar = {"joins-are-exact": "", "no-such-rule": "x", "a-retry-is-stored-once": " "}
        test_a_retry_is_stored_once = None

    assert problems_of(Stale()) == [
        "overrides names 'joins-are-exact', which is no rule that this suite replaces",
        "overrides names 'no-such-rule', which is no rule that this suite replaces",
        "overrides names 'a-retry-is-stored-once' without a reason",
    ]


def test_history_without_its_hooks_is_found() -> None:
    """A backend with history must let the kit take its memory and trim it."""

    class Bare(ChannelsBackendSuite):
        keeps_history = True

        def make_backend(self) -> ChannelsBackend:
            return MemoryChannelsBackend(100)

    assert problems_of(Bare()) == [
        "a backend with history must have the hook lose_memory()",
        "a backend with history must have the hook trim()",
    ]


def test_hooks_may_be_bound_by_a_fixture() -> None:
    """A server that a fixture gives brings its hooks with it."""
    bound = Complete()
    bound.lose_memory = None  # type: ignore[assignment, method-assign]  # as a fixture would
    assert problems_of(bound) == ["a backend with history must have the hook lose_memory()"]
    bound.lose_memory = Complete().lose_memory  # type: ignore[method-assign]  # as a fixture would
    assert problems_of(bound) == []


def test_the_guard_cannot_be_replaced() -> None:
    """A suite that replaces the guard is not even defined."""
    with pytest.raises(TypeError, match="guards the others"):
        type("Unguarded", (Complete,), {"test_the_suite_is_complete": None})


def test_rules_cannot_be_switched_off_together() -> None:
    """A suite has no method that all rules go through, and that it could override."""

    class Idle(ChannelsBackendSuite):
        def _prove(self, *_: object) -> None: ...

        def make_backend(self) -> ChannelsBackend:
            raise OSError("no such broker")

    with pytest.raises(AssertionError, match="no such broker"):
        Idle().test_subscribing_twice_delivers_once("one")  # type: ignore[attr-defined]  # made from the rules


def test_what_is_not_proved_never_passes(tmp_path: Path) -> None:
    """Under ``--runxfail``, which reports expected failures as failures, a rule without its hook is one."""
    done = _run_smallest(tmp_path, "heard", "--runxfail")
    assert "2 failed" in done.stdout.splitlines()[-1], done.stdout
    assert "not proved: needs cut_connections()" in done.stdout


def test_seven_lines_are_a_suite_and_missing_hooks_are_told(tmp_path: Path) -> None:
    """A third party's file needs no plugin; missing hooks are neither passed nor skipped, and listed at the end."""
    done = _run_smallest(tmp_path, "complete or twice or heard or stored_once")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert "conformance of TestSmallest: 1 rules not proved" in done.stdout
    assert "a-broken-connection-is-heard: needs cut_connections()" in lines
    assert "3 passed" in lines[-1]
    assert "2 xfailed" in lines[-1]
    assert "skipped" in lines[-1]


def _run_smallest(folder: Path, chosen: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_smallest.py").write_text(SMALLEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-k", chosen, "."]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)


class Counting(MemorySubject):
    """Keeps the backends that a rule was given."""

    def __init__(self, *, keeps_history: bool) -> None:
        self.keeps_history = keeps_history
        self.made: list[ChannelsBackend] = []

    def make_backend(self) -> ChannelsBackend:
        self.made.append(super().make_backend())
        return self.made[-1]


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_every_rule_is_tried_with_several_instances(rule: Rule) -> None:
    """However little a rule needs another instance, it must hold beside one."""
    subject = Counting(keeps_history=rule.history is not False)
    outcome = prove(rule, subject, "several")
    assert outcome.status in ("passed", "not applicable"), outcome.detail
    assert len(subject.made) >= 2 or outcome.status == "not applicable"


def test_every_rule_is_a_test_with_one_instance_and_with_several() -> None:
    """The suite runs each rule in both ways."""
    for rule in RULES.values():
        (mark,) = getattr(ChannelsBackendSuite, f"test_{rule.id.replace('-', '_')}").pytestmark
        assert mark.args == ("instances", ("one", "several"))


def test_every_rule_has_words_for_people() -> None:
    """One sentence and one hint each, short enough for a table."""
    for rule in RULES.values():
        assert rule.sentence.endswith("."), rule.id
        assert rule.troubleshooting.endswith("."), rule.id
        assert len(rule.sentence) <= 120, rule.id
