"""Doing nothing for a while is no fault."""

from __future__ import annotations

import asyncio

from channels_core.plugin import ChannelsPlugin
from channels_core.testing.registry import NotProved, check, rule
from channels_core.testing.stage import Stage


@rule(instances=("several",))
async def idleness_is_no_fault(stage: Stage) -> None:
    """After `idle_seconds` without any traffic of the application, nothing was raised or reconnected, and all works.

    Troubleshooting: look for a driver's read timeout, and for a connection that is closed by the server.
    """
    if stage.subject.idle_seconds is None:
        raise NotProved("idle_seconds is not set")
    bare = await stage.instance()
    channel = stage.channel()
    await bare.subscribe(channel)
    plugin = ChannelsPlugin(stage.subject.make_backend(), arbitrary_channels_allowed=True)
    async with plugin, plugin.start_subscription([channel]) as subscriber:
        await asyncio.sleep(stage.subject.idle_seconds)
        check(bare.failure is None, f"the idle stream raised {bare.failure!r}")
        check(plugin.health().ok, f"the idle plugin is not healthy: {plugin.health().detail}")
        check(plugin.stats().reconnects == 0, f"the idle plugin reconnected {plugin.stats().reconnects} times")
        await bare.publish(b"awake", channel)
        await bare.take_until(b"awake")
        await asyncio.wait_for(anext(aiter(subscriber)), stage.subject.call_timeout)
        check(plugin.stats().gaps == 0, "there was a gap while nothing happened")
