"""The kit fails on deliberately broken backends, each by the rule that is meant for it."""

from __future__ import annotations

import re

import pytest
from broken_backends import (
    AnswersTooEarly,
    BrokenSubject,
    ComparesWithTheLastKey,
    ConnectsPerPublish,
    CountsWrongly,
    CutsOff,
    DecodesPayloads,
    DeliversAfterUnsubscribe,
    EndsByItself,
    GoesQuiet,
    LeavesASocket,
    LeavesATask,
    Limited,
    LosesTheFirstEvent,
    ReadsTopLater,
    ReordersABatch,
    RepeatsRetries,
    ReusesOffsets,
    SwallowsProbes,
    UpperCasesNames,
)
from memory_subject import RemoteBackend

from channels_core.testing import RULES, prove
from channels_core.testing.registry import Instances

CASES = {
    UpperCasesNames: ("names-that-differ-by-case-are-two-channels", "received .*not for us"),
    LosesTheFirstEvent: ("the-first-event-after-subscribing-arrives", "event 3 of 3 did not arrive"),
    ReordersABatch: ("a-batch-keeps-its-order", "not in its place"),
    GoesQuiet: ("a-broken-connection-is-heard", "went on in silence"),
    ReusesOffsets: ("lost-memory-starts-a-new-epoch", "epochs .'always'. go on"),
    ReadsTopLater: ("top-is-read-together-with-history", "the last event has .*, top says"),
    DecodesPayloads: ("any-bytes-arrive-unchanged", "invalid UTF-8: .* arrived as"),
    ConnectsPerPublish: ("calls-open-no-connection-each", "50 calls of each kind opened 50 connections"),
    AnswersTooEarly: ("subscribe-returns-when-it-is-confirmed", "of 100 events .* are lost|end.* did not arrive"),
    DeliversAfterUnsubscribe: ("nothing-arrives-after-unsubscribing", "after unsubscribe returned came"),
    RepeatsRetries: ("a-retry-is-stored-once", "received .b'1', b'1'"),
    ComparesWithTheLastKey: ("an-abandoned-attempt-behind-its-retry-is-stored-once", "b'3', b'2'"),
    EndsByItself: ("a-broken-connection-is-heard", "ended by itself"),
    SwallowsProbes: ("a-probe-comes-back", "event 1 of 1 did not arrive"),
    CutsOff: ("one-byte-too-many-is-refused", "2001 bytes were accepted"),
    CountsWrongly: ("the-largest-payload-arrives", "2001 bytes are more than 2000"),
}
"""Defect → the rule that is meant for it, and what the rule says."""


@pytest.mark.parametrize("instances", ["one", "several"])
@pytest.mark.parametrize("backend", CASES)
def test_a_broken_backend_is_caught_by_its_rule(backend: type[RemoteBackend], instances: Instances) -> None:
    """Each defect fails the rule that is meant for it, with one instance and with several."""
    rule, complaint = CASES[backend]
    outcome = prove(RULES[rule], BrokenSubject(backend), instances)
    assert outcome.status == "failed"
    assert re.search(complaint, outcome.detail)


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _ in CASES.values()))
def test_the_rule_passes_on_a_sound_backend(rule: str) -> None:
    """The same rules, on the same subject without a defect, pass."""
    for instances in RULES[rule].instances:
        outcome = prove(RULES[rule], BrokenSubject(Limited), instances)
        assert outcome.status == "passed", outcome.detail


@pytest.mark.parametrize(
    "backend, complaint",
    [(LeavesATask, "tasks are left"), (LeavesASocket, "unclosed"), (ConnectsPerPublish, "connections are left")],
)
def test_what_a_backend_leaves_behind_fails_whatever_rule_runs(backend: type[RemoteBackend], complaint: str) -> None:
    """A task, a socket or a connection that is left after on_shutdown fails any rule."""
    outcome = prove(RULES["subscribing-twice-delivers-once"], BrokenSubject(backend), "one")
    assert outcome.status == "failed"
    assert complaint in outcome.detail


def test_the_plugin_says_that_a_payload_is_too_large() -> None:
    """Where a limit is declared, the plugin's own answer is proved as well."""
    for instances in ("one", "several"):
        assert prove(RULES["too-large-is-said-by-the-plugin"], BrokenSubject(Limited), instances).status == "passed"
