"""The subscribing process of a pair: tells the parent every item of its stream, until each channel has ended."""

from __future__ import annotations

import asyncio
import logging
import time

from channels_core import Event, Gap
from channels_harness.twoprocess.wire import CHANNELS, END, Item, Ready, Setup, say, setup_from_argv


async def run(setup: Setup) -> None:
    """Subscribe and report."""
    open_channels = set(CHANNELS)
    async with setup.plugin() as channels, channels.start_subscription(CHANNELS) as subscriber:
        say(Ready())
        async for item in subscriber:
            if isinstance(item, Event) and item.data == END:
                open_channels.discard(item.channel)
            say(_report(item))
            if not open_channels:
                break


def _report(item: Event | Gap) -> Item:
    now = time.monotonic()
    return Item(now, gap=item) if isinstance(item, Gap) else Item(now, event=item)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(setup_from_argv()))
