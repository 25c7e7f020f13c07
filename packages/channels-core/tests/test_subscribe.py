from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import Any

import pytest
from core_stage import DEADLINE, SlowMemory, broker_of, data, take, take_rest, turns, until
from stepping import cancel_at

from channels_core import ChannelsPlugin, Cursor, Event, Gap, Position
from channels_core.events import ORIGIN
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    ChannelsException,
    HistoryNotSupported,
    ImproperlyConfigured,
    InvalidCursor,
    NotStarted,
    UnknownChannel,
)
from channels_core.memory import MemoryChannelsBackend


@pytest.fixture
async def channels() -> AsyncIterator[ChannelsPlugin]:
    """A plugin with history; ten events wait in channel "a"."""
    async with ChannelsPlugin(MemoryChannelsBackend(history=100), arbitrary_channels_allowed=True) as plugin:
        await publish(plugin, 1, 10)
        yield plugin


@pytest.fixture
async def plain() -> AsyncIterator[ChannelsPlugin]:
    """A plugin without history."""
    async with ChannelsPlugin(MemoryChannelsBackend(), arbitrary_channels_allowed=True) as plugin:
        yield plugin


async def publish(channels: ChannelsPlugin, first: int, last: int, channel: str = "a") -> None:
    for number in range(first, last + 1):
        await channels.wait_published(str(number), channel)


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


# The forms


async def test_the_forms_of_use() -> None:
    """The examples of use run as they are written."""
    async with ChannelsPlugin("memory://?history=100", channels=["news", "chat"]) as channels:
        channels.publish({"hello": "world"}, "news")
        await channels.wait_published(b"raw", ["news", "chat"])

        async with channels.start_subscription(["news"], history=10) as subscriber:
            async for item in subscriber:
                match item:
                    case Event(channel=channel, data=payload, position=position):
                        assert (channel, position is not None) == ("news", True)
                        if payload == b'{"hello":"world"}':
                            break
                    case Gap(channel=channel, reason=reason):
                        pytest.fail(f"unexpected gap {reason} in {channel}")

        subscriber = await channels.subscribe(["news", "chat"])
        await channels.unsubscribe(subscriber, ["chat"])
        assert subscriber.channels == ("news",)
        await channels.unsubscribe(subscriber)
        assert subscriber.ended

        seen: list[bytes] = []

        async def callback(payload: bytes) -> None:
            seen.append(payload)

        async with channels.subscribe("news") as subscriber, subscriber.run_in_background(callback):
            await channels.wait_published("x", "news")
            await until(lambda: seen)
        assert seen == [b"x"]


async def test_every_way_to_enter(plain: ChannelsPlugin) -> None:
    """Awaiting, entering, and entering what was awaited give a subscriber; both exits leave everything."""
    async with plain.subscribe(["a"]) as entered:
        assert entered.channels == ("a",)
    async with await plain.subscribe(["a"]) as awaited:
        assert awaited.channels == ("a",)
    kept = await plain.subscribe(["a"])
    assert [entered.channels, awaited.channels, kept.channels] == [(), (), ("a",)]
    assert plain.stats().subscribers == 1
    await kept.stop()


async def test_nothing_happens_before_it_is_awaited(plain: ChannelsPlugin) -> None:
    """A subscription that nobody awaits subscribes nobody, but its channels are checked."""
    plain.subscribe("a")
    await turns()
    assert plain.stats().channels == 0
    declared = ChannelsPlugin(MemoryChannelsBackend(), channels=["a"])
    with pytest.raises(UnknownChannel, match="'b' is not declared"):
        declared.subscribe(["a", "b"])


async def test_a_body_that_fails_leaves_as_well(plain: ChannelsPlugin) -> None:
    """An exit with an error unsubscribes; one that never entered has nothing to leave."""
    with pytest.raises(KeyError):
        async with plain.subscribe("a"):
            raise KeyError
    assert plain.stats().subscribers == 0
    await plain.subscribe("a").__aexit__(None, None, None)


async def test_channels_may_be_any_iterable(plain: ChannelsPlugin) -> None:
    """An iterable is used once, and a name that comes twice is one channel."""
    async with plain.subscribe(name for name in ("a", "b", "a")) as stream:
        assert stream.channels == ("a", "b")
        plain.publish("x", (name for name in ("a", "a")))
        plain.publish("sentinel", "b")
        assert await take(stream, 2) == [Event("a", b"x"), Event("b", b"sentinel")]


@pytest.mark.parametrize("names", [[1], [b"a"], b"a"])
async def test_names_are_text(plain: ChannelsPlugin, names: Any) -> None:
    """Anything but text is refused by name, and so before anything happens."""
    with pytest.raises(UnknownChannel, match="channel names are text"):
        plain.subscribe(names)
    with pytest.raises(UnknownChannel):
        plain.publish("x", names)


# Confirmed


async def test_what_is_published_after_subscribe_returned_arrives() -> None:
    """Subscribe, publish at once, a hundred times, while others join and leave: nothing is lost."""
    backend = SlowMemory()
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:

        async def come_and_go() -> None:
            while True:
                async with channels.subscribe(["a", "b"]):
                    await asyncio.sleep(0)

        others = [asyncio.create_task(come_and_go()) for _ in range(3)]
        for number in range(100):
            async with channels.subscribe("a") as stream:
                channels.publish(str(number), "a")
                assert await data(stream, 1) == [b"%d" % number]
        for other in others:
            other.cancel()
        await asyncio.wait(others)


async def test_one_broker_subscription_per_channel() -> None:
    """Many subscribers of a channel are one subscription at the broker, the same for a second one later."""
    backend = SlowMemory()
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        streams = await asyncio.gather(*(channels.subscribe("a") for _ in range(10)))
        streams.append(await channels.subscribe("a"))
        assert backend.calls.count("subscribe") == 2, "one for the probe, one for the channel"
        for stream in streams:
            await stream.stop()
        await until(lambda: channels.stats().channels == 0)
        assert backend.calls.count("unsubscribe") == 1


async def test_coming_back_while_the_channel_is_left() -> None:
    """Who joins while the broker is told to unsubscribe gets what is published afterwards."""
    backend = SlowMemory()
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        for pause in range(8):
            first = await channels.subscribe("a")
            await first.stop()
            await turns(pause)
            async with channels.subscribe("a") as again:
                channels.publish(str(pause), "a")
                assert await data(again, 1) == [b"%d" % pause]


class Refusing(SlowMemory):
    """Refuses to subscribe to channels whose name begins with "no", and to unsubscribe from anything."""

    async def subscribe(self, channels: Any) -> None:
        if any(name.startswith("no") for name in channels):
            raise BackendError("not permitted")
        await super().subscribe(channels)

    async def unsubscribe(self, channels: Any) -> None:
        raise BackendError("not permitted either")


async def test_a_refusal_concerns_only_what_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Who joins at the same time as somebody who is refused is not refused; nobody notices a refused leave."""
    async with ChannelsPlugin(Refusing(), arbitrary_channels_allowed=True) as channels:
        good, refused = await asyncio.gather(channels.subscribe("a"), channels.subscribe("no"), return_exceptions=True)
        assert not isinstance(good, BaseException)
        assert isinstance(refused, BackendError)
        with pytest.raises(BackendError, match="not permitted"):
            await channels.subscribe(["b", "no"])
        channels.publish("x", "a")
        assert await data(good, 1) == [b"x"]
        await good.stop()
        await until(lambda: channels.stats().channels == 0)
    assert "refused to unsubscribe" in caplog.text


async def test_a_broker_that_does_not_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``publish_timeout`` the join fails by name and leaves nothing."""
    channels = ChannelsPlugin(SlowMemory(), arbitrary_channels_allowed=True, publish_timeout=0.05, probe_interval=None)
    never = asyncio.Event()

    async def hang(_: Any) -> None:
        await never.wait()

    async with channels:
        monkeypatch.setattr(channels.backend, "subscribe", hang)
        with pytest.raises(BackendConnectionError, match=r"within 0\.05 s"):
            await channels.subscribe("a")
        assert channels.stats().subscribers == 0
        never.set()


# history=


@pytest.mark.parametrize("history, expected", [(0, []), (1, [10]), (3, [8, 9, 10]), (100, [*range(1, 11)])])
async def test_history_starts_with_the_nth_newest(channels: ChannelsPlugin, history: int, expected: list[int]) -> None:
    """The newest events come first, oldest first, then what is published later; never a gap."""
    async with channels.subscribe("a", history=history) as stream:
        await publish(channels, 11, 11)
        assert await data(stream, len(expected) + 1) == [b"%d" % number for number in [*expected, 11]]


async def test_history_of_several_channels(channels: ChannelsPlugin) -> None:
    """Each channel brings its own history, also one that never had an event."""
    await publish(channels, 1, 5, "b")
    async with channels.subscribe(["a", "b", "new"], history=2) as stream:
        assert await data(stream, 4) == [b"9", b"10", b"4", b"5"]
        assert stream.cursor["new"] == ORIGIN
        await publish(channels, 1, 1, "new")
        assert await data(stream, 1) == [b"1"]


async def test_history_is_not_part_of_the_backlog() -> None:
    """More history than the backlog holds arrives in full, and live events behind it."""
    backend = MemoryChannelsBackend(history=100)
    async with ChannelsPlugin(backend, channels="a", max_backlog=2) as channels:
        await publish(channels, 1, 50)
        async with channels.subscribe("a", history=50) as stream:
            await publish(channels, 51, 60)
            assert await data(stream, 60) == numbers(1, 60)
            assert stream.dropped == 0


async def test_history_while_events_flow() -> None:
    """A join in a channel that never rests is exact: every event once and in order."""
    backend = SlowMemory(history=1_000)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        await publish(channels, 1, 20)
        publishing = asyncio.create_task(publish(channels, 21, 200))
        for _ in range(5):
            async with channels.subscribe("a", history=10) as stream:
                got = await data(stream, 25)
                first = int(got[0])
                assert got == numbers(first, first + 24)
        await publishing


async def test_a_hold_that_overflows_is_read_again() -> None:
    """More live events during the read of history than the backlog holds: still each once and in order."""
    backend = SlowMemory(history=1_000)
    async with ChannelsPlugin(backend, channels="a", max_backlog=3) as channels:
        await publish(channels, 1, 5)
        async with channels.subscribe("a"):
            backend.read_gate.clear()
            joining = asyncio.ensure_future(channels.subscribe("a", after={"a": ORIGIN}))
            await until(lambda: backend.calls[-1] == "get_history")
            await publish(channels, 6, 30)
            backend.read_gate.set()
            async with await joining as stream:
                assert await data(stream, 30) == numbers(1, 30)
                runtime = channels._runtime
                assert runtime is not None
                assert not runtime._joiner._lagging, "a stream that has caught up is not looked after any more"


async def test_history_needs_history(plain: ChannelsPlugin) -> None:
    """On a backend without history the error says what to do; asking for none is no error."""
    with pytest.raises(HistoryNotSupported, match="history=100"):
        await plain.subscribe("a", history=5)
    with pytest.raises(HistoryNotSupported):
        await plain.get_history("a")
    async with plain.subscribe("a", history=0) as stream:
        with pytest.raises(HistoryNotSupported):
            await plain.put_subscriber_history(stream, "a")


async def test_negative_numbers_are_refused(channels: ChannelsPlugin) -> None:
    """A negative number of events is a mistake and not "all"."""
    with pytest.raises(ImproperlyConfigured, match="negative"):
        await channels.subscribe("a", history=-1)
    with pytest.raises(ImproperlyConfigured, match="negative"):
        await channels.get_history("a", -1)
    assert channels.stats().subscribers == 0


# after=


async def position_of(channels: ChannelsPlugin, number: int, channel: str = "a") -> Position:
    position = (await channels.get_history(channel))[number - 1].position
    assert position is not None
    return position


@pytest.mark.parametrize("form", [dict, Cursor, lambda mapping: str(Cursor(mapping))], ids=["dict", "cursor", "token"])
async def test_resume(channels: ChannelsPlugin, form: Callable[[dict[str, Position]], Any]) -> None:
    """From a cursor, its token or a mapping the stream goes on right behind what was consumed."""
    after = form({"a": await position_of(channels, 6), "other": Position("nobody", 9)})
    async with channels.subscribe("a", after=after) as stream:
        await publish(channels, 11, 11)
        assert await data(stream, 5) == numbers(7, 11)
        assert stream.channels == ("a",)


async def test_resume_goes_through_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was missed, it comes page by page and in order."""
    monkeypatch.setattr("channels_core._joining.PAGE", 7)
    async with ChannelsPlugin(SlowMemory(1_000), channels="a") as channels:
        await publish(channels, 1, 50)
        async with channels.subscribe("a", after={"a": ORIGIN}) as stream:
            assert await data(stream, 50) == numbers(1, 50)


async def test_after_wins_over_history_where_it_names_a_channel(channels: ChannelsPlugin) -> None:
    """``after`` holds for the channels that it names, ``history`` for the others."""
    await publish(channels, 1, 10, "b")
    after = {"a": await position_of(channels, 9)}
    async with channels.subscribe(["a", "b"], history=3, after=after) as stream:
        assert await data(stream, 4) == [b"10", b"8", b"9", b"10"]


async def test_resume_at_the_head_reads_nothing(channels: ChannelsPlugin) -> None:
    """Who missed nothing gets nothing twice."""
    async with channels.subscribe("a", after={"a": await position_of(channels, 10)}) as stream:
        await publish(channels, 11, 11)
        assert await data(stream, 1) == [b"11"]


async def test_resume_before_what_is_kept() -> None:
    """Where history no longer reaches back, the gap says how many are missing, and where."""
    async with ChannelsPlugin(MemoryChannelsBackend(history=3), channels="a") as channels:
        await publish(channels, 1, 10)
        first = await position_of(channels, 1)
        start = Position(first.epoch, 2)
        async with channels.subscribe("a", after={"a": start}) as stream:
            gap, *events = await take(stream, 4)
            assert gap == Gap("a", "trimmed", start, Position(first.epoch, 7), 5)
            assert [event.data for event in events] == numbers(8, 10)
            assert stream.cursor["a"] == Position(first.epoch, 10)


async def test_resume_from_another_epoch(channels: ChannelsPlugin) -> None:
    """A position of an epoch that the broker forgot: a gap, then everything that is stored."""
    first = await position_of(channels, 1)
    async with channels.subscribe("a", after={"a": Position("old", 5)}) as stream:
        gap, *events = await take(stream, 11)
        assert gap == Gap("a", "epoch", Position("old", 5), first.before(), None)
        assert [event.data for event in events] == numbers(1, 10)


async def test_resume_from_the_future(channels: ChannelsPlugin) -> None:
    """A position that the channel never had: the broker may have lost memory."""
    last = await position_of(channels, 10)
    ahead = Position(last.epoch, 99)
    async with channels.subscribe("a", after={"a": ahead}) as stream:
        assert await take(stream, 1) == [Gap("a", "epoch", ahead, last, None)]
        await publish(channels, 11, 11)
        assert await data(stream, 1) == [b"11"]


async def test_resume_where_another_process_has_been_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A position that another instance gave out, and this one has not seen yet, is no gap."""
    slow = SlowMemory(100)
    async with ChannelsPlugin(slow, channels="a") as channels, channels.subscribe("a") as early:
        await publish(channels, 1, 3)
        await take(early, 3)
        receiver = slow._receiver
        assert receiver is not None
        held: list[Event] = []
        with monkeypatch.context() as patch:
            patch.setattr(type(receiver), "put", lambda _, events: held.extend(events))  # still on its way
            await publish(channels, 4, 5)
        async with channels.subscribe("a", after={"a": await position_of(channels, 5)}) as stream:
            receiver.put(held)
            await publish(channels, 6, 6)
            assert await data(stream, 1) == [b"6"]
            assert await data(early, 3) == numbers(4, 6)


async def test_resume_without_history_puts_a_gap_in_front(plain: ChannelsPlugin) -> None:
    """Nobody knows what was missed: one gap per channel that the cursor names, and none for the others."""
    async with plain.subscribe(["a", "b", "c"], after={"b": Position("e", 3), "c": ORIGIN, "x": ORIGIN}) as stream:
        plain.publish("1", "b")
        expected = [Gap("b", "disconnected"), Gap("c", "disconnected"), Event("b", b"1")]
        assert await take(stream, 3) == expected
    with pytest.raises(HistoryNotSupported):
        await plain.subscribe(["a", "b"], history=1, after={"b": ORIGIN})
    async with plain.subscribe("b", history=1, after={"b": ORIGIN}) as stream:
        assert await take(stream, 1) == [Gap("b", "disconnected")]
        await plain.subscribe("b", subscriber=stream, after={"b": ORIGIN})
        plain.publish("no second gap", "b")
        assert await data(stream, 1) == [b"no second gap"]


async def test_a_damaged_token_is_refused(channels: ChannelsPlugin) -> None:
    """A token that is none of ours subscribes nobody."""
    with pytest.raises(InvalidCursor):
        await channels.subscribe("a", after="damaged")
    assert (channels.stats().subscribers, channels.stats().channels) == (0, 0)


# Joining more channels


async def test_join_more_channels(channels: ChannelsPlugin) -> None:
    """A stream takes in further channels; what it has already is left as it is."""
    await publish(channels, 1, 3, "b")
    async with channels.subscribe("a") as stream:
        same = await channels.subscribe(["a", "b"], subscriber=stream, history=2)
        assert same is stream
        assert stream.channels == ("a", "b")
        await publish(channels, 11, 11)
        assert await data(stream, 3) == [b"2", b"3", b"11"]
        assert channels.stats().subscribers == 1


async def test_joins_of_one_stream_at_once(channels: ChannelsPlugin) -> None:
    """Two joins of the same channel by the same stream bring its history once."""
    async with channels.subscribe("b") as stream:
        await asyncio.gather(*(channels.subscribe("a", subscriber=stream, history=3) for _ in range(3)))
        await publish(channels, 11, 11)
        assert await data(stream, 4) == numbers(8, 11)


async def test_an_ended_stream_takes_no_channels(channels: ChannelsPlugin) -> None:
    """Joining a stream that has ended is an error that says what to do, and leaves nothing."""
    stream = await channels.subscribe("a")
    await stream.stop()
    with pytest.raises(ChannelsException, match="has ended"):
        await channels.subscribe("b", subscriber=stream)
    assert channels.stats().subscribers == 0
    await until(lambda: channels.stats().channels == 0)


@pytest.mark.parametrize("history", [None, 2])
async def test_a_stream_that_ends_while_it_joins(history: int | None) -> None:
    """Whoever stops a stream while it joins a channel ends it for good."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        await publish(channels, 1, 3)
        stream = await channels.subscribe("b")
        joining = asyncio.ensure_future(channels.subscribe("a", subscriber=stream, history=history))
        await turns(2)
        await stream.stop()
        with pytest.raises(ChannelsException, match="has ended"):
            await joining
        assert channels.stats().subscribers == 0
        assert await take_rest(stream) == []
        await until(lambda: channels.stats().channels == 0)


async def test_leaving_a_channel_while_its_history_is_read() -> None:
    """Who leaves a channel that is being joined gets nothing of it; the other channels are not touched."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        await publish(channels, 1, 3, "a")
        await publish(channels, 1, 3, "b")
        backend.read_gate.clear()
        stream = await channels.subscribe("c")
        joining = asyncio.ensure_future(channels.subscribe(["a", "b"], subscriber=stream, history=2))
        await until(lambda: backend.calls[-2:] == ["get_history"] * 2)
        await channels.unsubscribe(stream, "a")
        backend.read_gate.set()
        await joining
        assert stream.channels == ("c", "b")
        channels.publish("not for us", "a")
        await publish(channels, 4, 4, "b")
        assert await data(stream, 3) == numbers(2, 4)
        await stream.stop()


async def test_keep_open(plain: ChannelsPlugin) -> None:
    """A stream that is kept open outlives its last channel and takes others; without it the last one ends it."""
    stream = await plain.subscribe("a", keep_open=True)
    await plain.unsubscribe(stream, "a")
    await plain.subscribe("b", subscriber=stream)
    plain.publish("x", "b")
    assert await data(stream, 1) == [b"x"]
    await stream.stop()
    assert stream.ended

    nothing = await plain.subscribe([], keep_open=True)
    assert not nothing.ended
    await nothing.stop()
    assert (await plain.subscribe([])).ended


# put_subscriber_history, get_history


async def test_put_history_in_front(channels: ChannelsPlugin) -> None:
    """Each event once, in order, one channel after the other, before what waits."""
    await publish(channels, 1, 4, "b")
    async with channels.subscribe(["a", "b"]) as stream:
        await publish(channels, 11, 11)
        await channels.put_subscriber_history(stream, ["a", "b"], 3)
        assert await data(stream, 6) == [b"9", b"10", b"2", b"3", b"4", b"11"]


async def test_put_history_begins_where_the_stream_does(channels: ChannelsPlugin) -> None:
    """What the stream brings anyway, also from history, is not put in front once more."""
    async with channels.subscribe("a", history=3) as stream:
        await channels.put_subscriber_history(stream, "a", 5)
        await channels.put_subscriber_history(stream, "a")
        assert await data(stream, 10) == numbers(1, 10)
        assert stream.qsize == 0


async def test_put_history_moves_where_the_stream_begins(channels: ChannelsPlugin) -> None:
    """The cursor begins before the history that was put in front."""
    async with channels.subscribe("a") as stream:
        await channels.put_subscriber_history(stream, "a", 0)
        assert stream.cursor["a"] == await position_of(channels, 10)
        await channels.put_subscriber_history(stream, "a", 4)
        assert stream.cursor["a"] == await position_of(channels, 6)


async def test_put_history_too_late(channels: ChannelsPlugin) -> None:
    """After an event was consumed history cannot go in front; nor of a channel that is not the stream's."""
    async with channels.subscribe("a", history=1) as stream:
        with pytest.raises(ChannelsException, match="not subscribed to 'b'"):
            await channels.put_subscriber_history(stream, "b")
        await take(stream, 1)
        with pytest.raises(ChannelsException, match="consumed already"):
            await channels.put_subscriber_history(stream, "a")


async def test_put_history_twice_at_once() -> None:
    """Of two who put history in front at the same time, one is told; no event comes twice."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, channels="a") as channels:
        await publish(channels, 1, 5)
        async with channels.subscribe("a") as stream:
            outcomes = await asyncio.gather(
                channels.put_subscriber_history(stream, "a", 2),
                channels.put_subscriber_history(stream, "a", 4),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [type(None), ChannelsException]
            assert await data(stream, 2) == numbers(4, 5)


async def test_get_history(channels: ChannelsPlugin) -> None:
    """The newest events, oldest first, with channel and position; reading creates nothing."""
    events = await channels.get_history("a", 2)
    assert [(event.channel, event.data) for event in events] == [("a", b"9"), ("a", b"10")]
    assert events[0].position == events[1].position.before() if events[1].position else None
    assert await channels.get_history("a", 0) == []
    assert len(await channels.get_history("a")) == 10
    assert await channels.get_history("never heard of") == []
    assert "never heard of" not in broker_of(memory_of(channels))._records


def memory_of(channels: ChannelsPlugin) -> MemoryChannelsBackend:
    assert isinstance(channels.backend, MemoryChannelsBackend)
    return channels.backend


async def test_get_history_does_not_wait_for_ever() -> None:
    """A broker that does not answer is an error by name."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, channels="a", publish_timeout=0.05) as channels:
        backend.read_gate.clear()
        with pytest.raises(BackendConnectionError, match=r"gave no history within 0\.05 s"):
            await channels.get_history("a")


# unsubscribe


async def test_unsubscribe_discards_what_waits(plain: ChannelsPlugin) -> None:
    """Of a channel that was left nothing is yielded, though it had arrived; the others go on."""
    async with plain.subscribe(["a", "b"]) as stream:
        await publish(plain, 1, 3, "a")
        await publish(plain, 1, 1, "b")
        await until(lambda: stream.qsize == 4)
        await plain.unsubscribe(stream, ["a", "unknown"])
        plain.publish("not for us", "a")
        plain.publish("2", "b")
        assert await data(stream, 2) == numbers(1, 2)


async def test_unsubscribe_twice(plain: ChannelsPlugin) -> None:
    """Unsubscribing twice does nothing, and a waiting consumer sees the end of the stream."""
    stream = await plain.subscribe(["a", "b"])
    consumer = asyncio.create_task(take_rest(stream))
    await turns()
    await plain.unsubscribe(stream)
    await plain.unsubscribe(stream)
    assert await consumer == []


async def test_many_channels_leave_no_entry() -> None:
    """2,000 channels subscribed and left: nothing of them is left, here or at the broker (R15)."""
    backend = SlowMemory()
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        runtime = channels._runtime
        assert runtime is not None
        for joined in range(4):
            stream = await channels.subscribe(f"{joined}-{number}" for number in range(500))
            await channels.unsubscribe(stream, list(stream.channels)[:100])
            await channels.unsubscribe(stream)
        await until(lambda: channels.stats().channels == 0)
        router, joiner = runtime.router, runtime._joiner
        await until(lambda: len(broker_of(backend)._receivers) == 1)
        assert not (router._channels)
        assert not (router._opening)
        assert not (router._closing)
        assert not (router._tasks)
        assert not (joiner._lagging)
        assert not (joiner._feeding)
        assert backend.calls.count("subscribe") == 1 + 4, "one round trip for many names"


def count_lines(work: Callable[[], object]) -> int:
    """Return how many lines of Python run."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


async def test_the_cost_of_leaving_does_not_grow() -> None:
    """Leaving costs the same operations with 10 or 10,000 other channels, and other subscribers in the same one."""
    costs = set()
    for others in (10, 10_000):
        async with ChannelsPlugin(MemoryChannelsBackend(), arbitrary_channels_allowed=True) as channels:
            crowd = await channels.subscribe([str(number) for number in range(others)])
            more = [await channels.subscribe("mine") for _ in range(others // 10)]
            stream = await channels.subscribe("mine")
            costs.add(count_lines(lambda: run_at_once(channels.unsubscribe(stream))))  # noqa: B023 - called at once
            assert stream.ended
            for other in (crowd, *more):
                await other.stop()
    assert len(costs) == 1


def run_at_once(work: Awaitable[None]) -> None:
    """Run what never waits."""
    assert list(work.__await__()) == []


# Cancellation


async def assert_nothing_left(channels: ChannelsPlugin, tasks: set[asyncio.Task[Any]]) -> None:
    """Only what the plugin itself needs is left: no subscriber, channel, broker subscription or task."""
    runtime = channels._runtime
    assert runtime is not None
    assert channels.stats().subscribers == 0
    await until(lambda: len(runtime.router) == 0)
    receivers = broker_of(memory_of(channels))._receivers
    await until(lambda: all(name.startswith("channels.probe") for name in receivers))
    await until(lambda: not asyncio.all_tasks() - tasks)
    assert not (runtime._joiner._lagging)
    assert not (runtime._joiner._feeding)


async def each_cancellation(
    channels: ChannelsPlugin, make: Callable[[], Awaitable[Any]], *, undo: Callable[[], Awaitable[None]] | None = None
) -> int:
    """Cancel work at each of its suspensions in turn, early and late; returns how many there were."""
    tasks = asyncio.all_tasks()
    highest = 0
    for late in (False, True):
        number = 1
        while await cancel_at(number, make(), late=late):
            if undo is not None:
                await undo()
            await assert_nothing_left(channels, tasks)
            number += 1
        highest = max(highest, number - 1)
        if undo is not None:
            await undo()
    return highest


@pytest.mark.parametrize("channel_is_open", [False, True])
@pytest.mark.parametrize("start", ["now", "history", "after", "gone"])
async def test_cancelling_subscribe_leaves_nothing(start: str, channel_is_open: bool) -> None:
    """Wherever a join is cancelled, nothing is left behind; in channels that others have as well."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        await publish(channels, 1, 10, "a")
        await publish(channels, 1, 10, "b")
        last = await position_of(channels, 10)
        options: dict[str, dict[str, Any]] = {
            "now": {},
            "history": {"history": 5},
            "after": {"after": {"a": await position_of(channels, 3), "b": await position_of(channels, 3, "b")}},
            "gone": {"after": {"a": Position(last.epoch, 99)}},
        }
        made: list[Any] = []

        async def join() -> None:
            made.append(await channels.subscribe(["a", "b"], **options[start]))

        async def leave() -> None:
            while made:
                await made.pop().stop()

        other = await channels.subscribe(["a", "b"], history=1) if channel_is_open else None
        if other is None:
            assert await each_cancellation(channels, join, undo=leave) >= 1
            return

        number = 1
        while await cancel_at(number, join(), late=number % 2 == 0):
            await leave()
            assert channels.stats().subscribers == 1
            number += 1
        await leave()
        await other.stop()
        await assert_nothing_left(channels, asyncio.all_tasks())


async def test_cancelling_a_further_join_leaves_the_stream_as_it_was() -> None:
    """A stream whose further join is cancelled keeps the channels that it had, and no other."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        await publish(channels, 1, 3, "b")
        async with channels.subscribe("a") as stream:
            number = 1
            while await cancel_at(number, join_b(channels, stream), late=number % 2 == 0):
                if "b" in stream.channels:
                    break
                assert stream.channels == ("a",)
                assert stream.qsize == 0
                number += 1
            assert number > 1
            channels.publish("x", "a")
            await channels.unsubscribe(stream, "b")
            assert await data(stream, 1) == [b"x"]


async def join_b(channels: ChannelsPlugin, stream: Any) -> None:
    await channels.subscribe("b", subscriber=stream, history=2)


async def test_cancelling_reads_leaves_nothing() -> None:
    """History reads and history put in front may be cancelled anywhere."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        await publish(channels, 1, 5)
        assert await each_cancellation(channels, lambda: channels.get_history("a")) >= 2

        async def put_history() -> None:
            async with channels.subscribe(["a", "b"]) as stream:
                await channels.put_subscriber_history(stream, ["a", "b"])

        assert await each_cancellation(channels, put_history) >= 2
        assert await each_cancellation(channels, lambda: leave_at_once(channels)) >= 1


async def leave_at_once(channels: ChannelsPlugin) -> None:
    async with channels.subscribe(["a", "b"]) as stream:
        await channels.unsubscribe(stream, "a")
        await channels.unsubscribe(stream)


async def test_cancelling_wait_published_leaves_nothing() -> None:
    """A publish that was cancelled appears once or never, and the next one is accepted."""
    backend = SlowMemory(100)
    async with ChannelsPlugin(backend, arbitrary_channels_allowed=True) as channels:
        assert await each_cancellation(channels, lambda: channels.wait_published("x", "a")) >= 1
        await channels.wait_published("sentinel", "a")
        assert channels.stats().pending == 0
        assert (await channels.get_history("a"))[-1].data == b"sentinel"


async def test_unsubscribe_never_waits(plain: ChannelsPlugin) -> None:
    """There is no await in unsubscribe at which it could be cancelled."""
    stream = await plain.subscribe(["a", "b"])
    run_at_once(plain.unsubscribe(stream, "a"))
    run_at_once(plain.unsubscribe(stream))
    run_at_once(stream.stop())
    assert stream.ended


async def test_a_join_that_waits_when_the_plugin_stops() -> None:
    """Whoever still waits for the broker is told that the plugin was stopped, and no stream is left open."""
    for gate in ("subscribe", "read"):
        backend = SlowMemory(100)
        channels = ChannelsPlugin(backend, arbitrary_channels_allowed=True, call_timeout=1.0)
        await channels.start()
        await publish(channels, 1, 3)
        joining = asyncio.ensure_future(channels.subscribe("a", history=2))
        if gate == "read":
            backend.read_gate.clear()
            await until(lambda: "get_history" in backend.calls)  # noqa: B023 - awaited within the iteration
        else:
            await turns(1)
        stopping = asyncio.ensure_future(channels.stop())
        await turns(1)
        backend.read_gate.set()
        await stopping
        with pytest.raises(NotStarted):
            await asyncio.wait_for(joining, DEADLINE)


async def test_while_stopping_nobody_joins() -> None:
    """A plugin that waits for its publish queue to empty takes no more subscribers."""
    backend = SlowMemory()
    channels = ChannelsPlugin(backend, arbitrary_channels_allowed=True)
    await channels.start()
    backend.gate.clear()
    channels.publish("x", "a")
    stopping = asyncio.ensure_future(channels.stop())
    await turns()
    with pytest.raises(NotStarted):
        await channels.subscribe("a")
    with pytest.raises(NotStarted):
        await channels.wait_published("x", "a")
    with pytest.raises(NotStarted):
        channels.publish("x", "a")
    backend.gate.set()
    await stopping
