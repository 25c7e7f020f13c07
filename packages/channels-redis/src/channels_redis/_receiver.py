"""Receiving: frames from one or many connections into one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from channels_core.events import Event
from channels_core.exceptions import BackendConnectionError
from channels_redis._wire import NOTHING, Wire

__all__ = ("Dialect", "Inbox", "ReceivingWire")

MAX_WAITING: Final = 10_000
"""Events received and not yet taken before reading pauses: the server's output buffer is bounded, and so are we."""


class Dialect:
    """The words of one kind of Pub/Sub."""

    __slots__ = ("message", "publish", "subscribe", "unsubscribe", "unsubscribed")

    def __init__(self, letter: bytes) -> None:
        self.publish: Final = letter.upper() + b"PUBLISH"
        self.subscribe: Final = letter.upper() + b"SUBSCRIBE"
        self.unsubscribe: Final = letter.upper() + b"UNSUBSCRIBE"
        self.message: Final = letter + b"message"
        self.unsubscribed: Final = letter + b"unsubscribe"


PLAIN: Final = Dialect(b"")
SHARDED: Final = Dialect(b"s")


class Inbox:
    """Events received and not yet taken; everything received before a loss is still given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._paused: Final[set[ReceivingWire]] = set()
        self._error: BackendConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self, wire: ReceivingWire) -> None:
        """Tell the consumer that `events` grew."""
        if len(self.events) > MAX_WAITING:
            self._paused.add(wire)
            wire.pause()
        self._wake()

    def fail(self, error: BackendConnectionError) -> None:
        """End the stream with this error, the first one wins."""
        self._error = self._error or error
        self._wake()

    async def stream(self) -> AsyncIterator[Event]:
        """Give the events; raises what `fail` was told."""
        while True:
            while not self.events:
                if self._error is not None:
                    raise self._error
                await self._wait()
            # No await per event: whatever came in together goes out together.
            batch, self.events = self.events, []
            for wire in self._paused:
                wire.resume()
            self._paused.clear()
            for event in batch:
                yield event

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ReceivingWire(Wire):
    """A connection with subscriptions; replies to commands and events come on it side by side."""

    def __init__(
        self,
        address: str,
        connection: Any,
        *,
        inbox: Inbox,
        dialect: Dialect,
        names: dict[bytes, str],
        read_event: Callable[[str, bytes], Event | None],
    ) -> None:
        self._inbox: Final = inbox
        self._dialect: Final = dialect
        self._names: Final = names
        self._read_event: Final = read_event
        super().__init__(address, connection, self._tell_loss)

    def pause(self) -> None:
        """Stop reading from the socket."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading from the socket."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _read_replies(self) -> None:
        gets, message, names = self._reader.gets, self._dialect.message, self._names
        read_event, append = self._read_event, self._inbox.events.append
        while (frame := gets()) is not NOTHING:
            if isinstance(frame, list) and frame and frame[0] == message:
                channel = names.get(frame[1])
                event = None if channel is None else read_event(channel, frame[2])
                if event is not None:
                    append(event)
            else:
                self._read_other(frame)
        if self._inbox.events:
            self._inbox.wake(self)

    def _read_other(self, frame: Any) -> None:
        if not self._calls and isinstance(frame, list) and frame and frame[0] == self._dialect.unsubscribed:
            # A cluster says so when the slot has moved away; it may have moved some events ago.
            self.abort(f"{frame[1]!r:.200} is served by another node now")
        else:
            self._answer(frame)

    def _tell_loss(self, _: Wire) -> None:
        if self.error is not None:
            self._inbox.fail(self.error)
