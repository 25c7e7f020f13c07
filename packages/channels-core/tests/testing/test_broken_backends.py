"""The kit fails on deliberately broken backends, each by the rule that is meant for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import broken_calls as calls
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
    lifecycles.FoldsNames: ("names-that-differ-by-punctuation-are-two-channels", "received .*not for us"),
    lifecycles.MatchesPatterns: ("a-subscription-is-not-a-pattern", "received .*not for us"),
    lifecycles.ReadsPatterns: ("histories-of-similar-names-stay-apart", r"history of '.*\.\*' holds"),
    histories.PagesInTwoSteps: ("top-is-read-together-with-history", r"after \w+:\d+: the last event has .*, top says"),
    histories.PagesFromTheOriginInTwoSteps: ("top-is-read-together-with-history", "after :0: the last event has"),
    calls.CountsBeforeItStores: ("all-instances-see-one-order", r"offsets under \d publishers: \[1, 1, "),
    calls.StopsAtARefusal: (
        "a-refusal-in-a-batch-is-of-one-publication",
        "beside a refused publication: None, Backend",
    ),
    calls.RaisesARefusal: ("a-refusal-in-a-batch-is-of-one-publication", "^BackendError: 2001 bytes"),
    calls.CutsOffInABatch: ("a-refusal-in-a-batch-is-of-one-publication", "one too many, were answered by None"),
    calls.TakesHalfABatch: ("the-fullest-batch-arrives", "of a batch of 1000 publications 8 came"),
    calls.MixesBatches: ("sixteen-reads-and-two-lanes-at-once", "a batch of 2 beside another one is answered by"),
    calls.MixesTops: ("sixteen-reads-and-two-lanes-at-once", "get_tops of .* answers for"),
    calls.LeavesTopsUnread: ("a-cancelled-call-does-no-harm", "get_tops of .* answers for"),
    calls.LeavesOutcomesUnread: ("a-cancelled-call-does-no-harm", "one publication is answered by .None, None, None"),
    calls.StaysBusy: ("a-cancelled-subscribe-is-forgotten-by-a-restart", "subscribe did not return"),
    calls.ForgetsKeysOfBatches: (
        "a-cancelled-batch-and-its-retry-store-once",
        "history holds .*, not .b'1', b'2', b'3'",
    ),
    calls.AsksTheFirstChannel: (
        "a-retry-reaches-the-channels-that-lack-it",
        r"history holds \[b'1'\], not \[b'1', b'2'\]",
    ),
    calls.LosesItsReader: ("reading-works-again-after-an-outage", "get_history does not work again"),
    calls.LosesItsTops: ("reading-works-again-after-an-outage", "get_tops does not work again"),
    calls.RaisesTimeouts: (
        "a-publish-that-fails-raises-and-the-next-works",
        "publish without a broker raised TimeoutError.* instead of BackendConnectionError",
    ),
    calls.TakesOneNameWhileBusy: ("churn-loses-nothing", "4 of 5 channels that came received nothing"),
}
"""Defect → the rule that is meant for it, and what the rule says."""


@pytest.mark.parametrize("instances", ["one", "several"])
@pytest.mark.parametrize("backend", CASES)
def test_a_broken_backend_is_caught_by_its_rule(backend: type[RemoteBackend], instances: Instances) -> None:
    """Each defect fails the rule that is meant for it, with one instance and with several."""
    rule, complaint = CASES[backend]
    outcome = prove(RULES[rule], BrokenSubject(backend), instances)
    assert outcome.status == "failed"
    assert re.search(complaint, outcome.detail), outcome.detail


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


def test_a_timeout_of_the_backends_own_is_told_as_such() -> None:
    """A call that raises `TimeoutError` at once did not hang, and the kit must not say so."""

    class TimesOut(RemoteBackend):
        async def subscribe(self, channels: Sequence[str]) -> None:
            raise TimeoutError("the driver got no answer")

    outcome = prove(RULES["subscribing-twice-delivers-once"], BrokenSubject(TimesOut), "one")
    assert outcome.detail == "TimeoutError: the driver got no answer"


def test_the_plugin_says_that_a_payload_is_too_large() -> None:
    """Where a limit is declared, the plugin's own answer is proved as well."""
    subject = BrokenSubject(Limited)
    subject.call_timeout = 15.0
    for instances in ("one", "several"):
        assert prove(RULES["too-large-is-said-by-the-plugin"], subject, instances).status == "passed"


MORE = {
    lifecycles.NormalisesNames: {
        "names-that-differ-by-a-space-or-an-accent-are-two-channels": "received .*not for us",
    },
    lifecycles.CutsNames: {
        "long-names-that-begin-alike-are-two-channels": "received .*not for us",
        "histories-of-similar-names-stay-apart": "one event in each channel, and tops are",
    },
    lifecycles.FoldsNames: {
        "histories-of-similar-names-stay-apart": "one event in each channel, and tops are",
    },
    lifecycles.QuotesNames: {
        "awkward-names-arrive-unchanged": "an event of .* arrived as one of",
    },
    lifecycles.DeliversPerSubscription: {
        "subscribing-twice-delivers-once": "b'once', b'once', b'once'",
    },
    lifecycles.TakesAHundredNames: {
        "a-thousand-channels-in-one-call": "event 2 of 10 did not arrive",
    },
    lifecycles.LeavesForAll: {
        "leaving-is-for-oneself-only": "event 1 of 1 did not arrive",
    },
    lifecycles.MindsTheUnknown: {
        "unsubscribing-the-unknown-is-no-error": "^KeyError",
    },
    lifecycles.RestartsToSubscribe: {
        "churn-loses-nothing": r"of 200 events \d+ came, or in disorder",
    },
    lifecycles.StartsOnce: {
        "a-stopped-backend-starts-again": "started before",
        "after-a-break-it-starts-again": "started before",
        "a-plugin-starts-again": "started before",
    },
    lifecycles.KeepsItsLoop: {
        "a-stopped-backend-starts-in-another-event-loop": "attached to a different loop",
    },
    lifecycles.StopsOnce: {
        "stopping-is-idempotent": "^NotStarted",
    },
    lifecycles.EndsQuietly: {
        "stopping-ends-the-stream": "went on in silence",
    },
    lifecycles.StopsOthers: {
        "stopping-one-leaves-the-others-alone": "the stream ended before event 1 of 1",
    },
    lifecycles.SaysGoodBye: {
        "stopping-is-bounded-while-the-broker-is-away": "on_shutdown did not return",
    },
    lifecycles.SwallowsFailures: {
        "a-publish-that-fails-raises-and-the-next-works": "publish without a broker returned as if all",
        "an-outage-is-survived": "during the outage is missing, and no gap says so",
        "a-plugin-stops-in-time-while-the-broker-is-away": "stopped as if everything had been published",
    },
    lifecycles.StartsWithoutBroker: {
        "starting-without-a-broker-raises": "on_startup without a broker returned as if all",
    },
    lifecycles.WantsReceivers: {
        "publishing-needs-no-receiver": "nobody is there",
    },
    lifecycles.PublishesToTheFirst: {
        "one-event-for-several-channels-comes-once-in-each": "event 3 of 6 did not arrive",
        "a-plugin-delivers-once-per-channel": "no further item came",
        "one-shot-iterators-reach-every-channel": "no further item came",
    },
    histories.CreatesByReading: {
        "reading-creates-nothing": "an unused channel has",
    },
    histories.GivesTheOldest: {
        "history-gives-the-newest-up-to-a-limit": r"limit 3 gives \[0, 1, 2\]",
        "joins-are-exact": "a join brought a gap",
    },
    histories.GivesTheNewest: {
        "after-gives-the-oldest-that-follow": r"after 3, limit 2: \[8, 9\]",
        "the-origin-is-before-everything": "not the oldest came",
        "pages-add-up": r"pages of 1 add up to \[22\]",
        "pages-begin-where-history-does": "the stored events did not come",
        "pages-cross-an-epoch-border": r"by 1: \[11\]",
    },
    histories.IncludesAfter: {
        "nothing-follows-the-top": r"after \w+:3, with top \w+:3, comes",
    },
    histories.ForgetsEpochs: {
        "an-unknown-epoch-is-before-everything": r"behind an unknown epoch come \[3, 4\]",
        "pages-go-on-behind-lost-memory": r"come \[102, 103",
    },
    histories.LeavesOutUnused: {
        "tops-are-those-of-history": "5 channels were asked for, 4 answered",
    },
    histories.CountsInTwos: {
        "positions-are-consecutive-across-instances": "offsets are .*offset=1.*, .*offset=3",
    },
    histories.CountsInTheInstance: {
        "history-is-what-was-delivered": "live: .*, history: ",
        "all-instances-see-one-order": "another order than history has",
    },
    histories.ReplaysHistory: {
        "joining-again-replays-nothing": "joining again brought .*before",
    },
    lifecycles.IsAlone: {
        "all-instances-share-one-broker": "event 51 of 150 did not arrive",
    },
    lifecycles.SwapsPairs: {
        "a-thousand-events-arrive-in-order": "event 0 is not in its place",
    },
    lifecycles.NeedsAChannel: {
        "the-stream-is-legal-without-channels": "the stream of no channels raised",
    },
    lifecycles.TimesOutWhenIdle: {
        "idleness-is-no-fault": "the idle stream raised .*timed out",
    },
    histories.HasOneLane: {
        "lanes-and-channels-are-counted-apart": "history holds .b'1', b'4'",
    },
    histories.LeavesAnswersUnread: {
        "a-cancelled-call-does-no-harm": "history of .* begins with",
    },
    GoesQuiet: {
        "a-break-is-repaired-from-history": "no further item came",
        "a-break-is-announced-by-a-gap": "no further item came",
        "queued-events-survive-a-break": "the subscriber stayed deaf",
    },
    histories.LagsBehind: {
        "a-resume-is-exact": "no further item came",
        "who-asks-for-no-history-gets-none": "an old event came",
        "a-resume-behind-trimmed-history-says-what-is-missing": "no further item came",
        "what-was-accepted-is-in-history-at-once": "event 0 was accepted, the newest is",
        "events-received-are-in-history": "received .*, top is",
    },
    histories.MixesAnswers: {
        "sixteen-reads-and-two-lanes-at-once": "history of .* begins with",
    },
    histories.ForgetsItsTop: {
        "trimmed-history-starts-later": "an empty history forgot its top",
    },
    ReordersABatch: {
        "queued-events-keep-their-order": "no further item came",
        "batches-and-single-events-keep-their-order": "arrived as .b'0', b'2', b'1'",
    },
    DecodesPayloads: {
        "any-bytes-survive-a-batch": r"a batch arrived as .*\\xef\\xbf\\xbd",
        "any-bytes-are-kept-in-history": r"history holds .*\\xef\\xbf\\xbd",
    },
    ReusesOffsets: {
        "live-events-after-lost-memory-have-the-new-epoch": "always:1 follows always:1",
        "another-incarnation-starts-a-new-epoch-at-the-next-offset": "epoch always goes on",
        "a-resume-behind-lost-memory-says-so": "a resume begins with Event.*epoch='always', offset=2",
        "lost-memory-is-announced-by-a-gap": r"the gaps are \[\]",
    },
    RepeatsRetries: {
        "a-retry-through-another-connection-is-stored-once": "history holds .b'1', b'1', b'1'",
        "a-retried-batch-stores-what-is-missing": "history holds .b'1', b'2', b'1'",
        "a-cancelled-publish-and-its-retry-store-once": "history holds .*b'2', b'2'",
        "a-retry-of-the-plugin-does-not-duplicate": "b'2', b'2'",
        "an-attempt-that-runs-behind-its-retry-does-not-duplicate": "b'11', b'2', b'5'",
    },
    calls.LeavesOutcomesUnread: {
        "a-cancelled-batch-and-its-retry-store-once": "the retry of a cancelled batch is answered by",
    },
}
"""Defect → further rules that must see it, and what each says."""


@pytest.mark.parametrize("backend, rule", [(backend, rule) for backend, rules in MORE.items() for rule in rules])
def test_a_rule_can_fail(backend: type[RemoteBackend], rule: str) -> None:
    """A rule that cannot fail proves nothing: each has been seen to fail for a defect of its own kind."""
    subject = BrokenSubject(backend)
    subject.keeps_history = RULES[rule].history is not False
    outcome = prove(RULES[rule], subject, "several")
    assert outcome.status == "failed"
    assert re.search(MORE[backend][rule], outcome.detail), outcome.detail


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
