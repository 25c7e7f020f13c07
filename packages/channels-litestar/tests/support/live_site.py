"""A real uvicorn server on a loopback port, in the test's own event loop, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import httpx
import uvicorn
import websockets
from litestar import Litestar
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from channels_core.backend import Publication
from channels_core.events import Event, Gap
from channels_core.exceptions import BackendError
from channels_core.memory import MemoryChannelsBackend
from channels_core.subscriber import Subscriber
from channels_litestar import ChannelsPlugin

__all__ = (
    "DEADLINE",
    "HangingBackend",
    "Site",
    "SpiedSubscriber",
    "close_code",
    "eventually",
    "feed",
    "receive",
    "refusal",
    "reset",
)

DEADLINE: Final = 20.0
"""Seconds for what should be immediate; generous, because the machine may be busy."""


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the conditions are counters of others, which set no event
            await asyncio.sleep(0.005)


class Site:
    """An application with a plugin, served; use as an async context manager.

    Args:
        plugin: Its handlers are what is tested.
        app_options: Further arguments for `litestar.Litestar`.
        app: An application that has the plugin already.
        ws_ping_interval: Seconds between the server's pings.
        ws_ping_timeout: Seconds for a client to answer one.
    """

    def __init__(
        self,
        plugin: ChannelsPlugin,
        *,
        app: Litestar | None = None,
        ws_ping_interval: float = 20.0,
        ws_ping_timeout: float = 20.0,
        **app_options: Any,
    ) -> None:
        self.plugin: Final = plugin
        self.app: Final = app or Litestar(plugins=[plugin], logging_config=None, **app_options)
        self._listener: Final = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address: Final[tuple[str, int]] = self._listener.getsockname()
        self.server: Final = uvicorn.Server(
            uvicorn.Config(
                self.app,
                log_level="warning",
                log_config=None,
                timeout_graceful_shutdown=10,
                ws_ping_interval=ws_ping_interval,
                ws_ping_timeout=ws_ping_timeout,
            )
        )
        self._run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._run = asyncio.create_task(self.server.serve([self._listener]))
        await eventually(lambda: self.server.started or self._run is None or self._run.done())
        if self._run.done():
            self._run.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.plugin.drain()
        self.server.should_exit = True
        if self._run is not None:
            async with asyncio.timeout(DEADLINE):
                await self._run

    @property
    def subscribers(self) -> int:
        """How many streams are open."""
        return self.plugin.stats().subscribers

    def url(self, path: str, scheme: str = "http") -> str:
        """Return the address of a path."""
        return f"{scheme}://{self.address[0]}:{self.address[1]}{path}"

    def connect(self, path: str, **options: Any) -> websockets.connect:
        """Open a WebSocket; await it, or use it as an async context manager."""
        return websockets.connect(self.url(path, "ws"), proxy=None, **options)

    async def open(self, path: str, **options: Any) -> ClientConnection:
        """Open a WebSocket."""
        return await self.connect(path, **options)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Open an HTTP client."""
        async with httpx.AsyncClient(base_url=self.url(""), trust_env=False, timeout=DEADLINE) as client:
            yield client


async def receive(client: ClientConnection) -> str | bytes:
    """Receive one message within the deadline."""
    async with asyncio.timeout(DEADLINE):
        return await client.recv()


async def close_code(client: ClientConnection) -> int:
    """Wait for the server to close, and return the code."""
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
    assert client.close_code is not None
    return client.close_code


async def refusal(site: Site, path: str, **options: Any) -> int:
    """Return the status with which the server refuses the handshake."""
    try:
        client = await site.connect(path, **options)
    except InvalidStatus as refused:
        return refused.response.status_code
    await client.close()
    raise AssertionError(f"{path} was not refused")


def reset(client: ClientConnection) -> None:
    """End the connection with a TCP reset."""
    peer = client.transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


class SpiedSubscriber(Subscriber):
    """A subscriber that the test gets hold of."""

    made: ClassVar[list[Subscriber]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made.append(self)


def feed(subscriber: Subscriber, *items: str | Gap) -> None:
    """Put items into a stream in one turn of the loop: the handler cannot take one before the last is there."""
    for item in items:
        subscriber.put_nowait(item if isinstance(item, Gap) else Event("chat", item.encode()))


class HangingBackend(MemoryChannelsBackend):
    """Subscribes and publishes only while the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribing = asyncio.Event()
        self.publishing = asyncio.Event()
        self.subscribing.set()
        self.publishing.set()
        self.asked = asyncio.Event()

    async def subscribe(self, channels: Sequence[str]) -> None:
        if "chat" in channels:
            self.asked.set()
            await self.subscribing.wait()
        await super().subscribe(channels)

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        await self.publishing.wait()
        return await super().publish_batch(batch)
