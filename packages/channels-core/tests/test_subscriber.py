from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from core_stage import DEADLINE, data, event, take, take_rest, turns, until

from channels_core import ChannelsPlugin, Cursor, Event, Gap, Position, Subscriber
from channels_core.backlog import BacklogStrategy
from channels_core.events import ORIGIN
from channels_core.exceptions import (
    BacklogOverflow,
    ChannelsException,
    NotStarted,
    SubscriberBusy,
)
from channels_core.memory import MemoryChannelsBackend


def make(
    history: int = 0, max_backlog: int | None = None, backlog_strategy: BacklogStrategy = "backoff"
) -> ChannelsPlugin:
    return ChannelsPlugin(
        MemoryChannelsBackend(history),
        channels=["a", "b"],
        max_backlog=max_backlog,
        backlog_strategy=backlog_strategy,
    )


@pytest.fixture
async def channels() -> AsyncIterator[ChannelsPlugin]:
    async with make() as plugin:
        yield plugin


async def publish(channels: ChannelsPlugin, count: int, channel: str = "a", first: int = 1) -> None:
    for number in range(first, first + count):
        await channels.wait_published(str(number), channel)


# Consuming


async def test_events_of_all_channels_come_with_their_channel(channels: ChannelsPlugin) -> None:
    """An event published to two channels comes once per channel."""
    async with channels.subscribe(["a", "b"]) as stream:
        channels.publish("x", ["a", "b"])
        assert await take(stream, 2) == [Event("a", b"x"), Event("b", b"x")]


async def test_four_subscribers_get_each_event_once(channels: ChannelsPlugin) -> None:
    """Every subscriber has a stream of its own, and a sentinel shows that nothing comes twice."""
    streams = [await channels.subscribe("a") for _ in range(4)]
    channels.publish("1", "a")
    channels.publish("sentinel", "a")
    for stream in streams:
        assert await data(stream, 2) == [b"1", b"sentinel"]
        await channels.unsubscribe(stream)


async def test_a_dropped_event_leaves_its_gap_in_front_of_what_waits() -> None:
    """With dropleft the consumer sees the gap first, although it was consuming plain events before."""
    async with make(max_backlog=2, backlog_strategy="dropleft") as channels, channels.subscribe("a") as stream:
        await publish(channels, 1)
        assert await data(stream, 1) == [b"1"]
        for number in (2, 3, 4):
            stream.put_nowait(Event("a", b"%d" % number))
        assert await take(stream, 3) == [Gap("a", "backlog", missed=1), Event("a", b"3"), Event("a", b"4")]


async def test_consuming_plain_events_lets_in_who_waits_for_room() -> None:
    """Whoever waits in put() goes on as soon as one event was taken by iterating, with nothing else in the stream."""
    async with make(max_backlog=2) as channels, channels.subscribe("a") as stream:
        stream.put_nowait(Event("a", b"1"))
        stream.put_nowait(Event("a", b"2"))
        waiting = asyncio.create_task(stream.put(Event("a", b"3")))
        await turns()
        assert await anext(stream) == Event("a", b"1")
        async with asyncio.timeout(DEADLINE):
            await waiting
        assert await data(stream, 2) == [b"2", b"3"]


async def test_a_second_consumer_is_refused(channels: ChannelsPlugin) -> None:
    """One consumer at a time: the second is told so and the first loses nothing."""
    async with channels.subscribe("a") as stream:
        first = asyncio.create_task(take(stream, 1))
        await turns()
        with pytest.raises(SubscriberBusy, match="its own subscriber"):
            await anext(stream)
        with pytest.raises(SubscriberBusy, match="consumer already"):
            async with stream.run_in_background(nothing):
                pytest.fail("entered although somebody consumes the stream")
        channels.publish("1", "a")
        assert await first == [Event("a", b"1")]


async def test_a_cancelled_anext_loses_nothing(channels: ChannelsPlugin) -> None:
    """However often and whenever a consumer is cancelled, each event comes once and in order."""
    async with channels.subscribe("a") as stream:
        seen: list[bytes] = []
        for number in range(20):
            waiting = asyncio.create_task(anext(stream))
            await turns(3)
            await channels.wait_published(str(number), "a")
            await turns(number % 4)  # before the event is there, while the consumer is woken, and after
            waiting.cancel()
            await asyncio.wait((waiting,))
            if not waiting.cancelled():
                item = waiting.result()
                assert isinstance(item, Event)
                seen.append(item.data)
        await channels.wait_published("end", "a")
        while seen[-1:] != [b"end"]:
            seen += await data(stream, 1)
        assert seen == [*(str(number).encode() for number in range(20)), b"end"]


async def nothing(_: bytes) -> None:
    """Do nothing."""


async def test_iter_events_gives_data_and_hands_gaps_over() -> None:
    """Gaps come in stream order, to a plain function or to one that must be awaited."""
    for awaited in (False, True):
        order: list[object] = []

        async def note_later(gap: Gap) -> None:
            order.append(gap.missed)  # noqa: B023 - called within the iteration

        def note(gap: Gap) -> None:
            order.append(gap.missed)  # noqa: B023 - called within the iteration

        async with make(max_backlog=1) as channels, channels.subscribe("a") as stream:
            await publish(channels, 3)
            await until(lambda: stream.dropped == 2)
            payloads = stream.iter_events(on_gap=note_later if awaited else note)
            order += await take(payloads, 1)
            following = asyncio.create_task(take(payloads, 1))
            await turns()
            await publish(channels, 1, first=4)
            order += await following
        assert order == [b"1", 2, b"4"]
        assert await take_rest(payloads) == []


async def test_an_unhandled_gap_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without ``on_gap`` a gap is no secret."""
    async with make() as channels, channels.subscribe("a") as stream:
        for _ in range(2):
            stream.put_nowait(Gap("a", "disconnected"))
            stream.put_nowait(Event("a", b"x"))
        assert await take(stream.iter_events(), 2) == [b"x", b"x"]
        assert channels.stats().gaps == 2
    assert len([record for record in caplog.records if "nobody handles gaps" in record.getMessage()]) == 1


async def test_fast_subscribers_never_wait_for_slow_ones() -> None:
    """A subscriber that nobody consumes costs the others nothing."""
    async with make(max_backlog=5) as channels:
        stuck = await channels.subscribe("a")
        async with channels.subscribe("a") as fast:
            reading = asyncio.create_task(data(fast, 200))
            for number in range(200):
                channels.publish(str(number), "a")
            assert await reading == [str(number).encode() for number in range(200)]
        assert await take(stuck, 6) == [*(Event("a", b"%d" % n) for n in range(5)), Gap("a", "backlog", missed=195)]
        assert stuck.dropped == channels.stats().dropped == 195
        await stuck.stop()


async def test_overflow_with_close_ends_the_stream_and_leaves() -> None:
    """What waits comes first, then the reason; the subscriber is gone from the plugin."""
    async with make(max_backlog=2, backlog_strategy="close") as channels:
        stream = await channels.subscribe("a")
        await publish(channels, 3)
        await until(lambda: stream.ended)
        assert channels.stats().subscribers == 0
        assert await data(stream, 2) == [b"1", b"2"]
        with pytest.raises(BacklogOverflow):
            await anext(stream)


async def test_catchup_keeps_every_event() -> None:
    """A slow consumer gets all events, from history where they did not fit; the backlog stays within its limit."""
    async with (
        make(history=1_000, max_backlog=4, backlog_strategy="catchup") as channels,
        channels.subscribe(["a", "b"]) as stream,
    ):
        await publish(channels, 50, "a")
        await publish(channels, 50, "b")
        assert stream.qsize <= 4
        items = await take(stream, 100)
        assert [e.data for e in items if e.channel == "a"] == [b"%d" % n for n in range(1, 51)]
        assert [e.data for e in items if e.channel == "b"] == [b"%d" % n for n in range(1, 51)]
        await publish(channels, 1, "a", first=51)
        assert await data(stream, 1) == [b"51"]
        assert (stream.dropped, channels.stats().gaps) == (0, 0)


async def test_catchup_that_lags_in_both_channels_leaves_one() -> None:
    """Leaving a channel that lags forgets what was to be read of it, and only that."""
    async with (
        make(history=100, max_backlog=1, backlog_strategy="catchup") as channels,
        channels.subscribe(["a", "b"]) as stream,
    ):
        await publish(channels, 3, "a")
        await publish(channels, 3, "b")
        await turns()
        await channels.unsubscribe(stream, "a")
        assert await data(stream, 3) == [b"1", b"2", b"3"]
        await publish(channels, 1, "a", first=4)
        await publish(channels, 1, "b", first=4)
        assert await take(stream, 1) == [Event("b", b"4", stream.cursor["b"])]


async def test_catchup_says_what_was_trimmed() -> None:
    """Where history no longer reaches back, a gap stands where the events were."""
    async with (
        make(history=2, max_backlog=1, backlog_strategy="catchup") as channels,
        channels.subscribe("a") as stream,
    ):
        await publish(channels, 10)
        await turns()
        first, gap, *rest = await take(stream, 4)
        epoch = first.position.epoch
        assert first.data == b"1"
        assert gap == Gap("a", "trimmed", Position(epoch, 1), Position(epoch, 8), 7)
        assert [item.data for item in rest] == [b"9", b"10"]


# The cursor


async def test_the_cursor_moves_when_an_item_is_yielded() -> None:
    """Before the first event the cursor is there already; a waiting event does not move it."""
    async with make(history=10) as channels:
        await publish(channels, 2)
        async with channels.subscribe(["a", "b"]) as stream:
            epoch = stream.cursor["a"].epoch
            assert stream.cursor == Cursor({"a": Position(epoch, 2), "b": ORIGIN})
            await publish(channels, 2, first=3)
            await until(lambda: stream.qsize == 2)
            assert stream.cursor["a"] == Position(epoch, 2)
            await take(stream, 1)
            assert stream.cursor["a"] == Position(epoch, 3)


@pytest.mark.parametrize(
    "reason, moves", [("trimmed", True), ("epoch", True), ("backlog", False), ("disconnected", False)]
)
async def test_which_gaps_move_the_cursor(reason: str, moves: bool) -> None:
    """Only what no resume can bring back moves the cursor to the gap's end."""
    async with make(history=10) as channels, channels.subscribe("a") as stream:
        start = stream.cursor["a"]
        gap = Gap("a", reason, start, Position("e", 9), None)  # type: ignore[arg-type]  # parametrized
        stream.put_nowait(gap)
        assert await take(stream, 1) == [gap]
        assert stream.cursor["a"] == (Position("e", 9) if moves else start)


async def test_what_is_not_of_the_streams_channels_leaves_the_cursor_alone() -> None:
    """Events and gaps put in by hand for other channels are yielded and not noted."""
    async with make(history=10) as channels, channels.subscribe("a") as stream:
        before = stream.cursor
        stream.put_nowait(event(7, "other"))
        stream.put_nowait(Gap("other", "trimmed", ORIGIN, Position("e", 9), 9))
        stream.put_nowait(Gap("a", "trimmed", ORIGIN, None, None))
        stream.put_nowait(Event("a", b"no position"))
        assert len(await take(stream, 4)) == 4
        assert stream.cursor == before


async def test_without_history_the_cursor_is_before_anything(channels: ChannelsPlugin) -> None:
    """A cursor without positions is one that can still be handed out."""
    async with channels.subscribe(["a", "b"]) as stream:
        await publish(channels, 1)
        await take(stream, 1)
        assert stream.cursor == Cursor({"a": ORIGIN, "b": ORIGIN})


# Producing


async def test_send_publishes_to_the_streams_channels(channels: ChannelsPlugin) -> None:
    """What a subscriber sends, it and others on its channels get."""
    async with channels.subscribe("a") as stream, channels.subscribe("a") as other:
        stream.send({"x": 1})
        assert await data(stream, 1) == await data(other, 1) == [b'{"x":1}']


async def test_put_waits_for_room_and_put_nowait_does_not() -> None:
    """A full backlog makes ``put`` wait and ``put_nowait`` drop; an ended stream takes nothing."""
    async with make(max_backlog=1) as channels:
        stream = await channels.subscribe("a")
        await stream.put(Event("a", b"1"))
        stream.put_nowait(Event("a", b"dropped"))
        waiting = asyncio.create_task(stream.put(Event("a", b"2")))
        await turns()
        assert not waiting.done()
        assert await take(stream, 2) == [Event("a", b"1"), Gap("a", "backlog", missed=1)]
        await waiting
        assert await data(stream, 1) == [b"2"]

        stream.put_nowait(Event("a", b"3"))
        refused = asyncio.create_task(stream.put(Event("a", b"4")))
        await turns()
        await stream.stop(join=True)
        with pytest.raises(ChannelsException, match="has ended"):
            await refused
        with pytest.raises(ChannelsException, match="has ended"):
            stream.put_nowait(Gap("a", "disconnected"))
        assert [item.data for item in await take_rest(stream)] == [b"3"]


async def test_what_no_history_brings_is_not_read_again() -> None:
    """An event put in by hand that does not fit is a loss like any other, also where others are caught up with."""
    async with (
        make(history=10, max_backlog=1, backlog_strategy="catchup") as channels,
        channels.subscribe("a") as stream,
    ):
        stream.put_nowait(event(1, "b"))
        stream.put_nowait(event(2, "b"))
        assert await take(stream, 2) == [event(1, "b"), Gap("b", "backlog", Position("e", 1), Position("e", 2), 1)]


async def test_stop_discards_what_waits(channels: ChannelsPlugin) -> None:
    """Stopping leaves all channels, drops what waits and ends the stream; stopping again does nothing."""
    stream = await channels.subscribe(["a", "b"])
    await publish(channels, 2)
    await stream.stop()
    await stream.stop()
    assert stream.channels == ()
    assert stream.ended
    assert channels.stats().subscribers == 0
    assert await take_rest(stream) == []


async def test_stop_with_join_leaves_what_waits(channels: ChannelsPlugin) -> None:
    """What waited when it was stopped can be consumed, with its cursor, and then the stream ends."""
    stream = await channels.subscribe("a")
    await publish(channels, 2)
    await until(lambda: stream.qsize == 2)
    await stream.stop(join=True)
    await publish(channels, 1, first=3)
    assert [item.data for item in await take_rest(stream)] == [b"1", b"2"]
    assert stream.channels == ("a",)


# In the background


class Collector:
    """A callback that notes what it gets, and can be held up."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.cancelled = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def __call__(self, payload: bytes) -> None:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.seen.append(payload)


async def test_in_the_background_each_event_is_handled(channels: ChannelsPlugin) -> None:
    """Events and gaps reach the callbacks in stream order while the block runs."""
    got = Collector()
    gaps: list[int] = []
    async with (
        channels.subscribe("a") as stream,
        stream.run_in_background(got, on_gap=lambda gap: gaps.append(len(got.seen))),
    ):
        assert stream.is_running
        await publish(channels, 2)
        await until(lambda: len(got.seen) == 2)
        stream.put_nowait(Gap("a", "disconnected"))
        await publish(channels, 1, first=3)
    assert got.seen == [b"1", b"2", b"3"]
    assert gaps == [2]
    assert not stream.is_running


async def test_a_clean_exit_waits_for_what_is_enqueued(channels: ChannelsPlugin) -> None:
    """What was there when the block ended is handled, what comes later stays in the stream."""
    got = Collector()
    got.gate.clear()
    async with channels.subscribe("a") as stream:
        async with stream.run_in_background(got):
            await publish(channels, 3)
            await until(lambda: stream.qsize == 2)
            loop = asyncio.get_running_loop()
            loop.call_soon(stream.put_nowait, Event("a", b"later"))
            loop.call_soon(got.gate.set)
        assert got.seen == [b"1", b"2", b"3"]
        assert await data(stream, 1) == [b"later"]


async def test_without_join_the_exit_cancels(channels: ChannelsPlugin) -> None:
    """With ``join=False`` the callback is cancelled and what waits stays in the stream."""
    got = Collector()
    got.gate.clear()
    async with channels.subscribe("a") as stream:
        async with stream.run_in_background(got, join=False):
            await publish(channels, 2)
            await got.entered.wait()
        assert (got.seen, got.cancelled) == ([], True)
        assert await data(stream, 1) == [b"2"]


async def test_an_error_in_the_block_cancels(channels: ChannelsPlugin) -> None:
    """The block's error comes out at once, whatever the callback waits for."""
    got = Collector()
    got.gate.clear()
    async with channels.subscribe("a") as stream:
        with pytest.raises(KeyError, match="block"):
            async with stream.run_in_background(got):
                await publish(channels, 1)
                await got.entered.wait()
                raise KeyError("block")
        assert got.cancelled


async def fail(payload: bytes) -> None:
    raise ValueError(payload)


async def test_an_error_of_the_callback_ends_the_block(channels: ChannelsPlugin) -> None:
    """The block is interrupted where it waits, and the callback's error comes out of it."""
    async with channels.subscribe("a") as stream:
        with pytest.raises(ValueError, match="1"):
            async with stream.run_in_background(fail):
                channels.publish("1", "a")
                await asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_an_error_of_the_callback_while_the_block_ends(channels: ChannelsPlugin) -> None:
    """An error in what was enqueued comes out of the block as well; what was not handled stays in the stream."""
    got = Collector()
    got.gate.clear()

    async def fail_later(payload: bytes) -> None:
        await got(payload)
        raise ValueError(payload)

    async with channels.subscribe("a") as stream:
        with pytest.raises(ValueError, match="1"):
            async with stream.run_in_background(fail_later):
                await publish(channels, 3)
                await got.entered.wait()
                asyncio.get_running_loop().call_soon(got.gate.set)
        assert await data(stream, 2) == [b"2", b"3"]


async def test_an_error_in_what_was_enqueued(channels: ChannelsPlugin) -> None:
    """An error of the last round stops it, and what was not handled stays in the stream, gaps included."""
    async with channels.subscribe("a") as stream:
        for item in (Event("a", b"1"), Gap("a", "disconnected"), Event("a", b"2")):
            stream.put_nowait(item)
        with pytest.raises(ValueError, match="1"):
            async with stream.run_in_background(fail):
                pass
        assert await take(stream, 2) == [Gap("a", "disconnected"), Event("a", b"2")]
        assert channels.stats().gaps == 1


async def test_leaving_while_the_rest_is_handled(channels: ChannelsPlugin) -> None:
    """What a callback leaves during the last round is not handled any more."""
    handled: list[bytes] = []
    async with channels.subscribe(["a", "b"]) as stream:

        async def leave(payload: bytes) -> None:
            handled.append(payload)
            await channels.unsubscribe(stream, "a")

        async with stream.run_in_background(leave):
            for number in (1, 2, 3):
                stream.put_nowait(Event("a", b"%d" % number))
    assert handled == [b"1"]


async def test_a_cancelled_exit_loses_nothing(channels: ChannelsPlugin) -> None:
    """Whoever is cancelled while the exit waits for the callback finds the rest still in the stream."""
    got = Collector()
    got.gate.clear()
    async with channels.subscribe("a") as stream:

        async def consume() -> None:
            async with stream.run_in_background(got):
                pass

        for number in (1, 2, 3):
            stream.put_nowait(Event("a", b"%d" % number))
        consuming = asyncio.create_task(consume())
        await got.entered.wait()
        consuming.cancel()
        await asyncio.wait((consuming,))
        assert consuming.cancelled()
        assert await data(stream, 2) == [b"2", b"3"]


async def test_both_fail(channels: ChannelsPlugin) -> None:
    """The block's own error comes out, with a note of the callback's."""
    async with channels.subscribe("a") as stream:
        with pytest.raises(KeyError) as caught:
            async with stream.run_in_background(fail):
                channels.publish("1", "a")
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    raise KeyError("clean-up") from None
        assert caught.value.__notes__ == ["the callback of run_in_background had failed as well: ValueError(b'1')"]
        await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_the_block_ends_by_itself_while_it_is_interrupted(channels: ChannelsPlugin) -> None:
    """An interruption that comes too late does not hit the code behind the block."""
    async with channels.subscribe("a") as stream:
        with pytest.raises(ValueError, match="1"):
            async with stream.run_in_background(fail) as consumer:
                stream.put_nowait(Event("a", b"1"))
                assert consumer._task is not None
                await asyncio.wait((consumer._task,))  # its callback interrupts right behind our own wake-up
        await asyncio.sleep(0)


async def test_cancelled_by_somebody_else_as_well(channels: ChannelsPlugin) -> None:
    """A cancellation from outside is not taken for ours: it goes on, with a note of the callback's error."""
    async with channels.subscribe("a") as stream:

        async def consume() -> None:
            async with stream.run_in_background(fail_and_cancel):
                await asyncio.get_running_loop().create_future()

        async def fail_and_cancel(payload: bytes) -> None:
            consuming.cancel()
            raise ValueError(payload)

        consuming = asyncio.create_task(consume())
        channels.publish("1", "a")
        await asyncio.wait((consuming,), timeout=DEADLINE)
        assert consuming.cancelled()


async def test_the_end_of_the_stream_ends_the_task_and_not_the_block(channels: ChannelsPlugin) -> None:
    """After the stream ended the block goes on."""
    got = Collector()
    stream = await channels.subscribe("a")
    async with stream.run_in_background(got):
        await publish(channels, 1)
        await until(lambda: stream.qsize == 1 or got.seen)
        await stream.stop(join=True)
        assert got.seen == [b"1"]
        assert not stream.is_running


async def test_an_overflow_reaches_the_block() -> None:
    """A stream that ended because it was full is an error of the block."""
    async with make(max_backlog=1, backlog_strategy="close") as channels:
        stream = await channels.subscribe("a")
        with pytest.raises(BacklogOverflow):
            async with stream.run_in_background(nothing):
                for _ in range(2):
                    stream.put_nowait(Event("a", b"x"))
                await asyncio.get_running_loop().create_future()


async def test_stop_from_within_the_callback(channels: ChannelsPlugin) -> None:
    """A callback may stop its own stream, with or without waiting."""
    for join in (False, True):
        handled: list[bytes] = []
        stream = await channels.subscribe("a")

        async def stop(payload: bytes) -> None:
            await stream.stop(join=join)  # noqa: B023 - called within the iteration
            handled.append(payload)  # noqa: B023 - called within the iteration

        async with stream.run_in_background(stop):
            await publish(channels, 1)
            await until(lambda: not stream.is_running)  # noqa: B023 - awaited within the iteration
        assert handled == [b"1"]


async def test_stop_cancels_the_background(channels: ChannelsPlugin) -> None:
    """Stopping without join cancels a callback that waits."""
    got = Collector()
    got.gate.clear()
    stream = await channels.subscribe("a")
    async with stream.run_in_background(got):
        await publish(channels, 2)
        await got.entered.wait()
        await stream.stop()
        assert got.cancelled
        assert not stream.is_running


async def test_background_again_after_background(channels: ChannelsPlugin) -> None:
    """One background consumer at a time, and another after it."""
    got = Collector()
    async with channels.subscribe("a") as stream:
        async with stream.run_in_background(nothing):
            with pytest.raises(SubscriberBusy):
                async with stream.run_in_background(got):
                    pytest.fail("entered although there is a consumer")
        async with stream.run_in_background(got):
            await publish(channels, 1)
            await until(lambda: got.seen)


async def test_dropleft_with_join_returns() -> None:
    """After an overflow that dropped the oldest, the exit waits for what is left and no longer (R5)."""
    got = Collector()
    got.gate.clear()
    async with make(max_backlog=2, backlog_strategy="dropleft") as channels:
        async with channels.subscribe("a") as stream, asyncio.timeout(DEADLINE), stream.run_in_background(got):
            await publish(channels, 6)
            await until(lambda: stream.dropped == 3)
            got.gate.set()
        assert got.seen == [b"1", b"5", b"6"]


@pytest.mark.parametrize("strategy", ["backoff", "dropleft", "close"])
async def test_leaving_with_a_full_backlog_returns(strategy: BacklogStrategy) -> None:
    """Neither unsubscribing nor joining with history needs room that nobody makes (R6)."""
    async with make(history=10, max_backlog=3, backlog_strategy=strategy) as channels, asyncio.timeout(DEADLINE):
        await publish(channels, 6)
        full = await channels.subscribe("a", history=6)
        assert full.qsize == 6
        await publish(channels, 6, first=7)
        await channels.unsubscribe(full)
        assert await take_rest(full) == []


class Loud(Subscriber):
    def loud(self) -> str:
        return "!".join(self.channels)


async def test_a_subscriber_class_of_the_application() -> None:
    """The plugin makes what it is told to make."""
    plugin = ChannelsPlugin(MemoryChannelsBackend(), channels="a", subscriber_class=Loud)
    async with plugin, plugin.subscribe("a") as stream:
        assert isinstance(stream, Loud)
        assert stream.loud() == "a"


async def test_a_stopped_plugin_leaves_a_stream_that_has_ended() -> None:
    """After the plugin stopped, what waited may be consumed and nothing can be sent."""
    async with make() as channels:
        stream = await channels.subscribe("a")
        await publish(channels, 1)
        await until(lambda: stream.qsize == 1)
    with pytest.raises(NotStarted):
        stream.send("x")
    assert [item.data for item in await take_rest(stream)] == [b"1"]
    await channels.unsubscribe(stream)
    await stream.stop()


async def test_an_ended_stream_keeps_its_last_cursor() -> None:
    """Who resumes reads the cursor after the stream ended, and it must be there."""
    async with make(history=10) as channels, channels.subscribe(["a", "b"]) as stream:
        await publish(channels, 2)
        first = (await take(stream, 1))[0]
        await channels.unsubscribe(stream, "b")
        before = stream.cursor
    assert stream.channels == ()
    assert stream.cursor == before == {"a": first.position}


async def test_a_stream_may_be_stopped_after_its_plugin() -> None:
    """What waited is discarded, or still there with ``join=True``."""
    streams = []
    async with make() as channels:
        for _ in range(3):
            streams.append(await channels.subscribe("a"))
            streams[-1].put_nowait(event(1))
    await streams[0].stop()
    await streams[1].stop(join=True)
    await channels.unsubscribe(streams[2])
    assert [len(await take_rest(stream)) for stream in streams] == [0, 1, 0]
