"""One connection to one server: redis-py opens it, we write and read it.

redis-py does what it is good at (addresses, TLS, credentials, protocol version, database). Once it is connected, we
take the transport over: commands are packed many at a time, replies are read by hiredis as they come in, and no
timeout, retry or health check of the driver is left to decide anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import hiredis

from channels_core.exceptions import BackendConnectionError
from channels_redis._errors import explain_reply

__all__ = ("Reply", "Wire", "pack", "pack_words")

Reply = Any
"""What hiredis made of a reply: bytes, int, list, None, or an exception made by `explain_reply`; narrow it at once."""

NOTHING: Final = object()
"""What hiredis says when it has no whole reply yet; ``None`` and ``False`` are replies."""

PUSH: Final[type[Any] | None] = getattr(hiredis, "PushNotification", None)
"""The type of an out-of-band reply of protocol 3; hiredis before 3.2 gives a plain list."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that closing waits for the event loop to close the socket, which it does in its next turn."""


class _Call:
    """Replies that somebody waits for."""

    __slots__ = ("done", "error_ends", "missing", "replies")

    def __init__(self, count: int, error_ends: bool) -> None:
        self.missing = count
        self.error_ends: Final = error_ends
        self.replies: Final[list[Reply]] = []
        self.done: Final[asyncio.Future[list[Reply]]] = asyncio.get_running_loop().create_future()


class Wire(asyncio.Protocol):
    """Send commands, get their replies in order; several callers at once share it.

    Attributes:
        address: Where it leads, for messages.
        facts: What the server said of itself, see `learn_facts`.
        note: What a backend wants to keep with this connection.
        learned: When `facts` were asked for, by the event loop's clock.
        usable: Whether new calls may use it.
    """

    def __init__(self, address: str, connection: Any, on_lost: Callable[[Wire], None] | None = None) -> None:
        self.address: Final = address
        self.facts: Final[dict[str, str]] = {}
        self.note = b""
        self.learned = 0.0
        self.usable = True
        self.error: BackendConnectionError | None = None
        self._connection: Final = connection
        self._on_lost: Final = on_lost
        self._calls: Final[deque[_Call]] = deque()
        self._closed: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._reader: Final = hiredis.Reader(
            protocolError=BackendConnectionError, replyError=explain_reply, notEnoughData=NOTHING
        )
        self._transport: Final[asyncio.Transport] = connection._writer.transport
        self._take_over()

    async def call(self, commands: bytes, count: int, *, error_ends: bool = False) -> list[Reply]:
        """Send packed commands and return their replies, errors among them as exceptions.

        A cancelled call leaves the wire to those that use it already; nobody else will.

        Args:
            commands: See `pack`.
            count: How many replies they get.
            error_ends: One error stands for all that is still missing (``SUBSCRIBE`` with many names).

        Raises:
            BackendConnectionError: The connection is gone; unknown what the server did.
        """
        if self.error is not None:
            raise BackendConnectionError(*self.error.args)
        call = _Call(count, error_ends)
        self._calls.append(call)
        self._transport.write(commands)
        try:
            return await call.done
        except asyncio.CancelledError:
            self.retire()
            raise

    def retire(self) -> None:
        """Take no new calls, and close after the last of those in flight."""
        self.usable = False
        if all(call.done.done() for call in self._calls):
            self.abort("retired")

    def abort(self, reason: str) -> None:
        """Drop the connection; calls in flight end with `BackendConnectionError`."""
        self._fail(f"connection to redis at {self.address} dropped: {reason}")
        if not self._transport.is_closing():
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the socket is closed."""
        await asyncio.wait((self._closed,), timeout=CLOSE_TIMEOUT)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            self._read_replies()
        except BackendConnectionError as exc:
            self.abort(f"damaged reply, {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection to redis at {self.address} lost: {exc or 'closed by the server'}")
        if not self._closed.done():
            self._closed.set_result(None)
        self._connection._reader = self._connection._writer = None

    def _take_over(self) -> None:
        reader = self._connection._reader
        self._transport.set_protocol(self)
        # What happened before the exchange was told to the old protocol only.
        if reader.at_eof() or self._transport.is_closing():
            self._transport.abort()
            self._connection._reader = self._connection._writer = None
            raise BackendConnectionError(f"redis at {self.address} closed the connection at once")

    def _read_replies(self) -> None:
        gets, calls = self._reader.gets, self._calls
        while (reply := gets()) is not NOTHING:
            if PUSH is not None and type(reply) is PUSH:
                continue
            # Most replies belong to a large batch and are not its last.
            if calls and calls[0].missing > 1 and not calls[0].error_ends:
                calls[0].missing -= 1
                calls[0].replies.append(reply)
            else:
                self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        if not self._calls:
            self.abort(f"unasked reply, {reply!r:.200}")
            return
        call = self._calls[0]
        call.replies.append(reply)
        call.missing -= 1
        if call.missing == 0 or (call.error_ends and isinstance(reply, Exception)):
            self._calls.popleft()
            if not call.done.done():
                call.done.set_result(call.replies)
            if not self.usable:
                self.retire()

    def _fail(self, message: str) -> None:
        self.usable = False
        if self.error is not None:
            return
        self.error = BackendConnectionError(message)
        while self._calls:
            call = self._calls.popleft()
            if not call.done.done():
                call.done.set_exception(BackendConnectionError(message))
        if self._on_lost is not None:
            self._on_lost(self)


def pack(*words: bytes) -> bytes:
    """Pack one command as the server reads it."""
    return b"*%d\r\n%b" % (len(words), pack_words(*words))


def pack_words(*words: bytes) -> bytes:
    """Pack some of the words of a command."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
