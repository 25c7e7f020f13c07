from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from core_stage import DEADLINE, SlowMemory, data, take, turns, until

from channels_core import ChannelsPlugin, Event
from channels_core.backend import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Publication
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    MessageTooLarge,
    NotStarted,
    PublishError,
    PublishQueueFull,
    SerializationError,
    UnknownChannel,
)
from channels_core.memory import MemoryChannelsBackend


def make(backend: MemoryChannelsBackend | None = None, **options: Any) -> ChannelsPlugin:
    return ChannelsPlugin(backend or MemoryChannelsBackend(), arbitrary_channels_allowed=True, **options)


# What goes in


@pytest.mark.parametrize(
    "value, payload",
    [
        (b"\x00\xff raw", b"\x00\xff raw"),
        (b"", b""),
        ("grün", "grün".encode()),
        ({"hello": "world"}, b'{"hello":"world"}'),
        ([1, None, 2.5], b"[1,null,2.5]"),
        (bytearray(b"x"), b'"eA=="'),
    ],
)
async def test_events_are_bytes(value: Any, payload: bytes) -> None:
    """Bytes pass through, text becomes UTF-8, anything else JSON."""
    async with make() as channels, channels.subscribe("a") as stream:
        channels.publish(value, "a")
        await channels.wait_published(value, "a")
        assert await data(stream, 2) == [payload, payload]


async def test_an_encoder_of_the_application() -> None:
    """The encoder gets what is neither bytes nor text."""
    async with make(encoder=msgspec.msgpack.encode) as channels, channels.subscribe("a") as stream:
        channels.publish({"x": 1}, "a")
        channels.publish(b"raw", "a")
        assert await data(stream, 2) == [b"\x81\xa1x\x01", b"raw"]


class Small(SlowMemory):
    max_payload = 4


async def test_bad_input_is_refused_at_once() -> None:
    """Each mistake has its name and says what to do; nothing of it is sent and the next event is."""
    async with ChannelsPlugin(Small(), channels=["a"]) as channels, channels.subscribe("a") as stream:
        mistakes: list[tuple[Any, str, type[Exception], str]] = [
            ("x", "b", UnknownChannel, "'b' is not declared; add it to channels"),
            (object(), "a", SerializationError, "cannot encode object"),
            ("\ud800", "a", SerializationError, "cannot encode str"),
            ("12345", "a", MessageTooLarge, r"5 bytes .* \(4\)"),
        ]
        for value, channel, error, words in mistakes:
            with pytest.raises(error, match=words):
                channels.publish(value, channel)
            with pytest.raises(error, match=words):
                await channels.wait_published(value, channel)
        channels.publish("1234", "a")
        assert await data(stream, 1) == [b"1234"]
        assert (channels.stats().published, channels.stats().failed) == (1, 0)


async def test_publish_returns_at_once() -> None:
    """Nothing is handed to the backend before the loop has a turn, however much is published."""
    backend = SlowMemory()
    async with make(backend) as channels:
        for number in range(5_000):
            channels.publish(str(number), "a")
        assert backend.batches == []
        assert channels.stats().pending == 5_000
        await until(lambda: channels.stats().pending == 0)
        assert channels.stats().published == 5_000


async def test_a_full_queue() -> None:
    """Over ``max_pending`` publishing is refused, until the broker took some; waiting for it goes on."""
    backend = SlowMemory()
    async with make(backend, max_pending=3) as channels:
        backend.gate.clear()
        for number in range(3):
            channels.publish(str(number), "a")
        with pytest.raises(PublishQueueFull, match="3 events wait"):
            channels.publish("3", "a")
        accepting = asyncio.create_task(channels.wait_published("x", "a"))
        await turns()
        with pytest.raises(PublishQueueFull):
            channels.publish("4", "a")
        backend.gate.set()
        await accepting
        await until(lambda: channels.stats().pending == 0)
        channels.publish("5", "a")


# Threads


async def test_publishing_from_eight_threads() -> None:
    """Every event arrives once, and each thread's in its order."""
    count = 1_000
    async with make(SlowMemory()) as channels, channels.subscribe("a") as stream:
        go = threading.Barrier(8)

        def publish(thread: int) -> None:
            go.wait(DEADLINE)
            for number in range(count):
                channels.publish([thread, number], "a")

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        reading = asyncio.create_task(data(stream, 8 * count))
        await until(lambda: not any(thread.is_alive() for thread in threads))
        rows = [msgspec.json.decode(payload, type=tuple[int, int]) for payload in await reading]
        for owner in range(8):
            assert [number for thread_number, number in rows if thread_number == owner] == list(range(count))


async def test_a_thread_publishes_while_the_plugin_stops() -> None:
    """What a thread was not told to be refused was accepted: nothing is lost in between."""
    backend = MemoryChannelsBackend(history=100_000)
    channels = make(backend)
    await channels.start()
    started = threading.Event()

    def publish() -> int:
        number = 0
        while True:
            try:
                channels.publish(str(number), "a")
            except PublishQueueFull:
                continue
            except NotStarted:
                return number
            number += 1
            started.set()

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    await asyncio.to_thread(started.wait, DEADLINE)
    await channels.stop()
    accepted = await publishing
    async with channels:
        assert len(await channels.get_history("a")) == accepted


# Order and batches


async def test_what_a_thread_queues_too_late_is_refused() -> None:
    """A call that was checked before the plugin stopped, and queued after the last look, tells its caller."""
    channels = make()
    await channels.start()
    publisher = channels._runtime.publisher if channels._runtime else None
    assert publisher is not None
    await channels.stop()
    publisher._open = True  # what the thread saw
    with pytest.raises(NotStarted):
        publisher.publish(b"late", ("a",))
    assert publisher.pending == 0
    publisher._take_back((b"counted as undelivered", ("a",)))


async def test_queued_events_go_out_in_order_and_in_batches() -> None:
    """Many events are few calls, with ascending numbers of one lane."""
    backend = SlowMemory(10_000)
    async with make(backend) as channels:
        for number in range(2_500):
            channels.publish(str(number), "a")
        await until(lambda: channels.stats().pending == 0)
        assert backend.batches == [MAX_BATCH_EVENTS, MAX_BATCH_EVENTS, 500]
        assert [event.data for event in await channels.get_history("a")] == [b"%d" % n for n in range(2_500)]
        keys = [key for key in backend.keys if key is not None]
        assert len({lane for lane, _ in keys}) == 1
        assert [number for _, number in keys] == list(range(1, 2_501))


async def test_a_batch_is_bounded_in_bytes() -> None:
    """A batch has at most 1 MiB, or is one event that is larger."""
    backend = SlowMemory()
    half = b"x" * (MAX_BATCH_BYTES // 2)
    async with make(backend) as channels:
        for payload in (half, half, b"1", b"x" * (MAX_BATCH_BYTES + 1), half, half + b"1", b"2"):
            channels.publish(payload, "a")
        await until(lambda: channels.stats().pending == 0)
        assert backend.batches == [2, 1, 1, 1, 2]
        assert max(size for count, size in zip(backend.batches, backend.batch_bytes, strict=True) if count > 1) == (
            MAX_BATCH_BYTES
        )


async def test_concurrent_waits_are_gathered() -> None:
    """Calls that wait at the same time share their round trips, in a lane of their own."""
    backend = SlowMemory()
    async with make(backend) as channels:
        channels.publish("queued", "a")
        await asyncio.gather(*(channels.wait_published(str(number), "a") for number in range(100)))
        assert sum(backend.batches) == 101
        assert len(backend.batches) <= 3
        lanes = {key[0] for key in backend.keys if key is not None}
        assert len(lanes) == 2


async def test_wait_published_returns_when_the_broker_has_accepted() -> None:
    """Not before: the call is held as long as the broker is."""
    backend = SlowMemory(10)
    async with make(backend) as channels:
        backend.gate.clear()
        accepting = asyncio.create_task(channels.wait_published("x", ["a", "b"]))
        await turns()
        assert not accepting.done()
        assert channels.stats().pending == 1
        backend.gate.set()
        await accepting
        assert [len(await channels.get_history(channel)) for channel in ("a", "b")] == [1, 1]


async def test_wait_published_skips_the_queue() -> None:
    """A queue that the broker takes slowly does not hold up who waits."""

    class Stuck(SlowMemory):
        async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
            if batch[0].data == b"stuck":
                await self.gate.wait()
            return await MemoryChannelsBackend.publish_batch(self, batch)

    backend = Stuck()
    async with make(backend) as channels, channels.subscribe("a") as stream:
        backend.gate.clear()
        channels.publish("stuck", "a")
        await turns()
        await channels.wait_published("first", "a")
        backend.gate.set()
        assert await data(stream, 2) == [b"first", b"stuck"]


# Refused for good


async def test_a_refused_event_does_not_stop_the_ones_behind_it() -> None:
    """It is counted, handed over once per channel with the reason, and the next ones arrive in order."""
    told: list[tuple[Event, BaseException]] = []
    backend = SlowMemory()
    backend.refused.add(b"poison")
    async with (
        make(backend, on_publish_error=lambda event, error: told.append((event, error))) as channels,
        channels.subscribe("a") as stream,
    ):
        for payload in ("1", "poison", "2"):
            channels.publish(payload, ["a", "b"] if payload == "poison" else "a")
        assert await data(stream, 2) == [b"1", b"2"]
        await until(lambda: channels.stats().pending == 0)
        assert (channels.stats().published, channels.stats().failed) == (2, 1)
    assert [event for event, _ in told] == [Event("a", b"poison"), Event("b", b"poison")]
    assert all(isinstance(error, BackendError) for _, error in told)


async def test_a_failing_handler_of_errors_does_not_stop_publishing(caplog: pytest.LogCaptureFixture) -> None:
    """The application's mistake is logged; without a handler a refusal is logged once."""

    def fail(event: Event, error: BaseException) -> None:
        raise KeyError(event)

    backend = SlowMemory()
    backend.refused.add(b"poison")
    for handler in (fail, None):
        async with make(backend, on_publish_error=handler) as channels, channels.subscribe("a") as stream:
            for payload in ("poison", "poison", "1"):
                channels.publish(payload, "a")
            assert await data(stream, 1) == [b"1"]
            await until(lambda: channels.stats().failed == 2)
    assert caplog.text.count("on_publish_error failed") == 2
    assert caplog.text.count("the broker refused an event for ('a',): refused for good") == 2


async def test_wait_published_refused() -> None:
    """Who waits gets the refusal at once, with its cause; the others of the batch are accepted."""
    backend = SlowMemory()
    backend.refused.add(b"poison")
    async with make(backend) as channels:
        good, bad = await asyncio.gather(
            channels.wait_published("1", "a"), channels.wait_published("poison", "a"), return_exceptions=True
        )
        assert good is None
        assert isinstance(bad, PublishError)
        assert isinstance(bad.__cause__, BackendError)
        assert (channels.stats().published, channels.stats().failed) == (1, 1)


async def test_wait_published_without_an_answer() -> None:
    """After ``publish_timeout`` the error says that the event may still appear; what nobody waits for is not kept."""
    backend = SlowMemory()
    async with make(backend, publish_timeout=0.01) as channels:
        backend.gate.clear()
        first = asyncio.create_task(channels.wait_published("0", "a"))
        await turns()
        calls = [channels.wait_published(str(number), "a") for number in range(1, 5)]
        outcomes = await asyncio.gather(first, *calls, return_exceptions=True)
        assert all(isinstance(outcome, PublishError) for outcome in outcomes)
        assert all("may still appear" in str(outcome) for outcome in outcomes)
        assert channels.stats().failed == 5
        assert channels.stats().pending == 1, "only the call in flight is still on its way"
        backend.gate.set()
        await until(lambda: channels.stats().pending == 0)
        assert sum(backend.batches) == 1


async def test_cancelling_while_it_is_sent() -> None:
    """A call that is cancelled while the broker has it settles silently; the next one goes on."""
    backend = SlowMemory(10)
    backend.refused.add(b"poison")
    async with make(backend) as channels:
        for payload in ("1", "poison"):
            backend.gate.clear()
            accepting = asyncio.create_task(channels.wait_published(payload, "a"))
            await turns()
            accepting.cancel()
            await asyncio.wait((accepting,))
            assert accepting.cancelled()
            backend.gate.set()
            await channels.wait_published("next", "a")
        assert [event.data for event in await channels.get_history("a")] == [b"1", b"next", b"next"]
        assert channels.stats().published == 3


async def test_cancelled_on_its_way_when_the_plugin_stops() -> None:
    """What nobody waits for any more is no reason to complain, only to wait."""
    backend = SlowMemory()
    channels = make(backend, shutdown_timeout=0.01)
    await channels.start()
    backend.gate.clear()
    accepting = asyncio.create_task(channels.wait_published("x", "a"))
    await turns()
    accepting.cancel()
    await asyncio.wait((accepting,))
    await channels.stop()
    assert channels.stats().published == 0


# Backends that break their promise


class Broken(MemoryChannelsBackend):
    """Answers publishing in its own way."""

    def __init__(self, answer: Callable[[Sequence[Publication]], Any]) -> None:
        super().__init__()
        self.answer = answer

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        answer = self.answer(batch)
        if answer is not None:
            return answer  # type: ignore[no-any-return]  # whatever it is
        return await super().publish_batch(batch)


def bug_for_poison(batch: Sequence[Publication]) -> None:
    if any(publication.data == b"poison" for publication in batch):
        raise KeyError("a bug of the backend")


def too_few_for_poison(batch: Sequence[Publication]) -> list[None] | None:
    return [] if any(publication.data == b"poison" for publication in batch) else None


def nonsense_for_poison(batch: Sequence[Publication]) -> int | None:
    return 5 if any(publication.data == b"poison" for publication in batch) else None


@pytest.mark.parametrize("answer", [bug_for_poison, too_few_for_poison, nonsense_for_poison])
async def test_a_bug_of_a_backend_costs_one_event(answer: Callable[[Sequence[Publication]], Any]) -> None:
    """Whatever a backend raises or answers for one event of a batch, the others are published."""
    async with make(Broken(answer)) as channels, channels.subscribe("a") as stream:
        for payload in ("1", "poison", "2"):
            channels.publish(payload, "a")
        assert await data(stream, 2) == [b"1", b"2"]
        await until(lambda: channels.stats().pending == 0)
        assert (channels.stats().published, channels.stats().failed) == (2, 1)


async def test_a_backend_that_never_waits_lets_others_run() -> None:
    """However fast a backend is, the loop has its turns between batches."""
    async with make() as channels:
        turned = asyncio.Event()
        for _ in range(3 * MAX_BATCH_EVENTS):
            channels.publish("x", "a")
        asyncio.get_running_loop().call_soon(turned.set)
        await turned.wait()
        assert channels.stats().pending > 0


async def test_the_default_batch_publishes_one_by_one() -> None:
    """A backend without a batch verb answers for each event, and ends the batch where the connection is lost."""

    class One(MemoryChannelsBackend):
        seen: list[bytes] = []  # noqa: RUF012 - one instance

        async def publish(self, data: bytes, channels: Sequence[str], *, key: Any = None) -> None:
            self.seen.append(data)
            if data == b"refused":
                raise BackendError("no")
            if data == b"away":
                raise BackendConnectionError("away")

    backend = One()
    publications = [Publication(data, ("a",)) for data in (b"1", b"refused", b"2")]
    base: Any = super(MemoryChannelsBackend, backend)
    first, refused, last = await base.publish_batch(publications)
    assert (first, last) == (None, None)
    assert isinstance(refused, BackendError)
    with pytest.raises(BackendConnectionError):
        await base.publish_batch([Publication(b"away", ("a",)), Publication(b"3", ("a",))])
    assert backend.seen == [b"1", b"refused", b"2", b"away"]


async def test_events_of_no_channel() -> None:
    """Published to no channel at all, an event is accepted and reaches nobody."""
    async with make() as channels, channels.subscribe("a") as stream:
        await channels.wait_published("x", [])
        channels.publish("sentinel", "a")
        assert await take(stream, 1) == [Event("a", b"sentinel")]
