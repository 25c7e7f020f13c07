"""Publishing keeps order, reaches everybody, and says when it failed."""

from __future__ import annotations

import asyncio
from typing import Final

from channels_core.backend import Publication
from channels_core.events import ORIGIN, Position
from channels_core.testing.registry import check, rule
from channels_core.testing.stage import Instance, Stage

MANY: Final = 1000

MIXED: Final = 15
"""Events of one lane, alone and in batches: six lanes of them stay in any history."""


@rule()
async def a_thousand_events_arrive_in_order(stage: Stage) -> None:
    """1,000 events published one after the other arrive once each, in this order.

    Troubleshooting: one reader, one connection per direction; do not hand events to tasks.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    expected = [b"%d" % number for number in range(MANY)]
    for data in expected:
        await publishing.publish(data, channel)
    seen = [event.data for event in await receiving.take(MANY)]
    check(seen == expected, f"event {_first_difference(seen, expected)} is not in its place")


@rule()
async def a_batch_keeps_its_order(stage: Stage) -> None:
    """`publish_batch` of 1,000 publications to several channels arrives in order, and answers for each of them.

    Troubleshooting: write all of the batch through one connection; sort by channel only where order inside each stays.
    """
    publishing, receiving = await stage.pair()
    channels = stage.channels(3)
    await receiving.subscribe(*channels)
    batch = [Publication(b"%d" % number, (channels[number % 3],)) for number in range(MANY)]
    outcomes = await publishing.publish_batch(batch)
    check(outcomes == [None] * MANY, f"publish_batch answered {outcomes[:5]} … for {MANY} publications")
    events = await receiving.take(MANY)
    for start, channel in enumerate(channels):
        seen = [event.data for event in events if event.channel == channel]
        expected = [b"%d" % number for number in range(start, MANY, 3)]
        check(seen == expected, f"event {_first_difference(seen, expected)} of a channel is not in its place")


@rule()
async def batches_and_single_events_keep_their_order(stage: Stage) -> None:
    """A batch after a single event, and a single event after a batch, arrive in this order.

    Troubleshooting: `publish_batch` must return when the broker has accepted, not when it was sent.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    for number in range(0, 90, 3):
        await publishing.publish(b"%d" % number, channel)
        await publishing.publish_batch([Publication(b"%d" % (number + part), (channel,)) for part in (1, 2)])
    seen = [event.data for event in await receiving.take(90)]
    check(seen == [b"%d" % number for number in range(90)], f"arrived as {seen[:12]} …")


@rule()
async def one_event_for_several_channels_comes_once_in_each(stage: Stage) -> None:
    """An event for three channels arrives three times, once under each name; also in a batch.

    Troubleshooting: the event carries the channel that it was received on.
    """
    publishing, receiving = await stage.pair()
    channels = stage.channels(3)
    await receiving.subscribe(*channels)
    await publishing.publish(b"a", *channels)
    await publishing.publish_batch([Publication(b"b", tuple(channels))])
    seen = sorted((event.channel, event.data) for event in await receiving.take(6))
    check(seen == sorted((name, data) for name in channels for data in (b"a", b"b")), f"arrived as {seen}")


@rule()
async def all_instances_share_one_broker(stage: Stage) -> None:
    """Instances that publish at once all receive everything; each one's events stay in order.

    Troubleshooting: the test suite's factory must give backends on the same broker.
    """
    instances = await _crowd(stage)
    channel = stage.channel()
    for instance in instances:
        await instance.subscribe(channel)

    async def publish(index: int) -> None:
        for number in range(50):
            await instances[index].publish(b"%d:%d" % (index, number), channel)

    await asyncio.gather(*(publish(index) for index in range(len(instances))))
    for instance in instances:
        seen = [event.data for event in await instance.take(50 * len(instances))]
        for index in range(len(instances)):
            mine = [data for data in seen if data.startswith(b"%d:" % index)]
            check(mine == [b"%d:%d" % (index, number) for number in range(50)], f"instance {index}: {mine[:5]} …")


@rule(history=True)
async def all_instances_see_one_order(stage: Stage) -> None:
    """Where history is kept, all instances receive several publishers' events in one order, consecutive from 1.

    Troubleshooting: read the newest position, assign the next one and hand over in one atomic step.
    """
    instances = await _crowd(stage)
    channel = stage.channel()
    for instance in instances:
        await instance.subscribe(channel)

    lanes = [(instance, b"%d-%d" % (index, lane)) for index, instance in enumerate(instances) for lane in range(2)]
    await asyncio.gather(*(_mixed(instance, channel, lane) for instance, lane in lanes))
    stored = list((await instances[0].history(channel)).events)
    for instance in instances:
        seen = await instance.take(MIXED * len(lanes))
        check(seen == stored, "an instance received another order than history has")
    positions = [event.position or ORIGIN for event in stored]
    expected = [Position(positions[0].epoch, number + 1) for number in range(len(positions))]
    check(positions == expected, f"offsets under {len(lanes)} publishers: {[p.offset for p in positions]}")


@rule()
async def publishing_needs_no_receiver(stage: Stage) -> None:
    """An event for a channel that nobody subscribed to is accepted.

    Troubleshooting: do not look at the number of receivers that the broker returns.
    """
    publishing, receiving = await stage.pair()
    nobody, somebody = stage.channels(2)
    await receiving.subscribe(somebody)
    await publishing.publish(b"x", nobody)
    await publishing.publish(b"sentinel", somebody)
    check(not await receiving.take_until(b"sentinel"), "an event arrived that nobody subscribed to")


@rule(hooks=("stop_broker", "start_broker"))
async def a_publish_that_fails_raises_and_the_next_works(stage: Stage) -> None:
    """While the broker is away `publish` and `publish_batch` raise; when it is back, the next publish works.

    Troubleshooting: reopen the publishing connection on the next call, without touching the receiver.
    """
    await stage.company()
    publishing = await stage.instance()
    channel = stage.channel()
    await publishing.publish(b"before", channel)
    async with stage.broker_stopped():
        await stage.fails(publishing.backend.publish(b"lost", [channel]), "publish without a broker")
        batch = [Publication(b"lost", (channel,))]
        await stage.fails(publishing.backend.publish_batch(batch), "publish_batch without a broker")
    await publishing.publish(b"after", channel)
    await publishing.publish_batch([Publication(b"after", (channel,))])


async def _crowd(stage: Stage) -> list[Instance]:
    return [await stage.instance() for _ in range(3 if stage.several else 1)]


async def _mixed(instance: Instance, channel: str, lane: bytes) -> None:
    for number in range(0, MIXED, 3):
        await instance.publish(b"%s:%d" % (lane, number), channel)
        await instance.publish_batch([Publication(b"%s:%d" % (lane, number + part), (channel,)) for part in (1, 2)])


def _first_difference(seen: list[bytes], expected: list[bytes]) -> int:
    pairs = zip(seen, expected, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), len(seen))
