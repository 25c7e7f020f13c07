"""Breaks, leaves and joins that meet each other; each has been a way to lose something somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from core_stage import DEADLINE, SlowMemory, data, take, turns, until
from faulty import FaultyBackend, RecordingBroker

from channels_core import ChannelsPlugin, Event, Gap, Position
from channels_core.backend import Publication
from channels_core.events import ORIGIN
from channels_core.exceptions import BackendError
from channels_core.memory import MemoryChannelsBackend


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels_core._link.FIRST_DELAY", 0.001)


def make(backend: MemoryChannelsBackend, **options: Any) -> ChannelsPlugin:
    return ChannelsPlugin(backend, arbitrary_channels_allowed=True, probe_interval=None, **options)


def faulty(history: int = 0) -> FaultyBackend:
    return FaultyBackend(RecordingBroker(history))


def publish_now(backend: FaultyBackend, channel: str, data: bytes) -> None:
    """Publish as another process would."""
    backend.broker.publish([Publication(data, (channel,))])


async def nothing() -> None:
    """Let a call through."""


async def test_who_leaves_during_a_break_is_not_told_of_it() -> None:
    """After leaving and joining again during a break there is no gap: nothing was missed since the join."""
    backend = faulty()
    async with make(backend) as channels, channels.subscribe(["a", "b"]) as stream:
        back = asyncio.Event()
        backend.blocks("on_startup", back)
        backend.cut()
        await until(lambda: not channels.health().ok)
        await channels.unsubscribe(stream, "a")
        joining = asyncio.ensure_future(channels.subscribe("a", subscriber=stream))
        await turns()
        back.set()
        await joining
        channels.publish("x", "a")
        assert await take(stream, 2) == [Gap("b", "disconnected"), Event("a", b"x")]


async def test_a_break_while_a_hole_is_repaired() -> None:
    """A repair that a break interrupts begins again with the next session."""
    backend = faulty(100)
    async with make(backend) as channels, channels.subscribe("a") as stream:
        backend.loses = 1
        backend.hangs("get_history")
        for number in (1, 2):
            publish_now(backend, "a", b"%d" % number)
        await until(lambda: backend.calls[-1] == "get_history")
        backend.cut()
        assert await data(stream, 2) == [b"1", b"2"]


async def test_a_channel_left_during_a_break_is_not_subscribed_again() -> None:
    """The next session begins with what is wanted then."""
    backend = faulty()
    async with make(backend) as channels, channels.subscribe("a"):
        other = await channels.subscribe("b")
        back = asyncio.Event()
        backend.blocks("on_startup", back)
        backend.cut()
        await until(lambda: not channels.health().ok)
        await other.stop()
        back.set()
        await until(lambda: channels.health().ok)
        assert channels.stats().channels == 1
        assert list(backend.broker._receivers) == ["a"]


async def test_leaving_while_the_page_is_read() -> None:
    """What is being read for a stream that lags is dropped when it leaves; its other channel goes on."""
    backend = SlowMemory(100)
    async with (
        make(backend, max_backlog=1, backlog_strategy="catchup") as channels,
        channels.subscribe(["a", "b"]) as stream,
    ):
        for number in (1, 2, 3):
            await channels.wait_published(str(number), "a")
        await until(lambda: stream.qsize == 1)
        assert await data(stream, 1) == [b"1"]
        backend.read_gate.clear()
        consuming = asyncio.create_task(data(stream, 1))
        await until(lambda: backend.calls[-1] == "get_history")
        await channels.unsubscribe(stream, "a")
        backend.read_gate.set()
        channels.publish("x", "b")
        assert await consuming == [b"x"]


async def test_leaving_while_catching_up_waits_for_the_broker() -> None:
    """A stream that lags, and leaves while the broker is away, gets nothing of the channel any more."""
    backend = faulty(100)
    async with (
        make(backend, max_backlog=1, backlog_strategy="catchup") as channels,
        channels.subscribe(["a", "b"]) as stream,
    ):
        for number in (1, 2, 3):
            publish_now(backend, "a", b"%d" % number)
        await until(lambda: stream.qsize == 1)
        await turns()
        back = asyncio.Event()
        backend.blocks("on_startup", back)
        backend.cut()
        await until(lambda: not channels.health().ok)
        assert await data(stream, 1) == [b"1"]
        consuming = asyncio.create_task(data(stream, 1))
        await turns()
        await channels.unsubscribe(stream, "a")
        back.set()
        channels.publish("x", "b")
        assert await consuming == [b"x"]


async def test_a_hold_that_overflows_while_the_consumer_waits() -> None:
    """Live events that did not fit during a join are read for a consumer that waits already."""
    backend = SlowMemory(100)
    async with make(backend, max_backlog=1) as channels, channels.subscribe("b") as stream:
        await channels.wait_published("1", "a")
        head = (await channels.get_history("a"))[0].position
        assert head is not None
        consuming = asyncio.create_task(data(stream, 3))
        await turns()
        backend.read_gate.clear()
        async with channels.subscribe("a"):
            reads = backend.calls.count("get_history")
            joining = asyncio.ensure_future(
                channels.subscribe(["a", "new"], subscriber=stream, history=1, after={"a": head})
            )
            await until(lambda: backend.calls.count("get_history") > reads)
            for number in (2, 3, 4):
                await channels.wait_published(str(number), "a")
            backend.read_gate.set()
            await joining
            assert await consuming == [b"2", b"3", b"4"]


async def test_a_break_while_one_of_two_joined_channels_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """A join begins only when all its channels are confirmed in the same session."""
    monkeypatch.setattr("channels_core.router.MAX_NAMES", 1)
    backend = faulty(100)
    async with make(backend) as channels, channels.subscribe(["b", "a"]):
        publish_now(backend, "b", b"0")
        last = (await channels.get_history("b"))[0].position
        assert last is not None
        never, back = asyncio.Event(), asyncio.Event()
        backend.faults["get_history"].extend([nothing, never.wait])  # type: ignore[list-item]  # gives True, which nobody reads
        reads = backend.calls.count("get_history")
        joining = asyncio.ensure_future(
            channels.subscribe(["a", "b"], after={"a": ORIGIN, "b": Position(last.epoch, 9)})
        )
        await until(lambda: backend.calls.count("get_history") == reads + 2)
        backend.faults["subscribe"].append(nothing)
        backend.blocks("subscribe", back)
        subscribed = backend.calls.count("subscribe")
        backend.cut()
        await until(lambda: backend.calls.count("subscribe") == subscribed + 2)
        await turns()
        assert not joining.done()
        back.set()
        async with await joining as stream:
            await channels.wait_published("1", "a")
            gap, event = await take(stream, 2)
            assert gap == Gap("b", "epoch", Position(last.epoch, 9), last)
            assert (event.channel, event.data) == ("a", b"1")


async def test_a_refusal_after_others_were_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was confirmed before somebody was refused stays so."""
    monkeypatch.setattr("channels_core.router.MAX_NAMES", 1)
    backend = faulty()
    async with make(backend) as channels:
        backend.faults["subscribe"].append(nothing)
        backend.raises("subscribe", BackendError("not permitted"), 1)
        backend.faults["subscribe"].append(nothing)
        backend.raises("subscribe", BackendError("not permitted"), 1)
        with pytest.raises(BackendError, match="not permitted"):
            await channels.subscribe(["a", "no"])
        async with channels.subscribe("a") as stream:
            channels.publish("x", "a")
            assert await data(stream, 1) == [b"x"]


async def test_stopping_while_a_hole_is_repaired() -> None:
    """A repair under way does not keep the plugin from stopping."""
    backend = faulty(100)
    channels = make(backend)
    await channels.start()
    stream = await channels.subscribe("a")
    backend.loses = 1
    backend.hangs("get_history")
    for number in (1, 2):
        publish_now(backend, "a", b"%d" % number)
    await until(lambda: backend.calls[-1] == "get_history")
    await channels.stop()
    assert stream.ended


class Bare:
    """An iterator that cannot be closed."""

    def __init__(self, stream: AsyncIterator[Event]) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._stream)


async def ends_at_once() -> AsyncIterator[Event]:
    nothing_there: tuple[Event, ...] = ()
    for event in nothing_there:
        yield event


class Iterating(MemoryChannelsBackend):
    starts = 0

    def stream_events(self) -> AsyncIterator[Event]:
        self.starts += 1
        return Bare(ends_at_once() if self.starts == 1 else super().stream_events())


async def test_a_stream_that_cannot_be_closed() -> None:
    """A backend's iterator need not be a generator; one that ends by itself is a failure."""
    async with make(Iterating(), startup_timeout=DEADLINE) as channels, channels.subscribe("a") as stream:
        channels.publish("x", "a")
        assert await data(stream, 1) == [b"x"]


async def test_leaving_while_a_hole_is_repaired() -> None:
    """Nobody reads on for a channel that the last stream has left."""
    backend = faulty(100)
    async with make(backend) as channels:
        stream = await channels.subscribe("a")
        backend.loses = 1
        backend.hangs("get_history")
        for number in (1, 2):
            publish_now(backend, "a", b"%d" % number)
        await until(lambda: backend.calls[-1] == "get_history")
        await stream.stop()
        await until(lambda: channels.stats().channels == 0)


async def test_a_hole_while_a_stream_lags() -> None:
    """A stream that lags finds the hole when it reads on, once."""
    backend = faulty(2)
    async with (
        make(backend, max_backlog=1, backlog_strategy="catchup") as channels,
        channels.subscribe("a") as stream,
    ):
        for number in (1, 2):
            publish_now(backend, "a", b"%d" % number)
        await turns()
        backend.loses = 5
        for number in range(3, 9):
            publish_now(backend, "a", b"%d" % number)
        await turns()
        first, gap, *rest = await take(stream, 4)
        epoch = stream.cursor["a"].epoch
        assert gap == Gap("a", "trimmed", Position(epoch, 1), Position(epoch, 6), 5)
        assert [item.data for item in (first, *rest)] == [b"1", b"7", b"8"]
