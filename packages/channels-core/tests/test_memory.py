from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from core_stage import DEADLINE, broker_of, data, take, turns

from channels_core import ChannelsPlugin, Event, Position
from channels_core._memory_broker import LANE_TTL, RECORD_TTL, MemoryBroker
from channels_core._wakeup import Wakeup
from channels_core.backend import ChannelsBackend, History, Publication
from channels_core.events import ORIGIN
from channels_core.exceptions import (
    BackendConnectionError,
    HistoryNotSupported,
    ImproperlyConfigured,
    InvalidURL,
    NotStarted,
)
from channels_core.memory import MemoryChannelsBackend


class Clock:
    """The broker's clock, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("channels_core._memory_broker.time", clock)
    return clock


@pytest.fixture
async def backend() -> AsyncIterator[MemoryChannelsBackend]:
    backend = MemoryChannelsBackend(history=100)
    await backend.on_startup()
    yield backend
    await backend.on_shutdown()


async def publish(backend: MemoryChannelsBackend, first: int, last: int, channel: str = "a") -> list[Position]:
    """Publish events whose data is their number; returns their positions."""
    for number in range(first, last + 1):
        await backend.publish(b"%d" % number, [channel])
    stored = (await backend.get_history(channel, last - first + 1)).events
    return [event.position for event in stored if event.position is not None]


def numbers(history: History) -> list[int]:
    return [int(event.data) for event in history.events]


# Names


def test_one_name_is_one_broker() -> None:
    """Backends of one name share a broker; without a name each has its own."""
    first, second = MemoryChannelsBackend.from_url("memory://shared"), MemoryChannelsBackend.from_url("memory://shared")
    other, own = MemoryChannelsBackend.from_url("memory://other"), MemoryChannelsBackend.from_url("memory://")
    assert broker_of(first) is broker_of(second)
    assert len({id(broker_of(backend)) for backend in (first, other, own)}) == 3
    assert not first.keeps_history


@pytest.mark.parametrize(
    "first, second, fits",
    [
        ("history=5", "history=5", True),
        ("history=5", "", True),
        ("history=5&max_age=60", "max_age=60", True),
        ("history=5&max_age=60", "history=5", True),
        ("", "history=0", True),
        ("history=5", "history=6", False),
        ("", "history=5", False),
        ("history=5&max_age=60", "history=5&max_age=61", False),
        ("history=5", "history=5&max_age=60", False),
    ],
)
def test_the_first_sets_the_options(first: str, second: str, fits: bool) -> None:
    """Later backends of a name may leave options out, and contradict none."""
    kept = MemoryChannelsBackend.from_url(f"memory://options?{first}")
    if fits:
        assert broker_of(MemoryChannelsBackend.from_url(f"memory://options?{second}")) is broker_of(kept)
        return
    with pytest.raises(ImproperlyConfigured, match="memory://options exists with history="):
        MemoryChannelsBackend.from_url(f"memory://options?{second}")


def test_a_broker_goes_with_its_last_backend() -> None:
    """As long as one backend of the name lives the broker does; the next one begins anew, with options of its own."""
    first = MemoryChannelsBackend.from_url("memory://weak?history=5")
    second = MemoryChannelsBackend.from_url("memory://weak")
    broker = weakref.ref(broker_of(first))
    del first
    gc.collect()
    assert broker() is broker_of(second)
    del second
    gc.collect()
    assert broker() is None
    assert MemoryChannelsBackend.from_url("memory://weak?history=7").keeps_history


@pytest.mark.parametrize(
    "url, words",
    [
        ("memory://name/path", "has a path"),
        ("memory:///path", "has a path"),
        ("memory://?histroy=5", "history"),
        ("memory://?history=-1", "history"),
        ("memory://?history=many", "history"),
        ("memory://?history=5&max_age=0", "max_age"),
        ("memory://?max_age=5", "without history"),
        ("memory://n?history=0&max_age=5", "without history"),
        ("memory://n2?max_age=5", "without history"),
    ],
)
def test_urls_that_cannot_be(url: str, words: str) -> None:
    """A mistake in the URL is refused by name."""
    with pytest.raises((InvalidURL, ImproperlyConfigured), match=words):
        MemoryChannelsBackend.from_url(url)


@pytest.mark.parametrize("history, max_age", [(-1, None), (5, 0), (5, -1.0), (0, 5)])
def test_arguments_that_cannot_be(history: int, max_age: float | None) -> None:
    """The constructor refuses what the URL refuses."""
    with pytest.raises(ImproperlyConfigured):
        MemoryChannelsBackend(history, max_age=max_age)


def test_a_url_with_everything() -> None:
    """Options reach the broker, and a name may hold any character."""
    backend = MemoryChannelsBackend.from_url("memory://a%2Fb?history=7&max_age=1.5")
    assert (broker_of(backend).history, broker_of(backend).max_age) == (7, 1.5)
    assert backend.keeps_history
    assert not MemoryChannelsBackend.from_url("memory://?history=0").keeps_history


# History


async def test_history_is_bounded() -> None:
    """A channel keeps its newest events, and its offsets go on."""
    backend = MemoryChannelsBackend(history=3)
    await backend.on_startup()
    await publish(backend, 1, 10)
    history = await backend.get_history("a")
    assert numbers(history) == [8, 9, 10]
    assert history.top.offset == 10
    assert [event.position for event in history.events][-1] == history.top
    await backend.on_shutdown()


async def test_reading_what_never_was_creates_nothing(backend: MemoryChannelsBackend) -> None:
    """A channel without events has nothing, is before anything, and stays unknown."""
    assert await backend.get_history("new") == History((), ORIGIN)
    assert await backend.get_tops(["new"]) == {"new": ORIGIN}
    assert not broker_of(backend)._records


async def test_the_newest(backend: MemoryChannelsBackend) -> None:
    """Without ``after`` the newest so many, oldest first."""
    await publish(backend, 1, 5)
    expected = {None: [1, 2, 3, 4, 5], 0: [], 1: [5], 3: [3, 4, 5], 9: [1, 2, 3, 4, 5]}
    assert {limit: numbers(await backend.get_history("a", limit)) for limit in expected} == expected


async def test_what_follows(backend: MemoryChannelsBackend) -> None:
    """With ``after`` the oldest so many that follow it; at or beyond the top none."""
    positions = await publish(backend, 1, 5)
    epoch = positions[0].epoch
    assert numbers(await backend.get_history("a", after=positions[1])) == [3, 4, 5]
    assert numbers(await backend.get_history("a", 2, after=positions[1])) == [3, 4]
    assert numbers(await backend.get_history("a", 0, after=positions[1])) == []
    assert numbers(await backend.get_history("a", after=positions[4])) == []
    assert numbers(await backend.get_history("a", after=Position(epoch, 99))) == []
    assert numbers(await backend.get_history("a", 2, after=ORIGIN)) == [1, 2]
    assert numbers(await backend.get_history("a", 2, after=Position("unknown", 99))) == [1, 2]


async def test_what_follows_a_trimmed_position(backend: MemoryChannelsBackend) -> None:
    """Where the events behind a position are gone, the oldest that is left follows."""
    positions = await publish(backend, 1, 5)
    broker_of(backend).trim("a", 2)
    broker_of(backend).trim("unknown", 2)
    assert numbers(await backend.get_history("a", 1, after=positions[0])) == [4]
    broker_of(backend).trim("a", 0)
    assert await backend.get_history("a", after=positions[0]) == History((), positions[4])


async def test_across_an_epoch_border(backend: MemoryChannelsBackend) -> None:
    """A new epoch begins at the next offset; what it keeps of the old one follows on the old one's positions."""
    old = await publish(backend, 1, 3)
    broker_of(backend).reincarnate()
    assert (await backend.get_history("a", 0)).top == old[2], "until there is an event nothing has changed"
    new = await publish(backend, 4, 5)

    assert [position.offset for position in new] == [4, 5]
    assert new[0].epoch == new[1].epoch != old[2].epoch
    assert numbers(await backend.get_history("a", after=old[1])) == [3, 4, 5]
    assert numbers(await backend.get_history("a", 2, after=old[1])) == [3, 4]
    assert numbers(await backend.get_history("a", after=old[2])) == [4, 5]
    assert numbers(await backend.get_history("a", after=Position(old[2].epoch, 99))) == [4, 5]
    assert numbers(await backend.get_history("a", after=new[0])) == [5]
    assert numbers(await backend.get_history("a", after=new[1])) == []
    assert numbers(await backend.get_history("a", after=new[0].before())) == [4, 5]
    assert numbers(await backend.get_history("a", after=Position("unknown", 4))) == [1, 2, 3, 4, 5]


async def test_across_two_epoch_borders(backend: MemoryChannelsBackend) -> None:
    """Everything of later epochs follows a position, in order."""
    first = await publish(backend, 1, 2)
    broker_of(backend).reincarnate()
    second = await publish(backend, 3, 4)
    broker_of(backend).reincarnate()
    await publish(backend, 5, 6)
    assert numbers(await backend.get_history("a", after=first[0])) == [2, 3, 4, 5, 6]
    assert numbers(await backend.get_history("a", after=second[1])) == [5, 6]
    assert numbers(await backend.get_history("a")) == [1, 2, 3, 4, 5, 6]


async def test_a_broker_that_forgot(backend: MemoryChannelsBackend) -> None:
    """After a flush a channel is as new, with an epoch that was never used."""
    old = await publish(backend, 1, 3)
    broker_of(backend).forget()
    assert await backend.get_history("a") == History((), ORIGIN)
    (new,) = await publish(backend, 9, 9)
    assert new.offset == 1
    assert new.epoch != old[0].epoch
    assert numbers(await backend.get_history("a", after=old[2])) == [9]


async def test_get_history_needs_history() -> None:
    """Without history reading is refused by name, here and by the default of the contract."""
    backend = MemoryChannelsBackend()
    await backend.on_startup()
    with pytest.raises(HistoryNotSupported, match="history=100"):
        await backend.get_history("a")
    with pytest.raises(HistoryNotSupported, match="keeps no history"):
        await ChannelsBackend.get_history(backend, "a")
    await backend.on_shutdown()


async def test_the_default_of_get_tops(backend: MemoryChannelsBackend) -> None:
    """The contract's default asks each channel, and gives what the override gives."""
    await publish(backend, 1, 2)
    names = ["a", "new"]
    assert await ChannelsBackend.get_tops(backend, names) == await backend.get_tops(names)


# Age


async def test_an_event_that_is_too_old_is_never_read(clock: Clock) -> None:
    """Also in a channel that is busy: the age is the event's, not the channel's."""
    backend = MemoryChannelsBackend(history=100, max_age=60)
    await backend.on_startup()
    positions: list[Position] = []
    for number in range(1, 6):
        positions += await publish(backend, number, number)
        clock.now += 20
    assert numbers(await backend.get_history("a")) == [3, 4, 5]
    assert numbers(await backend.get_history("a", after=ORIGIN)) == [3, 4, 5]
    assert (await backend.get_history("a", 0)).top == positions[-1]
    clock.now += 60
    assert await backend.get_history("a") == History((), positions[-1])
    await backend.on_shutdown()


async def test_an_idle_channel_leaves_its_position_only(clock: Clock) -> None:
    """Aged out, a channel holds no event, and goes on in its epoch; after the record's time it is forgotten."""
    backend = MemoryChannelsBackend(history=100, max_age=60)
    await backend.on_startup()
    old = await publish(backend, 1, 3)
    clock.now += 61
    await publish(backend, 1, 1, "busy")
    broker = broker_of(backend)
    assert list(broker._records) == ["busy"]
    assert not broker._husks["a"].events
    assert await backend.get_tops(["a"]) == {"a": old[2]}
    (again,) = await publish(backend, 4, 4)
    assert again == Position(old[2].epoch, 4)

    clock.now += 61
    await publish(backend, 2, 2, "busy")
    clock.now += RECORD_TTL
    await publish(backend, 3, 3, "busy")
    assert not broker._husks
    (anew,) = await publish(backend, 5, 5)
    assert anew.offset == 1
    assert anew.epoch != again.epoch
    await backend.on_shutdown()


async def test_without_an_age_an_idle_channel_is_kept_as_long_as_its_record(clock: Clock) -> None:
    """Events without an age limit stay until nobody used the channel for the record's time."""
    backend = MemoryChannelsBackend(history=100)
    await backend.on_startup()
    await publish(backend, 1, 3)
    clock.now += RECORD_TTL - 1
    assert numbers(await backend.get_history("a")) == [1, 2, 3]
    clock.now += 2
    assert await backend.get_history("a") == History((), ORIGIN)
    assert not broker_of(backend)._husks
    await backend.on_shutdown()


async def test_many_idle_channels_leave_nothing(clock: Clock) -> None:
    """A thousand channels that were used once are gone after their time, whatever else goes on."""
    backend = MemoryChannelsBackend(history=10)
    await backend.on_startup()
    for number in range(1_000):
        await backend.publish(b"x", [f"room-{number}"])
    clock.now += RECORD_TTL + 1
    await backend.publish(b"x", ["another"])
    assert list(broker_of(backend)._records) == ["another"]
    await backend.on_shutdown()


# Lanes


async def test_a_retry_stores_nothing_twice(backend: MemoryChannelsBackend) -> None:
    """A number that is not higher than the lane's last is accepted and not stored, per channel."""
    await backend.publish(b"1", ["a"], key=("lane", 1))
    await backend.publish(b"2", ["a"], key=("lane", 2))
    await backend.publish(b"2", ["a", "b"], key=("lane", 2))
    await backend.publish(b"1", ["a"], key=("lane", 1))
    await backend.publish(b"3", ["a"], key=("other", 1))
    await backend.publish(b"4", ["a"])
    await backend.publish(b"5", ["a"], key=("lane", 7))
    assert numbers(await backend.get_history("a")) == [1, 2, 3, 4, 5]
    assert numbers(await backend.get_history("b")) == [2]


async def test_a_lane_is_remembered_long_enough(clock: Clock) -> None:
    """For as long as a late attempt can come the number is known, apart from the history; then it is forgotten."""
    backend = MemoryChannelsBackend(history=1, max_age=5)
    await backend.on_startup()
    await backend.publish(b"1", ["a"], key=("lane", 5))
    clock.now += LANE_TTL - 1
    await backend.publish(b"2", ["busy"])  # the history of "a" is gone by now
    await backend.publish(b"1", ["a"], key=("lane", 5))
    assert numbers(await backend.get_history("a")) == []
    clock.now += LANE_TTL
    await backend.publish(b"3", ["a"], key=("new lane", 1))
    assert list(broker_of(backend)._records["a"].lanes) == ["new lane"]
    await backend.on_shutdown()


async def test_without_history_a_retry_may_come_twice() -> None:
    """A broker that keeps nothing keeps no lanes either; the documentation says so."""
    backend = MemoryChannelsBackend()
    await backend.on_startup()
    stream = backend.stream_events()
    await backend.subscribe(["a"])
    for _ in range(2):
        await backend.publish(b"1", ["a"], key=("lane", 1))
    assert await take(stream, 2) == [Event("a", b"1"), Event("a", b"1")]
    await backend.on_shutdown()


# Sessions


async def test_before_the_start_and_after_the_stop() -> None:
    """Every verb of a backend that is not started says so; stopping is always legal, starting twice no harm."""
    backend = MemoryChannelsBackend(history=1)
    await backend.on_shutdown()
    verbs: list[Callable[[], Awaitable[object]]] = [
        lambda: backend.subscribe(["a"]),
        lambda: backend.unsubscribe(["a"]),
        lambda: backend.publish(b"x", ["a"]),
        lambda: backend.publish_probe("a", b"x"),
        lambda: backend.get_history("a"),
        lambda: backend.get_tops(["a"]),
        lambda: take(backend.stream_events(), 1),
    ]
    for round_number in range(2):
        for verb in verbs:
            with pytest.raises(NotStarted, match="on_startup"):
                await verb()
        if not round_number:
            await backend.on_startup()
            await backend.on_startup()
            await backend.publish(b"x", ["a"])
            await backend.on_shutdown()


@pytest.mark.parametrize("while_it_waits", [True, False])
async def test_a_shutdown_ends_the_stream(while_it_waits: bool) -> None:
    """Whoever reads is told that the connection is gone, also if it reads on only later."""
    backend = MemoryChannelsBackend()
    await backend.on_startup()
    stream = backend.stream_events()
    await backend.subscribe(["a"])
    await backend.publish(b"x", ["a"])
    await take(stream, 1)
    reading = asyncio.create_task(take(stream, 1))
    if while_it_waits:
        await turns()
    await backend.on_shutdown()
    with pytest.raises(BackendConnectionError, match="shut down"):
        await reading
    assert not broker_of(backend)._receivers


async def test_subscriptions_are_the_session_s(backend: MemoryChannelsBackend) -> None:
    """Subscribing twice is once, unsubscribing the unknown no error, and a new session begins without any."""
    stream = backend.stream_events()
    await backend.subscribe(["a", "b"])
    await backend.subscribe(["a"])
    await backend.unsubscribe(["b", "unknown"])
    await backend.publish(b"not for us", ["b"])
    await backend.publish(b"1", ["a"])
    await backend.publish(b"2", ["a"])
    assert [event.data for event in await take(stream, 2)] == [b"1", b"2"]

    await backend.on_shutdown()
    await backend.on_startup()
    stream = backend.stream_events()
    await backend.publish(b"not for us", ["a"])
    await backend.subscribe(["a"])
    await backend.publish(b"3", ["a"])
    assert [event.data for event in await take(stream, 1)] == [b"3"]


async def test_a_probe_is_delivered_and_not_stored(backend: MemoryChannelsBackend) -> None:
    """A sign of life takes the way of an event and leaves nothing."""
    stream = backend.stream_events()
    await backend.subscribe(["probe"])
    await backend.publish_probe("probe", b"x")
    assert await take(stream, 1) == [Event("probe", b"x")]
    assert await backend.get_history("probe") == History((), ORIGIN)
    assert backend.probe_channels() == ()


async def test_the_default_of_publish_probe() -> None:
    """The contract's default publishes as any event is published."""
    backend = MemoryChannelsBackend()
    await backend.on_startup()
    stream = backend.stream_events()
    await backend.subscribe(["probe"])
    await ChannelsBackend.publish_probe(backend, "probe", b"x")
    assert await take(stream, 1) == [Event("probe", b"x")]
    await backend.on_shutdown()


# Several instances, threads and loops


async def test_two_instances_on_one_broker() -> None:
    """What one plugin publishes, the subscribers of another get; a cursor of one resumes at the other."""
    url = "memory://two-instances?history=100"
    async with ChannelsPlugin(url, channels="a") as here, ChannelsPlugin(url, channels="a") as there:
        async with here.subscribe("a") as stream:
            await there.wait_published("1", "a")
            await here.wait_published("2", "a")
            assert await data(stream, 2) == [b"1", b"2"]
            token = str(stream.cursor)
        await here.wait_published("3", "a")
        async with there.subscribe("a", after=token) as stream:
            assert await data(stream, 1) == [b"3"]


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    loop.close()


async def test_instances_in_two_loops(other_loop: asyncio.AbstractEventLoop) -> None:
    """Two plugins in two threads, each with its loop, share a broker: every event once and in order on both sides."""
    url = "memory://two-loops?history=10000"
    count = 500

    async def run(name: str) -> list[bytes]:
        async with (
            ChannelsPlugin(url, channels="a") as channels,
            channels.subscribe("a", after={"a": ORIGIN}) as stream,
        ):
            for number in range(count):
                channels.publish(f"{name}{number}", "a")
                if number % 50 == 0:
                    await asyncio.sleep(0)
            return await data(stream, 2 * count)

    kept = MemoryChannelsBackend.from_url(url)
    there = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run("there"), other_loop))
    here = await run("here")
    assert here == await there
    for name in ("here", "there"):
        mine = [payload for payload in here if payload.startswith(name.encode())]
        assert mine == [f"{name}{number}".encode() for number in range(count)]
    assert not broker_of(kept)._receivers


def test_a_loop_that_closed_without_saying_so() -> None:
    """A receiver whose loop is gone does not disturb who publishes."""
    backend = MemoryChannelsBackend()

    async def start() -> None:
        await backend.on_startup()
        await backend.subscribe(["a"])

    asyncio.run(start())
    broker = broker_of(backend)
    thread = threading.Thread(target=broker.publish, args=([Publication(b"x", ("a",))],))
    thread.start()
    thread.join(DEADLINE)
    assert [event.data for receiver in broker._receivers["a"] for event in receiver.queue] == [b"x"]
    asyncio.run(backend.on_shutdown())


def test_threads_publish_at_once() -> None:
    """Offsets are consecutive however many threads publish."""
    broker = MemoryBroker(10_000, None)

    def publish(thread: int) -> None:
        for number in range(500):
            broker.publish([Publication(b"%d" % number, ("a",), (str(thread), number + 1))])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    events = broker.read("a", None, None).events
    assert [event.position.offset for event in events if event.position] == list(range(1, 4_001))


async def test_a_wakeup_is_never_missed() -> None:
    """A flag that is set before anybody waits wakes the next who waits, also after a cancelled wait."""
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    await asyncio.wait_for(wakeup.wait(), DEADLINE)

    waiting = asyncio.create_task(wakeup.wait())
    await asyncio.sleep(0)
    wakeup.set()
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    await asyncio.wait_for(wakeup.wait(), DEADLINE)

    waiting = asyncio.create_task(wakeup.wait())
    await asyncio.sleep(0)
    await asyncio.to_thread(wakeup.set)
    await asyncio.wait_for(waiting, DEADLINE)
