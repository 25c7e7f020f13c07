"""Many WebSocket clients in one process, as cheap as they can be: they do the handshake and count frames."""

from __future__ import annotations

import asyncio
from typing import Any, Final

__all__ = ("Crowd", "count_frames")

WAVE: Final = 50
"""Handshakes at a time: a server's queue of new connections is not what is measured."""

_DATA_FRAMES: Final = (0x81, 0x82)
"""First bytes of an unfragmented text or binary frame; everything else is control."""

_HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def count_frames(data: bytes) -> tuple[int, bytes]:
    """Return how many data frames there are, and what is left of an incomplete one.

    Source: RFC 6455, section 5.2; a server's frames are not masked.
    """
    count, at, end = 0, 0, len(data)
    while at + 2 <= end:
        size, head = data[at + 1], 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head])
        if at + head + size > end:
            break
        count += data[at] in _DATA_FRAMES
        at += head + size
    return count, data[at:]


class Crowd:
    """Clients of one address.

    Args:
        host: Of the server.
        port: Of the server.
        path: Of the handler.
    """

    def __init__(self, host: str, port: int, path: str) -> None:
        self._host: Final = host
        self._port: Final = port
        self.handshake: Final = _HANDSHAKE.format(host=host, port=port, path=path).encode()
        self._clients: Final[list[_Client]] = []
        self._received = 0
        self._wanted = 0
        self._done: asyncio.Future[None] | None = None

    async def connect(self, count: int) -> None:
        """Return when so many more are connected.

        Raises:
            ConnectionError: The server refused one.
        """
        for start in range(0, count, WAVE):
            await asyncio.gather(*[self._connect() for _ in range(min(WAVE, count - start))])

    async def receive(self, count: int) -> None:
        """Return when all clients together have received so many frames since they connected.

        Raises:
            ConnectionError: The server closed a connection before.
        """
        self._done = asyncio.get_running_loop().create_future()
        self._wanted = count
        self.add(0)
        await self._done

    def close(self) -> None:
        """Leave, all at once."""
        self._done = None
        for client in self._clients:
            client.transport.abort()

    def add(self, frames: int) -> None:
        """Note what a client received."""
        self._received += frames
        if self._done is not None and self._received >= self._wanted and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: ConnectionError) -> None:
        """Note that a connection is gone."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Client(self), self._host, self._port)
        self._clients.append(client)
        await client.opened


class _Client(asyncio.Protocol):
    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._rest = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._crowd.handshake)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if not self.opened.done():
            data = self._open(data)
            if not self.opened.done():
                return
        count, self._rest = count_frames(data)
        self._crowd.add(count)

    def _open(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            self._rest = data
            return b""
        self._rest = b""
        if b" 101 " in head.partition(b"\r\n")[0]:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ConnectionError(head.partition(b"\r\n")[0].decode()))
        return rest

    def connection_lost(self, exc: Exception | None) -> None:
        error = ConnectionError("the server closed a connection")
        if not self.opened.done():
            self.opened.set_exception(error)
        self._crowd.fail(error)
