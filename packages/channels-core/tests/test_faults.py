"""The plugin recovers by itself, whatever its backend does, and streams say what may be missing.

The backend is broken on purpose in every verb: it raises, hangs, refuses, answers late, goes silent, loses its memory
and trims.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from core_stage import data, take, take_rest, turns, until
from faulty import FaultyBackend, RecordingBroker

from channels_core import ChannelsPlugin, Event, Gap, Position, Subscriber
from channels_core.backend import Publication
from channels_core.events import ORIGIN
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    ChannelsException,
    NotStarted,
    PublishError,
    ShutdownTimeout,
)

LOST = BackendConnectionError("the connection is gone")

BROKEN: list[BaseException] = [LOST, OSError("broken pipe"), RuntimeError("a bug in the backend")]
"""A mapped driver error, one that a backend forgot to map, and a bug."""


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels_core._link.FIRST_DELAY", 0.0)
    monkeypatch.setattr("channels_core.supervisor.PAUSE", 0.0)


@pytest.fixture(params=[0, 100], ids=["without history", "with history"])
def backend(request: pytest.FixtureRequest) -> FaultyBackend:
    return FaultyBackend(RecordingBroker(history=request.param))


@pytest.fixture
def keeping() -> FaultyBackend:
    return FaultyBackend(RecordingBroker(history=100))


@pytest.fixture
def forgetful() -> FaultyBackend:
    return FaultyBackend(RecordingBroker(history=0))


def plugin(backend: FaultyBackend, **options: Any) -> ChannelsPlugin:
    return ChannelsPlugin(backend, arbitrary_channels_allowed=True, **{"probe_interval": None, **options})


def broker(backend: FaultyBackend) -> RecordingBroker:
    assert isinstance(backend.broker, RecordingBroker)
    return backend.broker


async def join(channels: ChannelsPlugin, name: str) -> Subscriber:
    return await channels.subscribe(name)


async def deaf_and_back(channels: ChannelsPlugin, reconnects: int) -> None:
    await until(lambda: channels.stats().reconnects == reconnects and channels.health().ok)


# Receiving


@pytest.mark.parametrize("error", BROKEN, ids=repr)
@pytest.mark.parametrize("verb", ["on_startup", "stream_events", "subscribe", "on_shutdown", "get_tops"])
async def test_a_restart_that_fails_is_tried_again(backend: FaultyBackend, verb: str, error: BaseException) -> None:
    """Any verb may raise while the plugin restarts, several times; then delivery goes on."""
    async with plugin(backend) as channels, channels.subscribe("a") as stream:
        backend.raises(verb, error, times=3)
        backend.cut()
        await until(lambda: not channels.health().ok)
        await until(lambda: channels.health().ok)
        broker(backend).publish_now("a", b"after")
        items = await take(stream, 1 if backend.keeps_history else 2)
        assert items[-1].data == b"after"
        assert [item.reason for item in items[:-1]] == ([] if backend.keeps_history else ["disconnected"])


async def test_health_is_false_while_deaf(backend: FaultyBackend) -> None:
    """From the break until the broker confirmed the new subscription, ``health()`` says so and why."""
    async with plugin(backend) as channels, channels.subscribe("a"):
        released = asyncio.Event()
        backend.blocks("on_startup", released)
        assert channels.health().ok
        backend.cut()
        await until(lambda: backend.calls.count("on_startup") == 2)
        health = channels.health()
        assert not health.ok
        assert "cut" in health.detail
        released.set()
        await deaf_and_back(channels, 1)
        assert channels.health().since > health.since


async def test_the_discipline_of_calls_holds(backend: FaultyBackend) -> None:
    """On failure the iterator is closed, then on_shutdown; no call follows until the next start-up returned."""
    async with plugin(backend) as channels, channels.subscribe("a"):
        released = asyncio.Event()
        backend.blocks("on_startup", released)
        channels.publish("1", "a")
        await until(lambda: channels.stats().pending == 0)
        del backend.calls[:]
        backend.cut()
        await until(lambda: backend.calls[-1:] == ["on_startup"])
        channels.publish("2", "a")
        reading = asyncio.create_task(join(channels, "b"))
        await turns()
        assert backend.calls == ["on_shutdown", "on_startup"]
        released.set()
        await reading
        assert backend.calls[2:4] == ["stream_events", "subscribe"]


async def test_a_stream_that_ends_by_itself_is_a_failure(
    backend: FaultyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend whose iterator just stops is restarted like one that raises."""

    async def ends(self: FaultyBackend) -> Any:
        return
        yield

    async with plugin(backend) as channels, channels.subscribe("a") as stream:
        with monkeypatch.context() as patch:
            patch.setattr(FaultyBackend, "stream_events", ends)
            backend.cut()
            await until(lambda: "ended by itself" in channels.health().detail)
        await until(lambda: channels.health().ok and channels.stats().reconnects)
        broker(backend).publish_now("a", b"after")
        items = await take(stream, 1 if backend.keeps_history else 2)
        assert items[-1].data == b"after"


async def test_history_fills_the_hole(keeping: FaultyBackend) -> None:
    """What was published while the plugin was deaf arrives, in order, once, without a gap."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        broker(keeping).publish_now("a", b"1")
        assert await data(stream, 1) == [b"1"]
        released = asyncio.Event()
        keeping.blocks("on_startup", released)
        keeping.cut()
        await until(lambda: not channels.health().ok)
        for n in range(2, 6):
            broker(keeping).publish_now("a", b"%d" % n)
        released.set()
        broker(keeping).publish_now("a", b"6")
        assert await data(stream, 5) == [b"2", b"3", b"4", b"5", b"6"]
        assert channels.stats().gaps == 0


async def test_several_breaks_give_one_gap(forgetful: FaultyBackend) -> None:
    """Without history one gap per channel stands before the first later event, for those who were there only."""
    async with plugin(forgetful) as channels, channels.subscribe(["a", "b"]) as stream:
        forgetful.raises("subscribe", LOST, times=2)
        forgetful.cut()
        await until(lambda: not channels.health().ok)
        late = await join(channels, "a")
        broker(forgetful).publish_now("a", b"after")
        broker(forgetful).publish_now("b", b"after")
        assert await take(stream, 4) == [
            Gap("a", "disconnected"),
            Gap("b", "disconnected"),
            Event("a", b"after"),
            Event("b", b"after"),
        ]
        assert await data(late, 1) == [b"after"]
        await late.stop()


async def test_what_comes_before_the_confirmation_stands_behind_the_gap(forgetful: FaultyBackend) -> None:
    """An event that arrives while the subscription is being confirmed is not lost, and not put before the gap."""
    async with plugin(forgetful) as channels, channels.subscribe("a") as stream:
        confirmed = asyncio.Event()

        async def subscribe_slowly(names: Any) -> None:
            forgetful.broker.subscribe(forgetful._started(), names)
            await confirmed.wait()

        forgetful.replace("subscribe", subscribe_slowly)
        forgetful.cut()
        await until(lambda: "a" in forgetful.broker._receivers and not channels.health().ok)
        broker(forgetful).publish_now("a", b"early")
        await turns()
        assert stream.qsize == 0
        confirmed.set()
        assert await take(stream, 2) == [Gap("a", "disconnected"), Event("a", b"early")]


async def test_live_events_that_get_lost_are_read_again(keeping: FaultyBackend) -> None:
    """A hole in the offsets is filled from history, before what comes behind it."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        broker(keeping).publish_now("a", b"1")
        assert await data(stream, 1) == [b"1"]
        keeping.loses = 2
        for n in range(2, 6):
            broker(keeping).publish_now("a", b"%d" % n)
        assert await data(stream, 4) == [b"2", b"3", b"4", b"5"]
        assert channels.stats().reconnects == 0


async def test_a_hole_that_history_no_longer_has_is_a_gap(keeping: FaultyBackend) -> None:
    """Where history was trimmed, a gap with the exact positions stands in the stream."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        keeping.loses = 3
        for n in range(1, 4):
            broker(keeping).publish_now("a", b"%d" % n)
        await turns()
        broker(keeping).trim("a", 1)
        broker(keeping).publish_now("a", b"4")
        gap, third, fourth = await take(stream, 3)
        assert (gap.reason, gap.after, gap.until.offset, gap.missed) == ("trimmed", ORIGIN, 2, 2)
        assert [third.data, fourth.data] == [b"3", b"4"]
        assert stream.cursor["a"] == fourth.position


async def test_a_broker_that_lost_its_memory_gives_an_epoch_gap(keeping: FaultyBackend) -> None:
    """A flush is announced, and the events on both sides are delivered."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        broker(keeping).publish_now("a", b"old")
        old = (await take(stream, 1))[0]
        broker(keeping).forget()
        broker(keeping).publish_now("a", b"new")
        gap, new = await take(stream, 2)
        assert (gap.reason, gap.after, gap.missed) == ("epoch", old.position, None)
        assert (gap.until.offset, gap.until.epoch) == (0, new.position.epoch)
        assert new.data == b"new"


async def test_a_flush_seen_at_a_restart_is_announced_at_once(keeping: FaultyBackend) -> None:
    """A stream is told that the broker knows nothing any more, even though no event follows."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        broker(keeping).publish_now("a", b"old")
        old = (await take(stream, 1))[0]
        broker(keeping).forget()
        for n in range(1, 3):
            keeping.cut()
            await deaf_and_back(channels, n)
            await turns()
        assert await take(stream, 1) == [Gap("a", "epoch", old.position)]
        broker(keeping).publish_now("a", b"new")
        gap, new = await take(stream, 2)
        assert (gap.reason, gap.until.epoch, new.data) == ("epoch", new.position.epoch, b"new")


async def test_events_under_way_during_a_flush_are_not_taken_for_new_ones(keeping: FaultyBackend) -> None:
    """What the broker sent before it lost its memory is known for what it is."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        broker(keeping).publish_now("a", b"1")
        (first,) = await take(stream, 1)
        broker(keeping).forget()
        keeping.cut()
        await deaf_and_back(channels, 1)
        assert isinstance((await take(stream, 1))[0], Gap)
        receiver = keeping._started()
        receiver.put((first,))
        broker(keeping).publish_now("a", b"2")
        gap, second = await take(stream, 2)
        assert (gap.reason, second.data) == ("epoch", b"2")


async def test_a_restart_with_data_puts_an_epoch_gap_between(keeping: FaultyBackend) -> None:
    """Acknowledged events may have been lost, so a gap stands at the border; both sides are delivered."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        broker(keeping).publish_now("a", b"1")
        broker(keeping).reincarnate()
        broker(keeping).publish_now("a", b"2")
        first, gap, second = await take(stream, 3)
        assert (first.data, gap.reason, second.data) == (b"1", "epoch", b"2")
        assert (second.position.offset, gap.until) == (2, second.position.before())
        resumed = await channels.subscribe("a", after={"a": first.position})
        assert await take(resumed, 2) == [gap, second]
        await resumed.stop()


@pytest.mark.parametrize("error", [*BROKEN, BackendError("not permitted")], ids=repr)
async def test_a_repair_goes_on_when_reading_fails(keeping: FaultyBackend, error: BaseException) -> None:
    """A read that breaks is repeated; one that is refused leaves a gap. The channel is never left deaf."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        keeping.loses = 1
        keeping.raises("get_history", error)
        broker(keeping).publish_now("a", b"1")
        await turns()
        broker(keeping).publish_now("a", b"2")
        items = await take(stream, 2)
        if isinstance(error, OSError):
            assert [item.data for item in items] == [b"1", b"2"]
        else:
            assert items[0] == Gap("a", "trimmed", ORIGIN, items[1].position.before(), 1)
            assert items[1].data == b"2"


@pytest.mark.parametrize("error", [*BROKEN, BackendError("not permitted")], ids=repr)
async def test_catching_up_goes_on_when_reading_fails(keeping: FaultyBackend, error: BaseException) -> None:
    """A subscriber that lags gets its events when the read works again, or a gap when it is refused."""
    channels = plugin(keeping, max_backlog=2, backlog_strategy="catchup")
    async with channels, channels.subscribe("a") as stream:
        keeping.raises("get_history", error)
        for n in range(5):
            broker(keeping).publish_now("a", b"%d" % n)
        await turns()
        items = await take(stream, 5 if isinstance(error, OSError) else 3)
        if isinstance(error, OSError):
            assert [item.data for item in items] == [b"0", b"1", b"2", b"3", b"4"]
        else:
            assert (items[2].reason, items[2].missed) == ("trimmed", 3)
        broker(keeping).publish_now("a", b"live")
        assert await data(stream, 1) == [b"live"]


async def test_more_live_events_than_can_be_held_are_read_again(
    keeping: FaultyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a repair reads, held events beyond the limit come from history instead."""
    monkeypatch.setattr("channels_core._channel.MAX_HELD", 3)
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        released = asyncio.Event()
        keeping.loses = 1
        keeping.blocks("get_history", released)
        for n in range(10):
            broker(keeping).publish_now("a", b"%d" % n)
            await turns(3)
        assert stream.qsize == 0
        released.set()
        assert await data(stream, 10) == [b"%d" % n for n in range(10)]


async def test_what_gets_lost_during_a_repair_is_read_as_well(keeping: FaultyBackend) -> None:
    """A hole in what was held while history was read is one more repair."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        released = asyncio.Event()
        keeping.blocks("answer of get_history", released)
        for payload, lost in ((b"1", 1), (b"2", 0), (b"3", 1), (b"4", 0)):
            keeping.loses = lost
            broker(keeping).publish_now("a", payload)
            await until(lambda: not keeping.loses)
            await turns()
        released.set()
        assert await data(stream, 4) == [b"1", b"2", b"3", b"4"]


async def test_a_long_hole_is_read_page_by_page(keeping: FaultyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair reads as many pages as it takes."""
    monkeypatch.setattr("channels_core.router.PAGE", 2)
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        keeping.loses = 6
        for n in range(7):
            broker(keeping).publish_now("a", b"%d" % n)
        assert await data(stream, 7) == [b"%d" % n for n in range(7)]
        assert keeping.calls.count("get_history") == 4


async def test_what_is_held_survives_a_refused_repair(keeping: FaultyBackend) -> None:
    """A refused read leaves one gap, before the first held event; duplicates among them stay unseen."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        released = asyncio.Event()
        keeping.loses = 1
        keeping.blocks("get_history", released)
        for n in range(1, 4):
            broker(keeping).publish_now("a", b"%d" % n)
        await turns()
        keeping._started().put((broker(keeping).log["a"][1],))
        keeping.breaks("answer of get_history", BackendError("not permitted"))
        await turns()
        released.set()
        gap, *events = await take(stream, 3)
        assert (gap.reason, gap.missed) == ("trimmed", 1)
        assert [event.data for event in events] == [b"2", b"3"]
        keeping.mends("answer of get_history")


async def test_a_stream_that_begins_to_lag_takes_nothing_from_one_that_joins(keeping: FaultyBackend) -> None:
    """An event for which one stream has no room still reaches the one whose history is being read."""
    channels = plugin(keeping, max_backlog=1, backlog_strategy="catchup")
    async with channels, channels.subscribe("a") as full:
        broker(keeping).publish_now("a", b"1")
        await turns()
        released = asyncio.Event()
        keeping.blocks("get_history", released)

        async def join_with_history() -> Subscriber:
            return await channels.subscribe("a", history=5)

        joining = asyncio.create_task(join_with_history())
        await turns()
        broker(keeping).publish_now("a", b"2")
        await turns()
        released.set()
        joined = await joining
        broker(keeping).publish_now("a", b"3")
        assert await data(joined, 3) == [b"1", b"2", b"3"]
        assert await data(full, 3) == [b"1", b"2", b"3"]
        await joined.stop()


async def test_joins_share_a_repair(keeping: FaultyBackend) -> None:
    """Clients that come back with cursors of another epoch at once cause one read of the channel, and one each."""
    async with plugin(keeping) as channels, channels.subscribe("a"):
        released = asyncio.Event()
        keeping.blocks("get_history", released)
        foreign = {"a": Position("another epoch", 5)}

        async def resume() -> Subscriber:
            return await channels.subscribe("a", after=foreign)

        joining = [asyncio.create_task(resume()) for _ in range(2)]
        await turns()
        released.set()
        for stream in await asyncio.gather(*joining):
            assert await take(stream, 1) == [Gap("a", "epoch", foreign["a"], ORIGIN)]
            await stream.stop()


async def test_work_that_fails_unexpectedly_is_logged(keeping: FaultyBackend, caplog: pytest.LogCaptureFixture) -> None:
    """No task of the plugin dies unheard."""

    async def fail() -> None:
        raise LookupError("a bug of ours")

    async with plugin(keeping) as channels:
        assert channels._runtime is not None
        channels._runtime.router.spawn(fail(), "work")
        await turns()
    assert "channels: work failed" in caplog.text


# Subscribing


async def test_a_refused_channel_concerns_its_own_joins_only(backend: FaultyBackend) -> None:
    """Who joins a channel that the broker refuses gets the error; others, even of the same batch, get theirs."""
    original = backend.subscribe

    async def refuse_secret(names: Any) -> None:
        if "secret" in names:
            raise BackendError("no permission for 'secret'")
        await original(names)

    backend.replace("subscribe", refuse_secret)
    async with plugin(backend) as channels:
        joins = (join(channels, name) for name in ("secret", "public"))
        secret, public = await asyncio.gather(*joins, return_exceptions=True)
        assert isinstance(secret, BackendError)
        assert isinstance(public, Subscriber)
        broker(backend).publish_now("public", b"x")
        assert await data(public, 1) == [b"x"]
        assert channels.stats().channels == 1
        assert channels.stats().reconnects == 0
        await public.stop()


async def test_a_refused_newcomer_does_not_keep_others_deaf(backend: FaultyBackend) -> None:
    """Who asks for a channel that the broker refuses, while the plugin restarts, concerns nobody else."""
    original = backend.subscribe

    async def refuse_secret(names: Any) -> None:
        if "secret" in names:
            raise BackendError("no permission for 'secret'")
        await original(names)

    backend.replace("subscribe", refuse_secret)
    async with plugin(backend) as channels, channels.subscribe("a") as stream:
        released = asyncio.Event()
        backend.blocks("on_startup", released)
        backend.cut()
        await until(lambda: not channels.health().ok)
        joining = asyncio.create_task(join(channels, "secret"))
        await turns()
        released.set()
        with pytest.raises(BackendError):
            await joining
        await deaf_and_back(channels, 1)
        broker(backend).publish_now("a", b"x")
        assert (await take(stream, 1 if backend.keeps_history else 2))[-1].data == b"x"


async def test_a_channel_that_is_refused_after_a_restart_is_no_secret(backend: FaultyBackend) -> None:
    """Streams that have a channel which the broker now refuses are deaf in it, and health says so."""
    async with plugin(backend) as channels, channels.subscribe("a"):
        backend.breaks("subscribe", BackendError("no permission any more"))
        backend.cut()
        await until(lambda: "no permission any more" in channels.health().detail)
        assert not channels.health().ok
        backend.mends("subscribe")
        await deaf_and_back(channels, 1)


@pytest.mark.parametrize("error", BROKEN, ids=repr)
async def test_a_subscribe_that_breaks_restarts_and_succeeds(backend: FaultyBackend, error: BaseException) -> None:
    """A failed subscribe marks the plugin unhealthy; the join waits and gets its channel."""
    async with plugin(backend) as channels:
        backend.raises("subscribe", error)
        async with channels.subscribe("a") as stream:
            await deaf_and_back(channels, 1)
            broker(backend).publish_now("a", b"x")
            assert await data(stream, 1) == [b"x"]


async def test_subscribe_gives_up_after_the_publish_timeout(backend: FaultyBackend) -> None:
    """While the broker is away a join waits, then raises and leaves nothing behind."""
    async with plugin(backend, publish_timeout=0.05) as channels:
        backend.hangs("on_startup", times=100)
        backend.cut()
        await until(lambda: not channels.health().ok)
        with pytest.raises(BackendConnectionError, match="did not confirm"):
            await channels.subscribe("a")
        assert (channels.stats().subscribers, len(backend.broker._receivers)) == (0, 0)
        if backend.keeps_history:
            with pytest.raises(BackendConnectionError, match="gave no history"):
                await channels.get_history("a")


@pytest.mark.parametrize("error", [*BROKEN, BackendError("refused")], ids=repr)
async def test_an_unsubscribe_that_fails_bothers_nobody(backend: FaultyBackend, error: BaseException) -> None:
    """Leaving is local: whatever the broker says, the stream ends and joining again works."""
    async with plugin(backend) as channels:
        stream = await channels.subscribe("a")
        backend.raises("unsubscribe", error)
        await channels.unsubscribe(stream)
        assert await take_rest(stream) == []
        await until(lambda: backend.calls.count("unsubscribe") == 1)
        async with channels.subscribe("a") as again:
            broker(backend).publish_now("a", b"x")
            assert await data(again, 1) == [b"x"]


async def test_joining_while_leaving_misses_nothing(backend: FaultyBackend) -> None:
    """A join that meets the unsubscribe of its channel on its way waits for a subscription of its own."""
    async with plugin(backend) as channels:
        stream = await channels.subscribe("a")
        released = asyncio.Event()
        backend.blocks("unsubscribe", released)
        await channels.unsubscribe(stream)
        await until(lambda: backend.calls[-1] == "unsubscribe")
        joining = asyncio.create_task(join(channels, "a"))
        await turns()
        assert not joining.done()
        released.set()
        again = await joining
        broker(backend).publish_now("a", b"x")
        assert await data(again, 1) == [b"x"]
        await again.stop()


async def test_a_call_without_an_answer_ends_at_its_deadline(backend: FaultyBackend) -> None:
    """A verb that hangs is cancelled; the plugin restarts, or tries again."""
    async with plugin(backend, call_timeout=0.02) as channels:
        for verb in ("subscribe", "publish_batch", "get_history", "get_tops"):
            backend.hangs(verb)
        async with channels.subscribe("a", history=1 if backend.keeps_history else None) as stream:
            await channels.wait_published("x", "a")
            assert await data(stream, 1) == [b"x"]


# Publishing


@pytest.mark.parametrize("error", BROKEN[:2], ids=repr)
async def test_a_lost_connection_is_retried_in_order(keeping: FaultyBackend, error: BaseException) -> None:
    """Queued events are sent again with the same keys until the broker has them, each once, in order."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        keeping.raises("publish_batch", error, times=2)
        keeping.raises("answer of publish_batch", error, times=2)
        for n in range(20):
            channels.publish(b"%d" % n, "a")
        assert await data(stream, 20) == [b"%d" % n for n in range(20)]
        await until(lambda: channels.stats().published == 20)
        assert [event.data for event in broker(keeping).log["a"]] == [b"%d" % n for n in range(20)]


async def test_an_answer_that_got_lost_does_not_duplicate(keeping: FaultyBackend) -> None:
    """``wait_published`` retries an event that the broker had stored already: it appears once."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        keeping.raises("answer of publish_batch", LOST)
        await channels.wait_published("1", "a")
        await channels.wait_published("2", "a")
        assert await data(stream, 2) == [b"1", b"2"]


async def test_an_abandoned_attempt_that_runs_late_stores_nothing(keeping: FaultyBackend) -> None:
    """A first attempt that the broker executes after its own retry, and after newer events, is recognised."""
    async with plugin(keeping) as channels, channels.subscribe("a") as stream:
        abandoned: list[Publication] = []
        original = keeping.publish_batch

        async def lose_first(batch: Any) -> Any:
            if not abandoned:
                abandoned.extend(batch)
                raise LOST
            return await original(batch)

        keeping.replace("publish_batch", lose_first)
        channels.publish("1", "a")
        assert await data(stream, 1) == [b"1"]
        keeping.broker.publish(abandoned)
        channels.publish("2", "a")
        keeping.broker.publish(abandoned)
        broker(keeping).publish_now("a", b"sentinel")
        assert {(await take(stream, 1))[0].data for _ in range(2)} == {b"2", b"sentinel"}
        assert len(broker(keeping).log["a"]) == 3


async def test_a_driver_that_cancels_itself_has_lost_its_connection(keeping: FaultyBackend) -> None:
    """A ``CancelledError`` that nobody asked for ends no lane."""
    async with plugin(keeping) as channels:
        keeping.raises("publish_batch", asyncio.CancelledError(), times=2)
        channels.publish("1", "a")
        await channels.wait_published("2", "a")
        await until(lambda: channels.stats().pending == 0)
        assert {event.data for event in broker(keeping).log["a"]} == {b"1", b"2"}


@pytest.mark.parametrize("error", [RuntimeError("a bug"), BackendError("a whole batch refused")], ids=repr)
async def test_a_poisonous_event_takes_nobody_along(backend: FaultyBackend, error: Exception) -> None:
    """A batch that fails for one event's sake is sent event by event: the others arrive, the one is reported."""
    failed: list[tuple[Event, BaseException]] = []
    original = backend.publish_batch

    async def choke(batch: Any) -> Any:
        if any(publication.data == b"poison" for publication in batch):
            raise error
        return await original(batch)

    backend.replace("publish_batch", choke)
    options = {"on_publish_error": lambda event, exc: failed.append((event, exc))}
    async with plugin(backend, **options) as channels, channels.subscribe("a") as stream:
        for payload in (b"1", b"poison", b"2"):
            channels.publish(payload, "a")
        assert await data(stream, 2) == [b"1", b"2"]
        await until(lambda: channels.stats().pending == 0)
        assert failed == [(Event("a", b"poison"), error)]
        assert (channels.stats().failed, channels.stats().published) == (1, 2)
        with pytest.raises(PublishError, match="refused") as refused:
            await channels.wait_published(b"poison", "a")
        assert refused.value.__cause__ is error


async def test_a_wrong_number_of_outcomes_is_a_bug_of_the_backend(backend: FaultyBackend) -> None:
    """Outcomes that cannot be told apart are no success."""

    async def nothing(batch: Any) -> Any:
        return []

    backend.replace("publish_batch", nothing)
    async with plugin(backend) as channels:
        with pytest.raises(PublishError, match="0 outcomes for 1"):
            await channels.wait_published("x", "a")


async def test_wait_published_raises_what_kept_it(backend: FaultyBackend) -> None:
    """After ``publish_timeout`` the error names the driver's error as its cause; the next call works."""
    async with plugin(backend, publish_timeout=0.05) as channels:
        backend.breaks("publish_batch", LOST)
        with pytest.raises(PublishError, match="did not accept") as late:
            await channels.wait_published("x", "a")
        assert late.value.__cause__ is LOST
        assert channels.stats().failed == 1
        backend.mends("publish_batch")
        await channels.wait_published("y", "a")
        assert [event.data for event in broker(backend).log["a"]] == [b"y"]


# Stopping


@pytest.mark.parametrize("verb", ["publish_batch", "on_shutdown", "unsubscribe"])
async def test_stopping_never_hangs(backend: FaultyBackend, verb: str) -> None:
    """Whatever hangs, stop ends, and says how many events were not delivered."""
    channels = plugin(backend, shutdown_timeout=0.02, call_timeout=0.02)
    await channels.start()
    stream = await channels.subscribe("a")
    other = await channels.subscribe("b")
    backend.hangs(verb, times=1_000)
    await channels.unsubscribe(other)
    for _ in range(3):
        channels.publish("x", "a")
    if verb == "publish_batch":
        with pytest.raises(ShutdownTimeout, match="3 published") as late:
            await channels.stop()
        assert late.value.undelivered == 3
    else:
        await channels.stop()
    await take_rest(stream)
    assert not channels.health().ok
    with pytest.raises(NotStarted):
        channels.publish("x", "a")


async def test_stopping_while_the_broker_is_away(backend: FaultyBackend) -> None:
    """Stop gives up after its deadline, ends streams normally and frees who waits."""
    channels = plugin(backend, shutdown_timeout=0.02)
    await channels.start()
    stream = await channels.subscribe("a")
    backend.breaks("on_startup", LOST)
    backend.cut()
    await until(lambda: not channels.health().ok)
    channels.publish("x", "a")
    waiting = [asyncio.create_task(join(channels, "b")), asyncio.create_task(channels.wait_published("y", "a"))]
    await turns()
    with pytest.raises(ShutdownTimeout) as late:
        await channels.stop()
    assert late.value.undelivered == 1
    assert await take_rest(stream) == []
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, ChannelsException) for outcome in outcomes)


async def test_a_backend_that_ignores_cancellation_is_left_behind(
    backend: FaultyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ``on_shutdown`` that cannot even be cancelled does not keep the plugin from stopping."""
    monkeypatch.setattr("channels_core._link.GRACE", 0.01)
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    channels = plugin(backend, call_timeout=0.01)
    await channels.start()
    original = backend.on_shutdown
    backend.replace("on_shutdown", stubborn)
    await channels.stop()
    assert not channels.health().ok
    released.set()
    await original()
    await turns()


# Starting


async def test_starting_fails_at_once_by_default(backend: FaultyBackend) -> None:
    """With ``startup_timeout=0`` a broker that is away is an error, and nothing is left behind."""
    backend.raises("on_startup", LOST)
    channels = plugin(backend)
    with pytest.raises(BackendConnectionError, match="gone"):
        await channels.start()
    async with channels:
        assert channels.health().ok


async def test_starting_keeps_trying(backend: FaultyBackend) -> None:
    """With a ``startup_timeout`` the broker may come later."""
    backend.raises("on_startup", LOST, times=5)
    async with plugin(backend, startup_timeout=30.0) as channels:
        assert channels.health().ok
        assert channels.stats().reconnects == 0


async def test_a_refusal_at_the_start_is_not_retried(backend: FaultyBackend) -> None:
    """A wrong password does not become right by waiting."""
    backend.raises("on_startup", BackendError("wrong password"))
    with pytest.raises(BackendError, match="password"):
        await plugin(backend, startup_timeout=30.0).start()
    assert backend.calls.count("on_startup") == 1


# Probing


async def test_a_deaf_subscription_fails_the_start(backend: FaultyBackend) -> None:
    """The probe at start-up finds out, and its error says what to check."""
    backend.silent = True
    with pytest.raises(BackendConnectionError, match="transaction pooler"):
        await plugin(backend, probe_interval=60.0, probe_timeout=0.01).start()


async def test_a_subscription_that_went_deaf_is_replaced(backend: FaultyBackend) -> None:
    """Silence behind a healthy connection is found by the probe; the stream gets what it missed, or a gap."""
    channels = plugin(backend, probe_interval=0.02, probe_timeout=0.02)
    async with channels, channels.subscribe("a") as stream:
        backend.silent = True
        broker(backend).publish_now("a", b"1")
        await until(lambda: not channels.health().ok)
        assert "did not come back" in channels.health().detail
        backend.silent = False
        (first,) = await take(stream, 1)
        assert first == Gap("a", "disconnected") or first.data == b"1"
        assert isinstance(first, Gap) != backend.keeps_history


async def test_a_probe_that_hangs_is_a_miss(backend: FaultyBackend) -> None:
    """A half-open connection for publishing looks the same as one for receiving."""
    channels = plugin(backend, probe_interval=0.02, probe_timeout=0.02)
    async with channels:
        backend.hangs("publish_probe")
        await deaf_and_back(channels, 1)


async def test_a_refused_probe_proves_nothing(backend: FaultyBackend) -> None:
    """It is shown in the health's detail, and nothing is restarted for it."""
    channels = plugin(backend, probe_interval=0.01, probe_timeout=5.0)
    async with channels:
        backend.raises("publish_probe", BackendError("no permission to publish"))
        await until(lambda: "no permission" in channels.health().detail)
        assert channels.health().ok
        await until(lambda: channels.health().detail == "")
        assert channels.stats().reconnects == 0


async def test_traffic_makes_probes_unnecessary(backend: FaultyBackend) -> None:
    """While events arrive no probe is published."""
    channels = plugin(backend, probe_interval=0.2, probe_timeout=5.0)
    async with channels, channels.subscribe("a") as stream:
        probes = backend.calls.count("publish_probe")
        for _ in range(40):
            broker(backend).publish_now("a", b"x")
            await take(stream, 1)
            await asyncio.sleep(0.01)  # the declared duration: two intervals with traffic
        assert backend.calls.count("publish_probe") == probes


async def test_other_traffic_vouches_for_a_late_probe(backend: FaultyBackend) -> None:
    """A flood in front of the probe is no deafness."""
    channels = plugin(backend, probe_interval=0.02, probe_timeout=0.02)
    async with channels, channels.subscribe("a") as stream:
        probing = backend.calls.count("publish_probe")

        async def swallow(channel: str, payload: bytes) -> None:
            backend.calls.append("publish_probe")
            broker(backend).publish_now("a", b"flood")

        backend.replace("publish_probe", swallow)
        await until(lambda: backend.calls.count("publish_probe") >= probing + 3)
        assert channels.stats().reconnects == 0
        assert (await data(stream, 1)) == [b"flood"]


async def test_every_receiving_connection_is_probed(backend: FaultyBackend) -> None:
    """A backend with several connections names a channel for each, and one deaf connection is enough to restart."""
    backend.replace("probe_channels", lambda: ("probe 1", "probe 2"))
    channels = plugin(backend, probe_interval=0.02, probe_timeout=0.05)
    async with channels, channels.subscribe("a") as stream:
        broker(backend).publish_now("a", b"x")
        assert await data(stream, 1) == [b"x"]
        original = backend.publish_probe

        async def deaf_second(channel: str, payload: bytes) -> None:
            if channel == "probe 1":
                await original(channel, payload)

        backend.replace("publish_probe", deaf_second)
        await until(lambda: channels.stats().reconnects == 1)
