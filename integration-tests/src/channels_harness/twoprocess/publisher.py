"""The publishing process of a pair: numbered events at a steady rate, through both verbs at once."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator

from channels_core import ChannelsPlugin
from channels_core.exceptions import PublishError
from channels_harness.twoprocess.wire import END, QUEUED, WAITED, Published, Ready, Setup, say, setup_from_argv

_PAUSE_BETWEEN_ENDS = 0.1


async def run(setup: Setup) -> None:
    """Start, wait for the word, publish, and announce the end until the parent has heard it."""
    async with setup.plugin() as channels:
        say(Ready())
        await heard()
        accepted, _ = await asyncio.gather(publish_waited(channels, setup), publish_queued(channels, setup))
        stop = asyncio.create_task(heard())
        while not stop.done():
            channels.publish(END, QUEUED)
            await channels.wait_published(END, WAITED)
            await asyncio.wait([stop], timeout=_PAUSE_BETWEEN_ENDS)
        failed = channels.stats().failed
    say(Published(accepted, failed))


async def heard() -> None:
    """Return when the parent has sent a line."""
    await asyncio.to_thread(sys.stdin.readline)


async def publish_waited(channels: ChannelsPlugin, setup: Setup) -> list[int]:
    """Publish one after the other and return the numbers that the broker has accepted."""
    accepted = []
    async for number in steady(setup):
        try:
            await channels.wait_published(payload(number), WAITED)
            accepted.append(number)
        except PublishError:
            logging.exception("event %d was not accepted", number)
    return accepted


async def publish_queued(channels: ChannelsPlugin, setup: Setup) -> None:
    """Publish without waiting."""
    async for number in steady(setup):
        channels.publish(payload(number), QUEUED)


async def steady(setup: Setup) -> AsyncIterator[int]:
    """Give each number when it is due, or at once when it is late."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(setup.count):
        await asyncio.sleep(max(0.0, start + number / setup.rate - loop.time()))
        yield number


def payload(number: int) -> bytes:
    """Return the event's data."""
    return b"%d" % number


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(setup_from_argv()))
