"""One server, and the few connections that we keep to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from channels_core.exceptions import BackendConnectionError, ChannelsException
from channels_redis._errors import explain_driver
from channels_redis._settings import CONNECT_TIMEOUT, ServerSettings
from channels_redis._wire import Wire, pack

__all__ = ("Line", "Node", "learn_facts", "open_wire")

WireT = TypeVar("WireT", bound=Wire)


async def open_wire(
    settings: ServerSettings, make: Callable[[str, Any], WireT], timeout: float = CONNECT_TIMEOUT
) -> WireT:
    """Connect to a server.

    Raises:
        BackendConnectionError: It is not there, or not in time.
        BackendError: It refuses.
    """
    address = settings.address
    connection: Any = None
    try:
        connection = settings.make_connection()
        async with asyncio.timeout(timeout):
            await connection.connect()
        return make(address, connection)
    except BaseException as exc:
        if connection is not None:
            await connection.disconnect(nowait=True)
        if isinstance(exc, TimeoutError):
            raise BackendConnectionError(f"redis at {address} did not answer in {timeout} s") from exc
        if isinstance(exc, Exception) and not isinstance(exc, ChannelsException):
            raise explain_driver(exc, address) from exc
        raise


async def learn_facts(wire: Wire, *sections: str) -> None:
    """Ask the server about itself, into ``wire.facts``.

    Raises:
        BackendError: The user may not run ``INFO``.
    """
    asked = b"".join(pack(b"INFO", section.encode()) for section in sections)
    for reply in await wire.call(asked, len(sections)):
        if isinstance(reply, Exception):
            raise reply
        lines = bytes(reply).decode("utf-8", "replace").splitlines()
        fields = (line.partition(":") for line in lines)
        wire.facts.update({name: value for name, colon, value in fields if colon})


class Node:
    """One server: opens wires to it and keeps one for publishing and one for reading.

    Args:
        locate: Says where the server is, asked before every connect.
        check: Refuses a server that is not the right one, or not any more.
        greet: What the backend wants said on a command wire before its first call.
        timeout: Seconds for connecting, and again for what is checked and said then.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[ServerSettings]],
        *,
        check: Callable[[Wire], Awaitable[None]] | None = None,
        greet: Callable[[Wire], Awaitable[None]] | None = None,
        timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._locate: Final = locate
        self._check: Final = check
        self._greet: Final = greet
        self._timeout: Final = timeout
        self.publishing: Final = Line(self._open_commands)
        self.reading: Final = Line(self._open_commands)

    async def open(self, make: Callable[[str, Any], WireT]) -> WireT:
        """Connect, to the server that is the right one now."""
        wire = await open_wire(await self._locate(), make, self._timeout)
        await self._or_abort(wire, self._check)
        return wire

    def close(self) -> None:
        """Drop the connections; calls in flight end with `BackendConnectionError`."""
        self.publishing.close()
        self.reading.close()

    async def wait_closed(self) -> None:
        """Return when the sockets are closed."""
        await self.publishing.wait_closed()
        await self.reading.wait_closed()

    async def _open_commands(self) -> Wire:
        wire = await self.open(Wire)
        await self._or_abort(wire, self._greet)
        return wire

    async def _or_abort(self, wire: Wire, step: Callable[[Wire], Awaitable[None]] | None) -> None:
        if step is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await step(wire)
        except TimeoutError as exc:
            wire.abort("no answer")
            raise BackendConnectionError(f"redis at {wire.address} did not answer in {self._timeout} s") from exc
        except BaseException:
            wire.abort("not usable")
            raise


class Line:
    """A wire that the first call opens, and the first call after it was lost opens again."""

    def __init__(self, opener: Callable[[], Awaitable[Wire]]) -> None:
        self._opener: Final = opener
        self._wires: list[Wire] = []
        self._opening: asyncio.Task[Wire] | None = None
        self._closed = False

    async def wire(self) -> Wire:
        """Return the open wire.

        Raises:
            BackendConnectionError: The server is not there, or the line is closed.
            BackendError: The server refuses.
        """
        if self._wires and self._wires[-1].usable:
            return self._wires[-1]
        if self._closed:
            raise BackendConnectionError("the backend is stopped")
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="channels-redis-open")
            self._opening.add_done_callback(_retrieve)
        opening = self._opening
        # wait() leaves the task alone when a caller is cancelled: the others still want the connection.
        await asyncio.wait((opening,))
        if opening.cancelled():
            raise BackendConnectionError("the backend was stopped while it connected")
        return opening.result()

    def close(self) -> None:
        """Drop the connection; calls in flight end with `BackendConnectionError`."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        for wire in self._wires:
            wire.abort("the backend was stopped")

    async def wait_closed(self) -> None:
        """Return when the sockets are closed."""
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        for wire in self._wires:
            await wire.wait_closed()

    async def _open(self) -> Wire:
        wire = await self._opener()
        # Retired wires stay known until their last call ended, so that closing reaches them.
        self._wires = [*(each for each in self._wires if each.error is None), wire]
        return wire


def _retrieve(opening: asyncio.Task[Wire]) -> None:
    # Every caller may have been cancelled; the error is no news to the event loop then.
    if not opening.cancelled():
        opening.exception()
