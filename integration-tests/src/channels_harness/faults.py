"""Faults that a running pair of processes must survive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from channels_core.testing import Proxy
from channels_harness.brokers import Broker
from channels_harness.redis_cluster import RedisCluster
from channels_harness.redis_sentinel import RedisSentinel
from channels_harness.redis_server import RedisServer
from channels_harness.server import Server
from channels_harness.twoprocess import Pair
from channels_harness.twoprocess.wire import QUEUED

__all__ = ("FAULTS", "Fault", "Moments", "Target")

OUTAGE: Final = 1.0
"""Seconds that a killed server stays away: longer than the longest pause between two attempts to reconnect."""

STOP: Final = 8.0
"""Seconds that a server is frozen: longer than any deadline of a single call."""


@dataclass(frozen=True, slots=True)
class Moments:
    """When the fault began, and from when on all could be well again."""

    broken: float
    mended: float


class Target:
    """A broker, and the address at which the processes reach it.

    Args:
        broker: A server of our own.
        probe: Seconds between two probes of the processes, and seconds that one may take.
    """

    def __init__(self, broker: Broker, probe: float) -> None:
        assert broker.server is not None, "faults need a server of our own"
        self.server: Final[Server] = broker.server
        self.broker: Final = broker
        self.probe: Final = probe
        self._proxies: Final[list[Proxy]] = []

    def through_proxy(self, stack: ExitStack) -> str:
        """Put a proxy in front of the server and return the URL that leads through it."""
        parts = urlsplit(self.broker.url)
        assert parts.port is not None
        proxy = stack.enter_context(Proxy("127.0.0.1", parts.port))
        self._proxies.append(proxy)
        return self.broker.url.replace(f":{parts.port}", f":{proxy.port}")

    def swallow(self, stack: ExitStack) -> None:
        """Let nothing pass on the connections that there are; new ones work."""
        (old,) = self._proxies
        old.stall()
        old.refuse()
        self._proxies.append(stack.enter_context(Proxy(*old.target, listen_port=old.port)))


Fault = Callable[[Target, Pair, ExitStack], Awaitable[Moments]]


async def cut(target: Target, pair: Pair, stack: ExitStack) -> Moments:
    """End all connections, from the server's side."""
    now = time.monotonic()
    assert await asyncio.to_thread(target.broker.admin.cut) > 0
    return Moments(now, now)


async def cut_publisher(target: Target, pair: Pair, stack: ExitStack) -> Moments:
    """End the connections of the publishing process, from the server's side."""
    now = time.monotonic()
    assert await asyncio.to_thread(target.broker.admin.cut, pair.publisher.ports()) > 0
    return Moments(now, now)


async def restart(target: Target, pair: Pair, stack: ExitStack) -> Moments:
    """Kill the server and start it again with its data."""
    broken = time.monotonic()
    await asyncio.to_thread(target.server.kill)
    await asyncio.sleep(OUTAGE)
    await asyncio.to_thread(target.server.start)
    return Moments(broken, time.monotonic())


async def stop(target: Target, pair: Pair, stack: ExitStack) -> Moments:
    """Freeze the server; in a group, freeze one primary, which comes back after its replacement."""
    broken = time.monotonic()
    primary = await asyncio.to_thread(_primary, target.server)
    primary.pause()
    mended = None
    if primary is not target.server:
        await asyncio.to_thread(_wait_promoted, target.server, primary)
        mended = time.monotonic()
    await asyncio.sleep(max(0.0, broken + STOP - time.monotonic()))
    primary.resume()
    return Moments(broken, mended or time.monotonic())


async def half_open(target: Target, pair: Pair, stack: ExitStack) -> Moments:
    """Swallow what is sent on the connections that there are, in both directions."""
    broken = time.monotonic()
    target.swallow(stack)
    return Moments(broken, broken + 2 * target.probe)


async def fail_over(target: Target, pair: Pair, stack: ExitStack) -> Moments:
    """Kill a primary and wait for its replacement."""
    broken = time.monotonic()
    primary = await asyncio.to_thread(_primary, target.server)
    primary.kill()
    await asyncio.to_thread(_wait_promoted, target.server, primary)
    return Moments(broken, time.monotonic())


FAULTS: Final[dict[str, Fault]] = {
    "cut": cut,
    "cut-publisher": cut_publisher,
    "restart": restart,
    "stop": stop,
    "half-open": half_open,
    "failover": fail_over,
}


def _primary(server: Server) -> Server:
    """Return the process that carries a channel of the pair: of a cluster, that of its shard."""
    match server:
        case RedisSentinel():
            return server.primary
        case RedisCluster():
            return next(node for node in server.primaries() if _carries_channels(node))
        case _:
            return server


def _carries_channels(node: RedisServer) -> bool:
    with node.client() as client:
        names: Any = client.execute_command("PUBSUB SHARDCHANNELS")
    return any(QUEUED.encode() in name for name in names)


def _wait_promoted(server: Server, primary: Server) -> None:
    assert isinstance(server, RedisCluster | RedisSentinel)
    assert isinstance(primary, RedisServer)
    server.wait_promoted(primary)
