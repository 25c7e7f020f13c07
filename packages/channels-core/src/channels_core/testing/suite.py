"""The pytest face of the kit: subclass `ChannelsBackendSuite`, and every rule is a test.

::

    class TestMyBackend(ChannelsBackendSuite):
        keeps_history = True

        def make_backend(self) -> ChannelsBackend:
            return MyBackend("mine://localhost")

        async def lose_memory(self) -> None: ...

        async def trim(self, channel: str, keep: int) -> None: ...

The tests are synchronous and run each rule in an event loop of its own, so no asyncio plugin is needed. A rule that
does not apply is skipped with the reason; one that lacks a hook is reported as an expected failure, "not proved", and
listed once more at the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import pytest

import channels_core.testing.rules  # noqa: F401 - registers the rules
from channels_core.testing.registry import INSTANCES, RULES, Instances, Rule
from channels_core.testing.runner import Outcome, prove
from channels_core.testing.subject import MANDATORY_WITH_HISTORY, Subject

__all__ = ("ChannelsBackendSuite", "problems_of")

GUARD: Final = "test_the_suite_is_complete"

_NOT_PROVED: Final = pytest.StashKey[dict[str, set[str]]]()


class ChannelsBackendSuite(Subject):
    """Prove a backend: one test for each rule and way to run it.

    A pytest fixture that is needed, such as a server, can be bound by an autouse fixture of the subclass.

    Attributes:
        overrides: Rules that the subclass replaces by a method of its own, or removes: id → reason. Without a reason
            stated here, the guard `test_the_suite_is_complete` fails.
    """

    overrides: ClassVar[Mapping[str, str]] = {}

    def test_the_suite_is_complete(self) -> None:
        """No rule is removed or silently overridden, and mandatory hooks are there."""
        problems = problems_of(self)
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if getattr(cls, GUARD, None) is not ChannelsBackendSuite.test_the_suite_is_complete:
            raise TypeError(f"{cls.__name__} replaces {GUARD}, which guards the others; state reasons in overrides")

    @pytest.fixture(autouse=True)
    def _report_at_the_end(self, request: pytest.FixtureRequest) -> None:
        """Make pytest's summary list what is not proved."""
        config = request.config
        if _NOT_PROVED not in config.stash:
            config.stash[_NOT_PROVED] = {}
            config.pluginmanager.register(_Summary(config.stash[_NOT_PROVED]))
        self._not_proved = config.stash[_NOT_PROVED].setdefault(type(self).__qualname__, set())


class _Summary:
    """Prints at the end of a run which rules were not proved."""

    def __init__(self, not_proved: dict[str, set[str]]) -> None:
        self._not_proved = not_proved

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for suite, details in self._not_proved.items():
            if details:
                terminalreporter.section(f"conformance of {suite}: {len(details)} rules not proved")
                for detail in sorted(details):
                    terminalreporter.write_line(detail)


def problems_of(suite: ChannelsBackendSuite) -> list[str]:
    """List rules that were removed or overridden without a reason, reasons without a rule, and missing hooks.

    Hooks may be bound by a fixture of the suite, so they are looked for on the instance.
    """
    problems = [
        f"rule {rule.id!r} is {_changed(suite, rule)} without a reason; state one in overrides"
        for rule in RULES.values()
        if _changed(suite, rule) and rule.id not in suite.overrides
    ]
    for identity, reason in suite.overrides.items():
        if identity not in RULES or not _changed(suite, RULES[identity]):
            problems.append(f"overrides names {identity!r}, which is no rule that this suite replaces")
        elif not reason.strip():
            problems.append(f"overrides names {identity!r} without a reason")
    if suite.keeps_history:
        missing = suite.missing_hooks(MANDATORY_WITH_HISTORY)
        problems += [f"a backend with history must have the hook {name}()" for name in missing]
    return problems


def _changed(suite: ChannelsBackendSuite, rule: Rule) -> str:
    name = _method_name(rule)
    method = getattr(type(suite), name, None)
    if method is getattr(ChannelsBackendSuite, name):
        return ""
    return "overridden" if callable(method) else "removed"


def _tell_pytest(outcome: Outcome) -> None:
    rule = outcome.rule
    if outcome.status == "not applicable":
        pytest.skip(f"not applicable: {outcome.detail}")
    if outcome.status == "not proved":
        # pytest.xfail() does nothing under --runxfail, and the test would pass.
        raise pytest.xfail.Exception(f"not proved: {outcome.detail}")
    if outcome.status == "failed":
        text = f"rule {rule.id}, {outcome.instances} instance(s): {rule.sentence}\n{outcome.detail}"
        raise AssertionError(f"{text}\nTroubleshooting: {rule.troubleshooting}") from outcome.error


def _method_name(rule: Rule) -> str:
    return f"test_{rule.id.replace('-', '_')}"


def _test_of(rule: Rule) -> Callable[..., None]:
    def test(self: ChannelsBackendSuite, instances: Instances) -> None:
        # Nothing of the suite's own lies in between: a method could be overridden, and with it every rule.
        outcome = prove(rule, self, instances)
        if outcome.status == "not proved":
            self._not_proved.add(f"{rule.id}: {outcome.detail}")
        _tell_pytest(outcome)

    test.__name__ = _method_name(rule)
    test.__qualname__ = f"{ChannelsBackendSuite.__name__}.{test.__name__}"
    test.__doc__ = rule.sentence
    return pytest.mark.parametrize("instances", INSTANCES)(test)


for _rule in RULES.values():
    setattr(ChannelsBackendSuite, _method_name(_rule), _test_of(_rule))
