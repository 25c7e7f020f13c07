"""Doing nothing for a while is no fault."""

from __future__ import annotations

import asyncio

from channels_core.plugin import ChannelsPlugin
from channels_core.testing.registry import NotProved, check, rule
from channels_core.testing.stage import Stage


@rule()
async def idleness_is_no_fault(stage: Stage) -> None:
    """After `idle_seconds` without any traffic of the application, nothing was raised or reconnected, and all works.

    Troubleshooting: look for a driver's read timeout, and for a connection that is closed by the server.
    """
    if stage.subject.idle_seconds is None:
        raise NotProved("idle_seconds is not set")
    channel = stage.channel()
    bare = await stage.instance() if stage.several else None
    if bare is not None:
        await bare.subscribe(channel)
    plugin = ChannelsPlugin(stage.subject.make_backend(), arbitrary_channels_allowed=True)
    async with plugin, plugin.start_subscription([channel]) as subscriber:
        await asyncio.sleep(stage.subject.idle_seconds)
        check(bare is None or bare.failure is None, f"the idle stream raised {bare and bare.failure!r}")
        check(plugin.health().ok, f"the idle plugin is not healthy: {plugin.health().detail}")
        check(plugin.stats().reconnects == 0, f"the idle plugin reconnected {plugin.stats().reconnects} times")
        await plugin.wait_published(b"awake", channel)
        if bare is not None:
            await bare.publish(b"awake, too", channel)
            await bare.take_until(b"awake, too")
        await asyncio.wait_for(anext(aiter(subscriber)), stage.subject.call_timeout)
        check(plugin.stats().gaps == 0, "there was a gap while nothing happened")
