"""The kit fails on deliberately broken backends, each by the rule that is meant for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import broken_histories as histories
import broken_lifecycles as lifecycles
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
from channels_core.testing.registry import INSTANCES, Instances

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
    subject = BrokenSubject(Limited)
    subject.call_timeout = 15.0
    for instances in INSTANCES:
        outcome = prove(RULES[rule], subject, instances)
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


def test_a_complaint_of_the_event_loop_names_its_culprit() -> None:
    """A task that failed and that nobody looked at is told with its name, or nobody finds it."""

    class Forgets(RemoteBackend):
        async def subscribe(self, channels: Sequence[str]) -> None:
            await super().subscribe(channels)
            await asyncio.wait([asyncio.create_task(self.fail())])

        async def fail(self) -> None:
            raise OSError("gone")

    outcome = prove(RULES["subscribing-twice-delivers-once"], BrokenSubject(Forgets), "one")
    assert outcome.status == "failed"
    assert re.search("never retrieved OSError.*gone.*Forgets.fail", outcome.detail)


def test_the_plugin_says_that_a_payload_is_too_large() -> None:
    """Where a limit is declared, the plugin's own answer is proved as well."""
    subject = BrokenSubject(Limited)
    subject.call_timeout = 15.0
    for instances in ("one", "several"):
        assert prove(RULES["too-large-is-said-by-the-plugin"], subject, instances).status == "passed"


MORE = {
    lifecycles.NormalisesNames: ["names-that-differ-by-a-space-or-an-accent-are-two-channels"],
    lifecycles.CutsNames: ["long-names-that-begin-alike-are-two-channels", "histories-of-similar-names-stay-apart"],
    lifecycles.QuotesNames: ["awkward-names-arrive-unchanged"],
    lifecycles.DeliversPerSubscription: ["subscribing-twice-delivers-once"],
    lifecycles.TakesAHundredNames: ["a-thousand-channels-in-one-call"],
    lifecycles.LeavesForAll: ["leaving-is-for-oneself-only"],
    lifecycles.MindsTheUnknown: ["unsubscribing-the-unknown-is-no-error"],
    lifecycles.RestartsToSubscribe: ["churn-loses-nothing"],
    lifecycles.StartsOnce: [
        "a-stopped-backend-starts-again",
        "after-a-break-it-starts-again",
        "a-plugin-starts-again",
    ],
    lifecycles.KeepsItsLoop: ["a-stopped-backend-starts-in-another-event-loop"],
    lifecycles.StopsOnce: ["stopping-is-idempotent"],
    lifecycles.EndsQuietly: ["stopping-ends-the-stream"],
    lifecycles.StopsOthers: ["stopping-one-leaves-the-others-alone"],
    lifecycles.SaysGoodBye: ["stopping-is-bounded-while-the-broker-is-away"],
    lifecycles.SwallowsFailures: [
        "a-publish-that-fails-raises-and-the-next-works",
        "an-outage-is-survived",
        "a-plugin-stops-in-time-while-the-broker-is-away",
    ],
    lifecycles.StartsWithoutBroker: ["starting-without-a-broker-raises"],
    lifecycles.WantsReceivers: ["publishing-needs-no-receiver"],
    lifecycles.PublishesToTheFirst: [
        "one-event-for-several-channels-comes-once-in-each",
        "a-plugin-delivers-once-per-channel",
        "one-shot-iterators-reach-every-channel",
    ],
    histories.CreatesByReading: ["reading-creates-nothing"],
    histories.GivesTheOldest: ["history-gives-the-newest-up-to-a-limit", "joins-are-exact"],
    histories.GivesTheNewest: [
        "after-gives-the-oldest-that-follow",
        "the-origin-is-before-everything",
        "pages-add-up",
        "pages-begin-where-history-does",
        "pages-cross-an-epoch-border",
    ],
    histories.IncludesAfter: ["nothing-follows-the-top"],
    histories.ForgetsEpochs: ["an-unknown-epoch-is-before-everything", "pages-go-on-behind-lost-memory"],
    histories.LeavesOutUnused: ["tops-are-those-of-history"],
    histories.CountsInTwos: ["positions-are-consecutive-across-instances"],
    histories.CountsInTheInstance: [
        "history-is-what-was-delivered",
        "all-instances-see-one-order",
    ],
    histories.ReplaysHistory: ["joining-again-replays-nothing"],
    lifecycles.IsAlone: ["all-instances-share-one-broker"],
    lifecycles.SwapsPairs: ["a-thousand-events-arrive-in-order"],
    lifecycles.NeedsAChannel: ["the-stream-is-legal-without-channels"],
    lifecycles.TimesOutWhenIdle: ["idleness-is-no-fault"],
    histories.HasOneLane: ["lanes-and-channels-are-counted-apart"],
    histories.LeavesAnswersUnread: ["a-cancelled-call-does-no-harm"],
    GoesQuiet: [
        "a-break-is-repaired-from-history",
        "a-break-is-announced-by-a-gap",
        "queued-events-survive-a-break",
    ],
    histories.LagsBehind: [
        "a-resume-is-exact",
        "who-asks-for-no-history-gets-none",
        "a-resume-behind-trimmed-history-says-what-is-missing",
        "what-was-accepted-is-in-history-at-once",
        "events-received-are-in-history",
    ],
    histories.MixesAnswers: ["sixteen-reads-and-two-lanes-at-once"],
    histories.ForgetsItsTop: ["trimmed-history-starts-later"],
    ReordersABatch: ["queued-events-keep-their-order", "batches-and-single-events-keep-their-order"],
    DecodesPayloads: ["any-bytes-survive-a-batch", "any-bytes-are-kept-in-history"],
    ReusesOffsets: [
        "live-events-after-lost-memory-have-the-new-epoch",
        "another-incarnation-starts-a-new-epoch-at-the-next-offset",
        "a-resume-behind-lost-memory-says-so",
        "lost-memory-is-announced-by-a-gap",
    ],
    RepeatsRetries: [
        "a-retry-through-another-connection-is-stored-once",
        "a-retried-batch-stores-what-is-missing",
        "a-cancelled-publish-and-its-retry-store-once",
        "a-retry-of-the-plugin-does-not-duplicate",
        "an-attempt-that-runs-behind-its-retry-does-not-duplicate",
    ],
}
"""Defect → further rules that must see it."""


@pytest.mark.parametrize("backend, rule", [(backend, rule) for backend, rules in MORE.items() for rule in rules])
def test_a_rule_can_fail(backend: type[RemoteBackend], rule: str) -> None:
    """A rule that cannot fail proves nothing: each has been seen to fail for a defect of its own kind."""
    subject = BrokenSubject(backend)
    subject.keeps_history = RULES[rule].history is not False
    assert prove(RULES[rule], subject, "several").status == "failed"


def test_without_history_positions_are_a_defect() -> None:
    """A backend that keeps nothing and counts all the same is found."""
    subject = BrokenSubject(histories.HasPositionsAnyway)
    subject.keeps_history = False
    assert prove(RULES["without-history-it-says-so"], subject, "one").status == "failed"


@pytest.mark.parametrize("rule", ["declarations-match-the-subject", "too-large-is-said-by-the-plugin"])
def test_a_declaration_that_is_not_the_backends_is_found(rule: str) -> None:
    """The suite and the backend must declare the same."""
    subject = BrokenSubject(Limited)
    subject.max_payload = 1
    assert prove(RULES[rule], subject, "one").status == "failed"


def test_every_rule_has_been_seen_to_fail() -> None:
    """Whoever adds a rule adds a defect that it finds."""
    alone = {"without-history-it-says-so", "declarations-match-the-subject", "too-large-is-said-by-the-plugin"}
    seen = {rule for rule, _ in CASES.values()} | {rule for rules in MORE.values() for rule in rules} | alone
    assert set(RULES) - seen == set()
