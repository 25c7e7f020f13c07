"""WebSocket servers: each system's own handler where it has one, all of them in uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from broadcaster import Broadcast
from litestar import Litestar
from litestar.channels import ChannelsBackend
from litestar.channels import ChannelsPlugin as LitestarPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from redis.asyncio import Redis

from channels_bench.systems.base import Bursts, Stream, System
from channels_litestar import ChannelsPlugin

Receive = Callable[[], Any]
Send = Callable[[Any], Any]

_CHANNEL = "bench"


class Web(System):
    """An application in a server, both in this process; its clients are in another."""

    @abstractmethod
    def make_app(self) -> Any:
        """Return the application."""

    async def start(self) -> None:
        # What `uvicorn app:app` does, without the log; a bound method is not recognised as an application.
        config = uvicorn.Config(
            self.make_app(), host="127.0.0.1", port=0, log_level="critical", access_log=False, interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.address = f"ws://127.0.0.1:{port}/ws/{_CHANNEL}"

    async def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True  # whoever does not notice that its client left is not waited for
        await self._serving

    async def subscribe(self, channel: str) -> Stream:
        raise NotImplementedError("the subscribers are WebSocket clients")

    async def publish(self, data: bytes, channel: str) -> None:
        await self.pour([data], channel)


class Channels(Web, Bursts):
    def make_app(self) -> Any:
        self.plugin = ChannelsPlugin(
            self.url, channels=[_CHANNEL], create_ws_route_handlers=True, ws_handler_base_path="/ws"
        )
        return Litestar([], plugins=[self.plugin])


class LitestarChannels(Web, Bursts):
    def make_app(self) -> Any:
        self.plugin = LitestarPlugin(
            self.make_backend(), channels=[_CHANNEL], create_ws_route_handlers=True, ws_handler_base_path="/ws"
        )
        return Litestar([], plugins=[self.plugin])

    def make_backend(self) -> ChannelsBackend:
        return MemoryChannelsBackend()


class LitestarRedis(LitestarChannels):
    def make_backend(self) -> ChannelsBackend:
        return RedisChannelsPubSubBackend(redis=Redis.from_url(self.url))


class Asgi(Web):
    """A bare ASGI application."""

    def make_app(self) -> Any:
        return self._serve

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "websocket.accept"})
        await self.follow(receive, send)

    @abstractmethod
    async def follow(self, receive: Receive, send: Send) -> None:
        """Serve one socket that was accepted."""


class Broadcaster(Asgi):
    """A subscription per socket, as its documentation shows, without a framework's share."""

    async def start(self) -> None:
        self._broadcast = Broadcast(self.url)
        await self._broadcast.connect()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._broadcast.disconnect()

    async def follow(self, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send))
        await receive()
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing

    async def _write(self, send: Send) -> None:
        async with self._broadcast.subscribe(_CHANNEL) as subscriber:
            events: Any = subscriber  # typed as if there might be none
            async for event in events:
                await send({"type": "websocket.send", "text": event.message})

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        for data in events:
            await self._broadcast.publish(channel, data.decode())


class Bare(Asgi):
    """No system at all: a loop over the sockets, each of which gets the whole burst, as from a queue of its own."""

    async def start(self) -> None:
        self._sends: list[Send] = []
        await super().start()

    async def follow(self, receive: Receive, send: Send) -> None:
        self._sends.append(send)
        await receive()

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        messages = [{"type": "websocket.send", "text": data.decode()} for data in events]
        for send in self._sends:
            for message in messages:
                await send(message)
