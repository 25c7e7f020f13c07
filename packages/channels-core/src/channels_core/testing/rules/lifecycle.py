"""Start and stop, in any order and number, in bounded time and without leftovers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from channels_core.backend import Publication
from channels_core.exceptions import BackendConnectionError
from channels_core.testing.registry import RuleBroken, check, rule
from channels_core.testing.stage import Instance, Stage, turns


@rule()
async def a_stopped_backend_starts_again(stage: Stage) -> None:
    """Start, stop and start works, three times; subscriptions of before are gone, and new ones work.

    Troubleshooting: make connections, tasks and tables in `on_startup`, not in the constructor.
    """
    publishing, receiving = await stage.pair()
    old = stage.channel()
    for number in range(3):
        channel = stage.channel()
        await receiving.subscribe(old, channel)
        await publishing.publish(b"%d" % number, channel)
        await receiving.take(1)
        await receiving.stop()
        await receiving.start()
    await receiving.subscribe(end := stage.channel())
    await publishing.publish(b"forgotten", old)
    await publishing.publish(b"end", end)
    check(not await receiving.take_until(b"end"), "a subscription survived on_shutdown")


@rule()
async def a_stopped_backend_starts_in_another_event_loop(stage: Stage) -> None:
    """A backend that was stopped in one event loop works in another one.

    Troubleshooting: make locks, queues, pools and clients in `on_startup`.
    """
    await stage.company()
    instance = stage.unstarted()
    await _use(instance, stage.channel())
    await asyncio.to_thread(asyncio.run, _use(instance, stage.channel()))
    await _use(instance, stage.channel())


@rule()
async def stopping_is_idempotent(stage: Stage) -> None:
    """`on_shutdown` is legal before the first start, and twice.

    Troubleshooting: take the connection out of the attribute first, then close it.
    """
    await stage.company()
    instance = stage.unstarted()
    await instance.backend.on_shutdown()
    await instance.start()
    await instance.stop()
    await instance.backend.on_shutdown()


@rule()
async def the_stream_is_legal_without_channels(stage: Stage) -> None:
    """`stream_events` may be read before any subscribe, and after the last unsubscribe; it waits.

    Troubleshooting: some drivers end or raise when nothing is subscribed; wait for the first name.
    """
    await stage.company()
    instance = await stage.instance()
    channel = stage.channel()
    await turns(20)
    check(instance.failure is None, f"the stream of no channels raised {instance.failure!r}")
    for _ in range(2):
        await instance.subscribe(channel)
        await instance.publish(b"x", channel)
        await instance.take(1)
        await instance.unsubscribe(channel)
        await turns(20)


@rule()
async def stopping_ends_the_stream(stage: Stage) -> None:
    """`on_shutdown` makes a stream that is being read raise `BackendConnectionError`.

    Troubleshooting: wake the reader when the connection is closed from our side.
    """
    await stage.company()
    instance = await stage.instance()
    await instance.subscribe(stage.channel())
    await asyncio.wait_for(instance.backend.on_shutdown(), stage.subject.call_timeout)
    error = await instance.broken()
    check(isinstance(error, BackendConnectionError), f"the stream raised {error!r}")


@rule()
async def stopping_one_leaves_the_others_alone(stage: Stage) -> None:
    """When one instance stops, another one goes on receiving and publishing.

    Troubleshooting: close what is yours; look for state shared by class or module.
    """
    stopping, staying = await stage.instance(), await stage.instance()
    channel = stage.channel()
    await staying.subscribe(channel)
    await stopping.subscribe(channel)
    await stopping.stop()
    await staying.publish(b"x", channel)
    await staying.take(1)


@rule()
async def sixteen_reads_and_two_lanes_at_once(stage: Stage) -> None:
    """Sixteen reads, two publishing lanes and the stream at the same time do not mix their answers.

    Troubleshooting: one connection per call in flight, or a lock around it.
    """
    await stage.company()
    instance = await stage.instance()
    channels = stage.channels(16)
    await instance.subscribe(*channels)
    for name in channels:
        await instance.publish(name.encode(), name)
    lanes = [_publish_all(instance, channels, b"a", 2), _publish_all(instance, channels, b"b", 3)]
    if stage.subject.keeps_history:
        reads = [_read_own(instance, name) for name in channels]
        await asyncio.gather(*lanes, *reads)
    else:
        await asyncio.gather(*lanes)
    events = await instance.take(8 * len(channels))
    for name in channels:
        seen = sorted(event.data for event in events if event.channel == name)
        expected = sorted([name.encode(), b"a0", b"a1", b"a2", b"b0", b"b1", b"b2", b"b3"])
        check(seen == expected, f"two lanes sent {expected}, and {seen} came")


@rule()
async def a_cancelled_call_does_no_harm(stage: Stage) -> None:
    """After a publish, a batch or a read was cancelled anywhere in between, the next one gets its own answer.

    Troubleshooting: drop the connection of a cancelled call, or its unread answer is taken for the next one's.
    """
    await stage.company()
    instance = await stage.instance()
    cancelled, channel = stage.channels(2)
    await instance.subscribe(cancelled, channel)
    for name in (cancelled, channel):
        await instance.publish(name.encode(), name)
    await instance.take(2)
    for steps in range(15):
        await _cancel(instance.backend.publish(b"x", [cancelled]), steps)
        await instance.publish(b"%d" % steps, channel)
        await _cancel(instance.backend.publish_batch([Publication(b"x", (cancelled,))] * 3), steps)
        outcomes = await instance.publish_batch([Publication(b"%d in a batch" % steps, (channel,))])
        check(outcomes == [None], f"behind a cancelled batch, one publication is answered by {outcomes}")
        if stage.subject.keeps_history:
            await _cancel(instance.backend.get_history(cancelled), steps)
            await _read_own(instance, channel)
            await _cancel(instance.backend.get_tops([cancelled]), steps)
            await _read_own(instance, channel)
    await instance.publish(b"end", channel)
    events = [event.data for event in await instance.take_until(b"end") if event.channel == channel]
    expected = [data for number in range(15) for data in (b"%d" % number, b"%d in a batch" % number)]
    check(events == expected, f"behind cancelled calls came {events}")


@rule()
async def a_cancelled_subscribe_is_forgotten_by_a_restart(stage: Stage) -> None:
    """After a `subscribe` was cancelled anywhere in between, a restart gives a backend that subscribes again.

    Troubleshooting: release locks and drop tables of names also when cancelled; begin afresh in `on_startup`.
    """
    await stage.company()
    instance = await stage.instance()
    for steps in (0, 1, 2, 3, 5, 8, 13):
        cancelled, channel = stage.channels(2)
        await _cancel(instance.backend.subscribe([cancelled]), steps)
        await instance.stop()
        await instance.start()
        await instance.subscribe(channel)
        await instance.publish(b"not for us", cancelled)
        await instance.publish(b"sentinel", channel)
        before = await instance.take_until(b"sentinel")
        check(not before, f"a cancelled subscribe survived the restart: {before}")


@rule(hooks=("stop_broker", "start_broker"))
async def stopping_is_bounded_while_the_broker_is_away(stage: Stage) -> None:
    """`on_shutdown` returns in time while the broker is unreachable, and the backend starts again later.

    Troubleshooting: do not say good-bye to the broker; close sockets, and give every wait a deadline.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    await publishing.publish(b"x", channel)
    async with stage.broker_stopped():
        await receiving.stop()
        if stage.several:
            await publishing.stop()
    await receiving.start()
    await receiving.subscribe(channel)
    await receiving.publish(b"y", channel)
    await receiving.take_until(b"y")


@rule(hooks=("stop_broker", "start_broker"))
async def starting_without_a_broker_raises(stage: Stage) -> None:
    """`on_startup` raises `BackendConnectionError` while the broker is away, and works when it is back.

    Troubleshooting: connect in `on_startup`, with a timeout of your own; close what was opened halfway.
    """
    await stage.company()
    instance = stage.unstarted()
    async with stage.broker_stopped():
        await stage.fails(instance.backend.on_startup(), "on_startup without a broker")
        await instance.backend.on_shutdown()
    await _use(instance, stage.channel())


async def _use(instance: Instance, channel: str) -> None:
    await instance.start()
    await instance.subscribe(channel)
    await instance.publish(b"x", channel)
    await instance.take(1)
    await instance.stop()


async def _publish_all(instance: Instance, channels: list[str], lane: bytes, size: int) -> None:
    for name in channels:
        await instance.publish(lane + b"0", name)
        batch = [Publication(b"%s%d" % (lane, number + 1), (name,)) for number in range(size)]
        outcomes = await instance.publish_batch(batch)
        check(outcomes == [None] * size, f"a batch of {size} beside another one is answered by {outcomes}")


async def _read_own(instance: Instance, channel: str) -> None:
    for _ in range(3):
        events = (await instance.history(channel)).events
        strangers = {event.channel for event in events} - {channel}
        check(bool(events) and events[0].data == channel.encode(), f"history of {channel} begins with {events[:1]}")
        check(not strangers, f"history of {channel} has events of {strangers}")
        tops = await instance.tops(channel)
        check(set(tops) == {channel}, f"get_tops of {channel} answers for {sorted(tops)}")


async def _cancel(call: Coroutine[object, object, object], steps: int) -> None:
    task = asyncio.create_task(call)
    await turns(steps)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is not None:
        raise RuleBroken(f"a cancelled call raised {task.exception()!r}") from task.exception()
