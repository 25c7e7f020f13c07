from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from core_stage import DEADLINE, SlowMemory, broker_of, data, take_rest, turns, until
from stepping import cancel_at

from channels_core import ChannelsPlugin, Event, Subscriber
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    ChannelsException,
    ImproperlyConfigured,
    NotStarted,
    ShutdownTimeout,
)
from channels_core.memory import MemoryChannelsBackend


def make(backend: MemoryChannelsBackend | None = None, **options: Any) -> ChannelsPlugin:
    return ChannelsPlugin(backend or MemoryChannelsBackend(), arbitrary_channels_allowed=True, **options)


# Options


@pytest.mark.parametrize(
    "options, words",
    [
        ({"channels": None, "arbitrary_channels_allowed": False}, "name the channels"),
        ({"channels": []}, "name the channels"),
        ({"channels": "a", "max_backlog": 0}, "max_backlog=0"),
        ({"channels": "a", "max_backlog": -1}, "max_backlog=-1"),
        ({"channels": "a", "max_pending": 0}, "max_pending=0"),
        ({"channels": "a", "call_timeout": 0}, "call_timeout=0"),
        ({"channels": "a", "publish_timeout": -1}, "publish_timeout"),
        ({"channels": "a", "probe_interval": 0}, "probe_interval=0"),
        ({"channels": "a", "probe_timeout": 0}, "probe_timeout=0"),
        ({"channels": "a", "startup_timeout": -1}, "startup_timeout"),
        ({"channels": "a", "shutdown_timeout": -0.1}, "shutdown_timeout"),
        ({"channels": "a", "backlog_strategy": "dropright"}, "valid are backoff, catchup, close, dropleft"),
        ({"channels": "a", "backlog_strategy": "catchup"}, "needs max_backlog"),
        ({"channels": "a", "backlog_strategy": "catchup", "max_backlog": 5}, "keeps history"),
    ],
)
def test_options_that_contradict(options: dict[str, Any], words: str) -> None:
    """Options out of range or against each other are refused when the plugin is made, by name."""
    with pytest.raises(ImproperlyConfigured, match=words):
        ChannelsPlugin(MemoryChannelsBackend(), **options)


def test_options_at_their_limits() -> None:
    """No limit is ``None``, and not waiting at all is 0."""
    backend = MemoryChannelsBackend(history=1)
    ChannelsPlugin(backend, channels="a", max_backlog=1, backlog_strategy="catchup", probe_interval=None)
    ChannelsPlugin("memory://", channels=iter(["a"]), startup_timeout=0, shutdown_timeout=0)


async def test_one_name_is_one_channel() -> None:
    """A text given for the channels is one name and not its letters."""
    async with ChannelsPlugin("memory://", channels="news") as channels, channels.subscribe("news") as stream:
        channels.publish("x", "news")
        assert await data(stream, 1) == [b"x"]


# Start and stop


async def test_before_the_start() -> None:
    """Used before the start, every member says so by name; nothing is to be unsubscribed or stopped."""
    channels = make()
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: channels.wait_published("x", "a"),
        lambda: channels.get_history("a"),
        lambda: awaited(channels.subscribe("a")),
    ]
    for use in uses:
        with pytest.raises(NotStarted, match="async with"):
            await use()
    with pytest.raises(NotStarted):
        channels.publish("x", "a")
    await channels.stop()
    assert channels.health().ok is False
    assert channels.health().detail == "not started"
    assert channels.stats().subscribers == channels.stats().pending == 0


async def awaited(subscription: Awaitable[Any]) -> Any:
    return await subscription


async def test_start_stop_start() -> None:
    """A plugin can be started again; its streams have ended, its counters and the broker's memory stay."""
    channels = make(MemoryChannelsBackend(history=10))
    for number in (1, 2, 3):
        async with channels:
            assert (channels.health().ok, channels.health().detail) == (True, "")
            assert channels.stats().subscribers == channels.stats().channels == 0
            stream = await channels.subscribe("a")
            await channels.wait_published(str(number), "a")
            assert await data(stream, 1) == [b"%d" % number]
            assert len(await channels.get_history("a")) == number
        assert (channels.health().ok, channels.health().detail) == (False, "stopped")
        assert stream.ended
    assert channels.stats().published == 3


async def test_a_start_while_started() -> None:
    """Starting twice is refused, and the first run goes on."""
    async with make() as channels:
        with pytest.raises(ChannelsException, match="started already"):
            await channels.start()
        async with channels.subscribe("a") as stream:
            channels.publish("x", "a")
            assert await data(stream, 1) == [b"x"]


def test_another_event_loop() -> None:
    """The plugin is made without a loop and runs in one after the other."""
    channels = make(MemoryChannelsBackend(history=10))

    async def run(number: int) -> None:
        async with channels, channels.subscribe("a", history=10) as stream:
            channels.publish(str(number), "a")
            assert await data(stream, number) == [b"%d" % n for n in range(1, number + 1)]

    for number in (1, 2, 3):
        asyncio.run(run(number))


async def test_stopping_ends_streams_normally() -> None:
    """A consumer that waits sees the end of its stream, after what was there, and no error."""
    channels = make()
    await channels.start()
    waiting = await channels.subscribe("a")
    full = await channels.subscribe("b")
    kept = await channels.subscribe([], keep_open=True)
    consumer = asyncio.create_task(take_rest(waiting))
    channels.publish("last", "b")
    await until(lambda: full.qsize)
    await channels.stop()
    await channels.stop()
    assert await consumer == []
    assert await take_rest(full) == [Event("b", b"last")]
    assert await take_rest(kept) == []


# What is queued


async def test_stop_publishes_what_is_queued() -> None:
    """A clean stop gives everything to the broker first."""
    backend = SlowMemory(history=100)
    channels = make(backend)
    async with channels:
        for number in range(50):
            channels.publish(str(number), "a")
        accepting = asyncio.create_task(channels.wait_published("awaited", "b"))
        await asyncio.sleep(0)
    await accepting
    async with channels:
        assert len(await channels.get_history("a")) == 50


async def test_shutdown_timeout_says_how_many() -> None:
    """What the broker did not accept in time is counted in the error, and who waits for it is told."""
    backend = SlowMemory()
    channels = make(backend, shutdown_timeout=0.01)
    await channels.start()
    backend.gate.clear()
    for number in range(7):
        channels.publish(str(number), "a")
    accepting = asyncio.create_task(channels.wait_published("x", "a"))
    await turns()
    with pytest.raises(ShutdownTimeout, match="7 published events") as caught:
        await channels.stop()
    assert caught.value.undelivered == 7
    with pytest.raises(NotStarted, match="before the broker accepted"):
        await accepting
    backend.gate.set()
    async with channels:
        assert channels.stats().pending == 0


async def test_shutdown_timeout_never_hides_the_body_s_error(caplog: pytest.LogCaptureFixture) -> None:
    """With an error in the body the count is logged; without one it is raised."""
    backend = SlowMemory()
    for error in (KeyError("body"), None):
        with pytest.raises(KeyError if error else ShutdownTimeout):
            async with make(backend, shutdown_timeout=0.01) as channels:
                backend.gate.clear()
                channels.publish("x", "a")
                if error:
                    raise error
        backend.gate.set()
    assert "1 published events not accepted" in caplog.text


async def test_a_stop_while_it_stops() -> None:
    """A second stop leaves the first alone."""
    backend = SlowMemory()
    channels = make(backend)
    await channels.start()
    backend.gate.clear()
    channels.publish("x", "a")
    stopping = asyncio.create_task(channels.stop())
    await turns()
    await channels.stop()
    backend.gate.set()
    await stopping
    assert channels.stats().published == 1


async def test_nothing_is_left_to_be_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Stopping with calls and reads under way leaves no task whose error nobody took."""
    backend = SlowMemory(100)
    channels = make(backend, shutdown_timeout=0.01)
    await channels.start()
    await channels.wait_published("x", "a")
    backend.gate.clear()
    backend.read_gate.clear()
    reading = asyncio.create_task(channels.get_history("a"))
    joining = asyncio.create_task(awaited(channels.subscribe(["a", "b"], history=1)))
    channels.publish("x", "a")
    await turns()
    with pytest.raises(ShutdownTimeout):
        await channels.stop()
    backend.read_gate.set()
    for task in (reading, joining):
        with pytest.raises((NotStarted, BackendConnectionError)):
            await asyncio.wait_for(task, DEADLINE)
    with caplog.at_level(logging.ERROR):
        gc.collect()
        await turns()
    assert not [record for record in caplog.records if record.name == "asyncio"]


# A broker that is not there


class Failing(MemoryChannelsBackend):
    """Fails to start so often."""

    def __init__(self, error: BaseException, times: int) -> None:
        super().__init__()
        self.error = error
        self.times = times

    async def on_startup(self) -> None:
        if self.times:
            self.times -= 1
            raise self.error
        await super().on_startup()


@pytest.mark.parametrize(
    "error", [BackendConnectionError("away"), BackendError("wrong password"), ValueError("a bug"), OSError("refused")]
)
async def test_a_start_that_fails(error: Exception) -> None:
    """Without patience the first failure is raised, nothing is left, and another start may succeed."""
    channels = make(Failing(error, 1))
    with pytest.raises((type(error), BackendConnectionError)):
        await channels.start()
    assert not channels.health().ok
    async with channels:
        assert channels.health().ok


async def test_a_start_that_waits_for_the_broker() -> None:
    """With ``startup_timeout`` starting goes on trying while the broker is away, and not when it refuses."""
    async with make(Failing(BackendConnectionError("away"), 2), startup_timeout=DEADLINE) as channels:
        assert channels.health().ok
        assert channels.stats().reconnects == 0
    with pytest.raises(BackendError):
        await make(Failing(BackendError("wrong password"), 1), startup_timeout=DEADLINE).start()


class Deaf(MemoryChannelsBackend):
    """Accepts a probe and never delivers it."""

    async def publish_probe(self, channel: str, data: bytes) -> None:
        pass


async def test_a_start_without_proof_of_delivery() -> None:
    """A broker that accepts and does not deliver is an error that says what to check; unless probing is off."""
    with pytest.raises(BackendConnectionError, match="transaction pooler"):
        await make(Deaf(), probe_timeout=0.01).start()
    async with make(Deaf(), probe_interval=None) as channels:
        assert channels.health().ok


# Cancellation


async def test_cancelling_a_start_leaves_nothing() -> None:
    """Wherever a start is cancelled, another one succeeds."""
    backend = SlowMemory(10)
    channels = make(backend)
    for late in (False, True):
        number = 1
        while await cancel_at(number, channels.start(), late=late):
            assert not channels.health().ok
            assert not broker_of(backend)._receivers
            await turns()
            async with channels:
                assert channels.health().ok
            number += 1
        assert number > 1
        await channels.stop()


class Lingering(SlowMemory):
    """Takes a few turns to shut down."""

    async def on_shutdown(self) -> None:
        await turns(3)
        await super().on_shutdown()


async def test_cancelling_a_stop_stops_all_the_same() -> None:
    """Wherever a stop is cancelled, the plugin has stopped and can be started again."""
    backend = Lingering(10)
    channels = make(backend)
    for late in (False, True):
        number = 1
        while True:
            await channels.start()
            stream = await channels.subscribe("a", history=1)
            channels.publish("x", "a")
            cancelled = await cancel_at(number, channels.stop(), late=late)
            assert channels.health().detail == "stopped"
            assert stream.ended
            assert not broker_of(backend)._receivers
            if not cancelled:
                break
            number += 1
        assert number > 2


async def test_a_stop_while_it_starts() -> None:
    """Whoever starts is told that the plugin was stopped meanwhile; nothing is left."""
    never = asyncio.Event()

    class Hanging(MemoryChannelsBackend):
        async def on_startup(self) -> None:
            await never.wait()

    channels = make(Hanging())
    starting = asyncio.create_task(channels.start())
    await turns()
    assert channels.health().detail == "starting"
    await channels.stop()
    with pytest.raises(NotStarted, match="stopped"):
        await asyncio.wait_for(starting, DEADLINE)
    assert not channels.health().ok


async def test_draining_ends_streams_and_nothing_else() -> None:
    """After ``drain`` streams are at their end, new ones are refused, publishing goes on; a restart undoes it."""
    channels = ChannelsPlugin("memory://", channels=["a", "b"])
    channels.drain()
    async with channels:
        stream = await channels.subscribe("a")
        joining = asyncio.create_task(_subscribe(channels))
        await asyncio.sleep(0)
        channels.drain()
        assert await take_rest(stream) == []
        with pytest.raises(NotStarted):
            await joining
        with pytest.raises(NotStarted):
            await channels.subscribe("a")
        await channels.wait_published("x", "a")
        assert channels.stats().subscribers == 0
    async with channels, channels.subscribe("a") as stream:
        await channels.wait_published("y", "a")
        assert await data(stream, 1) == [b"y"]


async def _subscribe(channels: ChannelsPlugin) -> Subscriber:
    return await channels.subscribe("b")


async def test_what_happens_to_a_caller_that_gives_up_while_the_plugin_does() -> None:
    """A cancelled ``wait_published`` stays cancelled when the plugin stops in the same turn."""
    backend = SlowMemory()
    async with ChannelsPlugin(backend, channels=["a"]) as channels:
        backend.gate.clear()
        publishing = asyncio.create_task(channels.wait_published("x", "a"))
        await turns()
        publishing.cancel()
        assert channels._runtime is not None
        channels._runtime.publisher.abandon()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        backend.gate.set()


async def test_a_stream_that_overflows_while_the_plugin_stops() -> None:
    """Whatever still arrives for a stream that was ended bothers nobody."""
    async with ChannelsPlugin("memory://", channels=["a"], max_backlog=1, backlog_strategy="close") as channels:
        stream = await channels.subscribe("a")
        runtime = channels._runtime
    assert runtime is not None
    for offset in range(2):
        stream._backlog.push(Event("a", b"%d" % offset))
    assert len(await take_rest(stream)) == 1
