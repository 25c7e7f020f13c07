"""A real uvicorn server on a loopback port, in the test's own event loop, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final, Self

import httpx
import uvicorn
import websockets
from litestar import Litestar
from websockets.asyncio.client import ClientConnection

from channels_litestar import ChannelsPlugin

__all__ = ("DEADLINE", "Site", "eventually", "free_listener", "receive")

DEADLINE: Final = 20.0
"""Seconds for what should be immediate; generous, because the machine may be busy."""


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the conditions are counters of others, which set no event
            await asyncio.sleep(0.005)


def free_listener() -> socket.socket:
    """Return a listening socket on a free loopback port."""
    return socket.create_server(("127.0.0.1", 0), backlog=512)


class Site:
    """An application with a plugin, served; use as an async context manager.

    Args:
        plugin: Its handlers are what is tested.
        app_options: Further arguments for `litestar.Litestar`.
        listener: Where to listen; a free port unless given.
    """

    def __init__(self, plugin: ChannelsPlugin, *, listener: socket.socket | None = None, **app_options: Any) -> None:
        self.plugin: Final = plugin
        self.app: Final = Litestar(plugins=[plugin], logging_config=None, **app_options)
        self._listener: Final = listener or free_listener()
        self.address: Final[tuple[str, int]] = self._listener.getsockname()
        self.server: Final = uvicorn.Server(
            uvicorn.Config(self.app, log_level="warning", log_config=None, timeout_graceful_shutdown=10)
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
