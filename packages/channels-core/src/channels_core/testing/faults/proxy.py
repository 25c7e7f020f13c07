"""A TCP proxy on loopback that can cut, stall, delay and throttle what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

__all__ = ("Direction", "Proxy")

Direction = Literal["both", "up", "down"]
"""``up``: from the client to the server. ``down``: from the server to the client."""

_T = TypeVar("_T")

_CHUNK_BYTES: Final = 64 * 1024

_RESET: Final = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with no time to linger: closing sends RST, as a crashed peer's kernel does."""

_CONTROL_TIMEOUT: Final = 10.0
"""Seconds that a command to the proxy's thread may take; it only ever waits for its own event loop."""

_TURNS: Final = 5
"""asyncio needs up to three turns from accepting a client to its handler, and two from abort to close."""


class Proxy:
    """Forward TCP connections to a server, and break them on request.

    It runs an event loop in a thread of its own, so it serves several event loops (and processes) one after the
    other and goes on when the tested loop is busy. All methods are synchronous, quick, and callable from anywhere.

    Attributes:
        host: Where it listens; always loopback.
        port: Where it listens; chosen by the system unless given.
        delay: Seconds that every chunk waits before it is forwarded, in each direction.
        bytes_per_second: How much may pass per connection and direction; ``None`` for no limit.

    Example::

        with Proxy("127.0.0.1", 6379) as proxy:
            url = f"redis://{proxy.host}:{proxy.port}/0"
            proxy.stall("down")
    """

    host: Final = "127.0.0.1"

    def __init__(self, host: str, port: int, *, listen_port: int = 0) -> None:
        self.target: Final = (host, port)
        self.port = listen_port
        self.delay = 0.0
        self.bytes_per_second: float | None = None
        self._gates: dict[str, asyncio.Event] = {}
        self._links: set[_Link] = set()
        self._accepted = 0
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    @property
    def accepted(self) -> int:
        """How many clients have connected since the start."""
        return self._accepted

    def start(self) -> None:
        """Listen; returns when clients can connect."""
        self._gates = {name: asyncio.Event() for name in _names("both")}
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name="channels-proxy", daemon=True)
        self._thread.start()
        self._do(self._open)
        self._do(self._listen)

    def stop(self) -> None:
        """Close everything and end the thread. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), loop).result(_CONTROL_TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_CONTROL_TIMEOUT)

    def cut(self, *, reset: bool = True) -> int:
        """End all connections, with RST or (``reset=False``) with FIN; returns how many. New ones are accepted."""
        return self._call(lambda: sum(link.cut(reset=reset) for link in tuple(self._links)))

    def stall(self, direction: Direction = "both") -> None:
        """Let nothing pass any more, not even the end of a connection: half-open. New clients connect and wait."""
        self._do(lambda: self._shut(direction))

    def resume(self) -> None:
        """End a stall; what waited is forwarded."""
        self._do(self._open)

    def refuse(self) -> None:
        """Stop listening: connections go on, new clients are refused."""
        self._do(self._stop_listening)

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._do(self._listen)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def _do(self, action: Callable[[], object]) -> None:
        loop = self._running()
        asyncio.run_coroutine_threadsafe(_awaited(action), loop).result(_CONTROL_TIMEOUT)

    def _call(self, action: Callable[[], _T]) -> _T:
        loop = self._running()
        return asyncio.run_coroutine_threadsafe(_called(action), loop).result(_CONTROL_TIMEOUT)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the proxy is not started; use it in a with statement, or call start()")
        return self._loop

    async def _listen(self) -> None:
        if self._server is not None:
            return
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _open(self) -> None:
        for gate in self._gates.values():
            gate.set()

    def _shut(self, direction: Direction) -> None:
        for name in _names(direction):
            self._gates[name].clear()

    async def _stop_listening(self) -> None:
        # asyncio (3.11) leaks the socket of a client that is being accepted while its server closes.
        await _turns()
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _close(self) -> None:
        await self._stop_listening()
        while self._links:
            for link in tuple(self._links):
                link.cut(reset=True)
            await _turns()
        await _turns()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def pass_gate(self, direction: str) -> None:
        """Wait while this direction is stalled."""
        await self._gates[direction].wait()


class _Link:
    """One client's connection and its counterpart at the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writers = [writer]
        self.task = asyncio.current_task()

    async def run(self) -> None:
        """Forward until both sides have ended, or until `cut`."""
        try:
            await self._proxy.pass_gate("up")
            reader, writer = await asyncio.open_connection(*self._proxy.target)
            self._writers.append(writer)
            await self._forward(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            self._abort()

    def cut(self, *, reset: bool) -> bool:
        """End both connections at once."""
        if reset:
            for writer in self._writers:
                _linger(writer)
        self._abort()
        return self.task.cancel() if self.task is not None else False

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pumps = [
            asyncio.ensure_future(self._pump("up", self._reader, writer)),
            asyncio.ensure_future(self._pump("down", reader, self._writers[0])),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        while True:
            await proxy.pass_gate(direction)
            data = await reader.read(_CHUNK_BYTES)
            await proxy.pass_gate(direction)
            if not data:
                writer.write_eof()
                return
            await asyncio.sleep(proxy.delay + len(data) / (proxy.bytes_per_second or float("inf")))
            await proxy.pass_gate(direction)
            writer.write(data)
            await writer.drain()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


def _names(direction: Direction) -> tuple[str, ...]:
    return ("up", "down") if direction == "both" else (direction,)


def _linger(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _turns() -> None:
    """Let the event loop do what it has planned: a client just accepted, a transport just aborted."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _awaited(action: Callable[[], object]) -> None:
    result = action()
    if asyncio.iscoroutine(result):
        await result


async def _called(action: Callable[[], _T]) -> _T:
    return action()
