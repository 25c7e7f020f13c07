"""A publication that is sent again is stored once."""

from __future__ import annotations

import asyncio
import secrets

from channels_core.backend import Publication
from channels_core.testing.registry import check, rule
from channels_core.testing.stage import Instance, Stage, turns


@rule(history=True)
async def a_retry_is_stored_once(stage: Stage) -> None:
    """A publication that comes again with its key is accepted and neither stored nor delivered again.

    Troubleshooting: keep the highest number per channel and lane; store nothing for one that is not higher.
    """
    publishing, receiving = await stage.pair()
    channel, lane = stage.channel(), _lane()
    await receiving.subscribe(channel)
    for number in (1, 1, 2, 2, 2, 3):
        await publishing.publish(b"%d" % number, channel, key=(lane, number))
    await publishing.publish(b"end", channel)
    live = [event.data for event in await receiving.take_until(b"end")]
    check(live == [b"1", b"2", b"3"], f"received {live}")
    await _expect(receiving, channel, b"1", b"2", b"3", b"end")


@rule(history=True)
async def a_retry_through_another_connection_is_stored_once(stage: Stage) -> None:
    """The numbers of a lane are the broker's: a retry through a restarted instance is recognised.

    Troubleshooting: keep lanes in the broker, not in the backend object or its connection.
    """
    publishing, receiving = await stage.pair()
    channel, lane = stage.channel(), _lane()
    await publishing.publish(b"1", channel, key=(lane, 1))
    await publishing.stop()
    await publishing.start()
    await publishing.publish(b"1", channel, key=(lane, 1))
    await receiving.publish(b"1", channel, key=(lane, 1))
    await publishing.publish(b"2", channel, key=(lane, 2))
    await _expect(receiving, channel, b"1", b"2")


@rule(history=True)
async def an_abandoned_attempt_behind_its_retry_is_stored_once(stage: Stage) -> None:
    """A first attempt that the broker runs late, behind its retry and newer ones, stores nothing.

    Troubleshooting: compare with the *highest* number, not with the last key; on every call, not on retries only.
    """
    publishing, receiving = await stage.pair()
    channel, lane = stage.channel(), _lane()
    await receiving.subscribe(channel)
    for number in (1, 2, 3):
        await publishing.publish(b"%d" % number, channel, key=(lane, number))
    await receiving.publish(b"2", channel, key=(lane, 2))
    await receiving.publish_batch([Publication(b"%d" % number, (channel,), (lane, number)) for number in (1, 3)])
    await publishing.publish(b"4", channel, key=(lane, 4))
    live = [event.data for event in await receiving.take(4)]
    check(live == [b"1", b"2", b"3", b"4"], f"received {live}")
    await _expect(receiving, channel, b"1", b"2", b"3", b"4")


@rule(history=True)
async def a_retried_batch_stores_what_is_missing(stage: Stage) -> None:
    """A batch that repeats accepted publications in front of new ones stores the new ones only.

    Troubleshooting: check each publication's key, not the batch's.
    """
    publishing, receiving = await stage.pair()
    channel, lane = stage.channel(), _lane()
    batch = [Publication(b"%d" % number, (channel,), (lane, number)) for number in range(1, 7)]
    for part in (batch[:2], batch[:4], batch[:4], batch):
        outcomes = await publishing.publish_batch(part)
        check(outcomes == [None] * len(part), f"a retried batch is refused: {outcomes}")
    await _expect(receiving, channel, *(publication.data for publication in batch))


@rule(history=True)
async def a_retry_reaches_the_channels_that_lack_it(stage: Stage) -> None:
    """After an attempt that only some channels accepted, its retry is stored in the others, once in each.

    Troubleshooting: compare the number in every channel of a publication, not in its first one.
    """
    publishing, receiving = await stage.pair()
    first, second, third = stage.channels(3)
    lane = _lane()
    await publishing.publish(b"1", first, key=(lane, 1))
    await publishing.publish(b"1", first, second, key=(lane, 1))
    await publishing.publish_batch([Publication(b"2", (second,), (lane, 2))])
    await publishing.publish_batch([Publication(b"2", (second, first, third), (lane, 2))])
    await _expect(receiving, first, b"1", b"2")
    await _expect(receiving, second, b"1", b"2")
    await _expect(receiving, third, b"2")


@rule(history=True)
async def lanes_and_channels_are_counted_apart(stage: Stage) -> None:
    """The same number in another lane, or in another channel, is another publication; without a key all are.

    Troubleshooting: key the stored number by channel and lane.
    """
    publishing, receiving = await stage.pair()
    first, second = stage.channels(2)
    lane, other = _lane(), _lane()
    await publishing.publish(b"1", first, key=(lane, 5))
    await publishing.publish(b"2", first, key=(other, 5))
    await publishing.publish(b"3", second, key=(lane, 5))
    await publishing.publish(b"4", first, second, key=(lane, 6))
    await publishing.publish(b"5", first)
    await publishing.publish(b"5", first)
    await _expect(receiving, first, b"1", b"2", b"4", b"5", b"5")
    await _expect(receiving, second, b"3", b"4")


@rule(history=True)
async def a_cancelled_publish_and_its_retry_store_once(stage: Stage) -> None:
    """A publish that was cancelled anywhere in between, and sent again, is stored once and in its order.

    Troubleshooting: a cancelled call drops its connection; its retry must not meet the old one's answer.
    """
    publishing, receiving = await stage.pair()
    channel, lane = stage.channel(), _lane()
    for number in range(1, 16):
        attempt = asyncio.create_task(publishing.publish(b"%d" % number, channel, key=(lane, number)))
        await turns(number - 1)
        attempt.cancel()
        await asyncio.wait([attempt])
        await publishing.publish(b"%d" % number, channel, key=(lane, number))
    await _expect(receiving, channel, *(b"%d" % number for number in range(1, 16)))


@rule(history=True)
async def a_cancelled_batch_and_its_retry_store_once(stage: Stage) -> None:
    """A batch that was cancelled anywhere in between, and sent again with more, is stored once and in its order.

    Troubleshooting: see `a-cancelled-publish-and-its-retry-store-once`; keys count in a batch as well.
    """
    publishing, receiving = await stage.pair()
    channel, lane = stage.channel(), _lane()
    batch = [Publication(b"%d" % number, (channel,), (lane, number)) for number in range(1, 61)]
    for steps, start in enumerate(range(0, 60, 4)):
        attempt = asyncio.create_task(publishing.publish_batch(batch[start : start + 3]))
        await turns(steps)
        attempt.cancel()
        await asyncio.wait([attempt])
        outcomes = await publishing.publish_batch(batch[start : start + 4])
        check(outcomes == [None] * 4, f"the retry of a cancelled batch is answered by {outcomes}")
    await _expect(receiving, channel, *(publication.data for publication in batch))


async def _expect(instance: Instance, channel: str, *expected: bytes) -> None:
    stored = [event.data for event in (await instance.history(channel)).events]
    check(stored == list(expected), f"history holds {stored}, not {list(expected)}")


def _lane() -> str:
    return f"kit-{secrets.token_hex(8)}"
