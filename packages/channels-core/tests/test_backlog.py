from __future__ import annotations

import asyncio
import logging

import pytest
from core_stage import DEADLINE, backlog_gap, event, turns

from channels_core import Event, Gap, Position
from channels_core._logging import LOG_INTERVAL, MAX_KEYS, RateLimitedLogger
from channels_core.backlog import WARN_AT, Backlog, BacklogStrategy, Item, push_all
from channels_core.events import GapReason
from channels_core.exceptions import BacklogOverflow, SubscriberBusy
from channels_core.stats import Counters

RAW = Event("a", b"raw")
"""From a backend without history: it has no position."""


def make(max_backlog: int | None = None, strategy: BacklogStrategy = "backoff") -> Backlog:
    return Backlog(max_backlog, strategy, Counters(), RateLimitedLogger())


def drain(backlog: Backlog) -> list[Item]:
    return list(iter(backlog.pop, None))


class Notes:
    """Owns a backlog, and notes what it is told."""

    def __init__(self) -> None:
        self.lags: list[tuple[str, Position]] = []
        self.hungry = 0
        self.overflowed: list[bool] = []

    def lag(self, stream: Backlog, channel: str, last: Position) -> bool:
        self.lags.append((channel, last))
        return True

    def feed(self, stream: Backlog) -> None:
        self.hungry += 1

    def overflow(self, stream: Backlog) -> None:
        self.overflowed.append(stream.ended)


def note_lags(backlog: Backlog) -> list[tuple[str, Position]]:
    """Own a backlog whose lost events are read again; returns where from."""
    owner = backlog.owner = Notes()
    return owner.lags


def gap(reason: GapReason, first: int, last: int, channel: str = "a") -> Gap:
    return Gap(channel, reason, Position("e", first - 1), Position("e", last), last - first + 1)


def test_first_in_first_out() -> None:
    """Without a limit everything comes out as it went in."""
    backlog = make()
    items: list[Item] = [event(1), event(2), gap("epoch", 3, 4), event(5), event(1, "b")]
    backlog.feed(items)

    assert len(backlog) == 4
    assert drain(backlog) == items
    assert len(backlog) == 0
    assert backlog.pop() is None


def test_backoff_drops_the_new_and_a_gap_stands_in_its_place() -> None:
    """What does not fit is dropped; losses that follow each other are one gap."""
    backlog = make(2)
    for offset in range(1, 6):
        backlog.push(event(offset))

    assert len(backlog) == 2
    assert backlog.dropped == 3
    assert backlog.pop() == event(1)
    backlog.push(event(6))
    assert drain(backlog) == [event(2), backlog_gap(3, 5), event(6)]


def test_backoff_keeps_one_gap_per_channel() -> None:
    """Losses of two channels that alternate are one gap each."""
    backlog = make(1)
    for offset in range(1, 4):
        backlog.push(event(offset, "a"))
        backlog.push(event(offset, "b"))

    assert drain(backlog) == [event(1), backlog_gap(1, 3, "b"), backlog_gap(2, 3, "a")]


def test_a_gap_that_was_taken_does_not_grow() -> None:
    """A later loss is a gap of its own once the consumer has the first."""
    backlog = make(1)
    backlog.push(event(1))
    backlog.push(event(2))
    assert [backlog.pop(), backlog.pop()] == [event(1), backlog_gap(2, 2)]

    backlog.push(event(3))
    backlog.push(event(4))
    assert drain(backlog) == [event(3), backlog_gap(4, 4)]


def test_gaps_do_not_count_against_the_limit() -> None:
    """As many events wait as the limit says, whatever gaps stand between them."""
    backlog = make(2)
    backlog.push_gap(gap("epoch", 1, 1))
    backlog.push(event(2))
    backlog.push_gap(gap("epoch", 3, 3))
    assert backlog.has_room(1)
    backlog.push(event(4))

    assert not backlog.has_room(1)
    assert len(backlog) == 2
    assert drain(backlog) == [gap("epoch", 1, 1), event(2), gap("epoch", 3, 3), event(4)]


def test_an_event_between_two_losses_separates_the_gaps() -> None:
    """Gaps on both sides of an event stay apart."""
    backlog = make()
    backlog.push_gap(gap("trimmed", 1, 2))
    backlog.push(event(3))
    backlog.push_gap(gap("trimmed", 4, 5))

    assert drain(backlog) == [gap("trimmed", 1, 2), event(3), gap("trimmed", 4, 5)]


@pytest.mark.parametrize(
    "first, second, merged",
    [
        ("trimmed", "epoch", "epoch"),
        ("epoch", "backlog", "backlog"),
        ("backlog", "trimmed", "backlog"),
        ("backlog", "disconnected", "disconnected"),
        ("disconnected", "epoch", "disconnected"),
    ],
)
def test_merged_reason(first: GapReason, second: GapReason, merged: GapReason) -> None:
    """A merged gap keeps the reason that leaves the cursor where a resume can still fetch everything."""
    backlog = make()
    backlog.push_gap(gap(first, 1, 2))
    backlog.push_gap(gap(second, 3, 5))

    assert drain(backlog) == [gap(merged, 1, 5)]


@pytest.mark.parametrize("known_first", [True, False])
def test_an_unknown_number_stays_unknown(known_first: bool) -> None:
    """How many are missing is known only if it is known of both losses."""
    backlog = make()
    gaps = [gap("backlog", 1, 2), Gap("a", "disconnected")]
    backlog.feed(gaps if known_first else reversed(gaps))

    (merged,) = drain(backlog)
    assert isinstance(merged, Gap)
    assert merged.missed is None
    assert merged.after == (Position("e", 0) if known_first else None)


def test_without_positions_the_number_is_known() -> None:
    """Without history a gap says how many events were dropped, though not which."""
    backlog = make(1)
    for _ in range(3):
        backlog.push(RAW)

    assert drain(backlog) == [RAW, Gap("a", "backlog", None, None, 2)]


def test_dropleft_drops_the_oldest() -> None:
    """The oldest make room; the gap stands before the oldest that waits."""
    backlog = make(2, "dropleft")
    for offset in range(1, 6):
        backlog.push(event(offset))

    assert (len(backlog), backlog.dropped) == (2, 3)
    assert drain(backlog) == [backlog_gap(1, 3), event(4), event(5)]


def test_dropleft_merges_what_stands_before_the_oldest() -> None:
    """Gaps that come to stand at the head merge with the loss there; those of other channels are kept beside it."""
    backlog = make(2, "dropleft")
    backlog.push_gap(gap("epoch", 1, 1))
    backlog.push(event(2))
    backlog.push_gap(gap("epoch", 3, 3))
    backlog.push_gap(gap("trimmed", 1, 3, "b"))
    backlog.push(event(4))
    backlog.push(event(5))

    assert drain(backlog) == [gap("backlog", 1, 3), gap("trimmed", 1, 3, "b"), event(4), event(5)]


def test_dropleft_keeps_extending_the_gap_at_the_head() -> None:
    """A loss that follows a gap which was moved to the head adds to it."""
    backlog = make(1, "dropleft")
    backlog.push(event(1, "b"))
    backlog.push_gap(gap("epoch", 1, 1))
    backlog.push(event(2, "b"))
    backlog.push_gap(gap("epoch", 2, 3))

    assert drain(backlog) == [backlog_gap(1, 1, "b"), gap("epoch", 1, 3), event(2, "b")]


def test_dropleft_keeps_one_gap_between_two_events_of_a_channel() -> None:
    """A loss adds to the gap at the head as long as no event of its channel waits behind it."""
    backlog = make(1, "dropleft")
    backlog.push(event(1))
    backlog.push(event(1, "b"))
    backlog.push_gap(gap("epoch", 2, 4))
    assert drain(backlog) == [gap("backlog", 1, 4), event(1, "b")]

    backlog.push(event(5))
    backlog.push(event(6))
    backlog.push_gap(gap("epoch", 7, 7))
    assert drain(backlog) == [gap("backlog", 5, 5), event(6), gap("epoch", 7, 7)]


def test_dropleft_of_two_channels() -> None:
    """Each channel has its own gap at the head."""
    backlog = make(1, "dropleft")
    for offset in range(1, 4):
        backlog.push(event(offset, "a"))
        backlog.push(event(offset, "b"))

    assert drain(backlog) == [backlog_gap(1, 3, "a"), backlog_gap(1, 2, "b"), event(3, "b")]


def test_gaps_are_counted_once() -> None:
    """However gaps merge, the counter tells how many the consumer sees."""
    counters = Counters()
    backlog = Backlog(1, "dropleft", counters, RateLimitedLogger())
    backlog.push_gap(gap("epoch", 1, 1))
    backlog.push(event(2))
    backlog.push_gap(gap("epoch", 3, 3))
    backlog.push(event(4))
    backlog.push_gap(gap("epoch", 5, 5))

    gaps = [item for item in drain(backlog) if isinstance(item, Gap)]
    assert gaps == [gap("backlog", 1, 3), gap("epoch", 5, 5)]
    assert (counters.gaps, counters.dropped) == (2, 1)


async def test_close_ends_the_stream_after_what_waits() -> None:
    """What waits can be consumed, then the stream ends with the reason."""
    backlog = make(2, "close")
    owner = backlog.owner = Notes()
    for offset in range(1, 4):
        backlog.push(event(offset))

    assert owner.overflowed == [True]
    assert drain(backlog) == [event(1), event(2)]
    for _ in range(2):
        with pytest.raises(BacklogOverflow, match="more than 2 events"):
            await backlog.wait()


async def test_close_without_an_owner() -> None:
    """A stream of nobody is closed as well."""
    backlog = make(1, "close")
    backlog.push(event(1))
    backlog.push(event(2))
    assert backlog.ended


def test_catchup_asks_for_what_does_not_fit() -> None:
    """What does not fit is asked for again, after the last position that is in the stream."""
    backlog = make(1, "catchup")
    lags = note_lags(backlog)
    backlog.push(event(1))
    backlog.push(event(2))

    assert lags == [("a", Position("e", 1))]
    assert backlog.dropped == 0
    assert drain(backlog) == [event(1)]


@pytest.mark.parametrize("strategy", ["backoff", "dropleft", "close", "catchup"])
def test_with_history_in_front_an_overflow_is_read_again(strategy: BacklogStrategy) -> None:
    """Until the front is used up nothing is dropped and nothing ends, whatever the strategy."""
    backlog = make(1, strategy)
    lags = note_lags(backlog)
    backlog.push_front([event(1), event(2)])
    backlog.push(event(3))
    backlog.push(event(4))

    assert lags == [("a", Position("e", 3))]
    assert (backlog.dropped, backlog.ended) == (0, False)
    assert drain(backlog) == [event(1), event(2), event(3)]


def test_history_in_front_does_not_count() -> None:
    """The front is no part of the backlog's limit, though it waits."""
    backlog = make(1)
    backlog.push_front([event(1), gap("epoch", 2, 2), event(3)])

    assert len(backlog) == 2
    assert backlog.has_room(1)
    backlog.push(event(4))
    assert drain(backlog) == [event(1), gap("epoch", 2, 2), event(3), event(4)]


def test_later_history_goes_before_earlier_history() -> None:
    """The front grows at its beginning."""
    backlog = make()
    backlog.push_front([event(3)])
    backlog.push_front([event(1), event(2)])
    backlog.push_front([])

    assert drain(backlog) == [event(1), event(2), event(3)]


def test_a_loss_right_after_the_front_adds_to_its_last_gap() -> None:
    """A gap at the end of history and a loss that follows it are one gap."""
    backlog = make()
    backlog.push_front([event(1), gap("trimmed", 2, 3)])
    backlog.push_gap(gap("trimmed", 4, 5))

    assert drain(backlog) == [event(1), gap("trimmed", 2, 5)]


def test_a_gap_in_the_front_before_waiting_events_does_not_grow() -> None:
    """A gap with an event of its channel behind it is not where a later loss belongs."""
    backlog = make()
    backlog.push(event(4))
    backlog.push_front([event(1), gap("trimmed", 2, 3)])
    backlog.push_gap(gap("trimmed", 5, 5))

    assert drain(backlog) == [event(1), gap("trimmed", 2, 3), event(4), gap("trimmed", 5, 5)]


def test_history_that_ends_with_an_event_closes_the_gap_before_it() -> None:
    """After an event of the front a loss is a new gap."""
    backlog = make()
    backlog.push_front([gap("trimmed", 1, 1), event(2)])
    backlog.push_gap(gap("trimmed", 3, 3))

    assert drain(backlog) == [gap("trimmed", 1, 1), event(2), gap("trimmed", 3, 3)]


def test_dropleft_puts_its_gap_behind_the_front() -> None:
    """Without positions nothing can be read again: the gap stands between history and the oldest that waits."""
    backlog = make(1, "dropleft")
    backlog.push_front([RAW])
    backlog.push(Event("a", b"1"))
    backlog.push(Event("a", b"2"))

    assert drain(backlog) == [RAW, Gap("a", "backlog", None, None, 1), Event("a", b"2")]


def test_discard_forgets_a_channel_everywhere() -> None:
    """Nothing of a discarded channel is left in front, at the head or behind, and the others stay in order."""
    backlog = make(2, "dropleft")
    backlog.push(event(1))
    backlog.push(event(1, "b"))
    backlog.push(event(2))
    backlog.push_gap(gap("epoch", 3, 3))
    backlog.push_gap(gap("epoch", 2, 2, "b"))
    backlog.push_front([event(0), event(0, "b")])
    backlog.discard({"a"})

    assert len(backlog) == 2
    assert drain(backlog) == [event(0, "b"), event(1, "b"), gap("epoch", 2, 2, "b")]


def test_discard_forgets_a_gap_that_could_still_grow() -> None:
    """A loss after a discard is a gap of its own."""
    backlog = make()
    backlog.push_gap(gap("epoch", 1, 1))
    backlog.discard({"a"})
    backlog.push_gap(gap("epoch", 2, 2))
    backlog.discard({"unknown"})

    assert drain(backlog) == [gap("epoch", 2, 2)]


async def test_put_waits_for_room_and_gets_the_first_that_is_made() -> None:
    """Room is there as soon as one event was taken or discarded, not only when everything was."""
    for make_room in (Backlog.pop, lambda backlog: backlog.discard({"a"})):
        backlog = make(2)
        backlog.push(event(1))
        backlog.push(event(1, "b"))
        waiting = asyncio.create_task(backlog.wait_room())
        await turns()
        assert not waiting.done()

        make_room(backlog)
        await asyncio.wait_for(waiting, DEADLINE)
        assert len(backlog) == 1


async def test_two_who_wait_for_room() -> None:
    """Each gets in when there is room for it, one after the other."""
    backlog = make(1)
    backlog.push(event(1))

    async def put(number: int) -> None:
        await backlog.wait_room()
        backlog.push(event(number))

    putting = [asyncio.create_task(put(number)) for number in (2, 3)]
    await turns()
    seen = []
    for _ in range(3):
        seen.append(backlog.pop())
        await turns()
    assert seen == [event(1), event(2), event(3)]
    assert all(task.done() for task in putting)


async def test_the_end_wakes_everybody() -> None:
    """Consumer and producers return when the stream ends; ending twice does nothing."""
    backlog = make(1)
    room = asyncio.create_task(backlog.wait_room())
    await room
    consumer = asyncio.create_task(backlog.wait())
    await turns()
    assert backlog.is_idle
    backlog.end()
    backlog.end(BacklogOverflow("too late"))
    await consumer
    with pytest.raises(StopAsyncIteration):
        await backlog.wait()

    full = make(1)
    full.push(event(1))
    producer = asyncio.create_task(full.wait_room())
    await turns()
    full.end()
    await asyncio.wait_for(producer, DEADLINE)


async def test_one_consumer_at_a_time() -> None:
    """A second consumer is refused; the first goes on."""
    backlog = make()
    first = asyncio.create_task(backlog.wait())
    await turns()
    with pytest.raises(SubscriberBusy):
        await backlog.wait()
    backlog.push(event(1))
    await first


async def test_a_cancelled_wait_leaves_no_consumer_behind() -> None:
    """After a cancelled wait the next one may come, and a push in between wakes nobody."""
    backlog = make()
    waiting = asyncio.create_task(backlog.wait())
    await turns()
    waiting.cancel()
    backlog.push(event(1))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not backlog.is_idle
    assert drain(backlog) == [event(1)]


async def test_a_hungry_consumer_says_so() -> None:
    """The owner is told when the consumer has taken everything and waits."""
    backlog = make()
    owner = backlog.owner = Notes()
    backlog.push(event(1))
    drain(backlog)
    assert owner.hungry == 0

    waiting = asyncio.create_task(backlog.wait())
    await turns()
    assert owner.hungry == 1
    backlog.end()
    await waiting


def test_an_unlimited_backlog_warns_as_it_grows(caplog: pytest.LogCaptureFixture) -> None:
    """One warning, rate-limited, however many events pile up."""
    backlog = make()
    with caplog.at_level(logging.WARNING, "channels_core"):
        for _ in range(2 * WARN_AT + 1):
            backlog.push(RAW)

    assert [record.getMessage() for record in caplog.records] == [
        f"{WARN_AT} events wait in an unlimited backlog, the newest of channel 'a': its consumer is slow; "
        "set max_backlog"
    ]
    assert len(backlog) == 2 * WARN_AT + 1


def test_drops_are_logged_once_per_channel(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of drops is one line per channel."""
    backlog = make(1)
    with caplog.at_level(logging.WARNING, "channels_core"):
        for offset in range(1, 100):
            backlog.push(event(offset, "a"))
            backlog.push(event(offset, "b"))

    assert len(caplog.records) == 2
    assert backlog.dropped == 197


def test_the_log_speaks_again_after_its_interval(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is silent for the interval, and only so many keys are remembered."""
    now = 1000.0
    monkeypatch.setattr("channels_core._logging.time.monotonic", lambda: now)
    log = RateLimitedLogger()
    with caplog.at_level(logging.WARNING, "channels_core"):
        log.warning("key", "first")
        log.warning("key", "silent")
        now += LOG_INTERVAL
        log.warning("key", "second")
        for number in range(MAX_KEYS):
            log.warning(number, "many")
        log.warning("key", "forgotten, so it speaks")

    assert [record.getMessage() for record in caplog.records if record.getMessage() != "many"] == [
        "first",
        "second",
        "forgotten, so it speaks",
    ]


@pytest.mark.parametrize("strategy", ["catchup", "close"])
def test_a_run_that_does_not_fit_ends_where_the_stream_takes_no_more(strategy: BacklogStrategy) -> None:
    """Of events that come together, none follows the one that made the stream lag or end."""
    backlog = make(2, strategy)
    notes = backlog.owner = Notes()
    push_all((backlog,), [event(offset) for offset in range(1, 6)])

    assert notes.lags == ([("a", Position("e", 2))] if strategy == "catchup" else [])
    assert notes.overflowed == ([True] if strategy == "close" else [])
    assert drain(backlog) == [event(1), event(2)]


def test_a_run_that_makes_an_unlimited_backlog_large_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Without a limit everything is kept, and the warning comes where it would have come for each event alone."""
    backlog = make()
    push_all((backlog,), [event(1)] * (WARN_AT - 1))
    push_all((backlog,), [event(2)] * 3)

    assert len(backlog) == WARN_AT + 2
    assert f"{WARN_AT} events wait" in caplog.text


def test_a_run_that_does_not_fit_is_dropped_one_by_one() -> None:
    """Events that come together are dropped as if each had come alone."""
    backlog = make(3, "dropleft")
    push_all((backlog,), [event(offset) for offset in range(1, 6)])

    assert backlog.dropped == 2
    assert drain(backlog) == [backlog_gap(1, 2), event(3), event(4), event(5)]
