"""What WebSocket and SSE connections have in common: reading, writing and watching at the same time."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Never

from litestar.connection import ASGIConnection
from litestar.exceptions import WebSocketDisconnect

from channels_core.events import Event, Gap
from channels_core.exceptions import BackendConnectionError, BacklogOverflow, NotStarted
from channels_core.subscriber import Subscriber
from channels_litestar import _ending
from channels_litestar._access import Access
from channels_litestar._deadline import SendDeadline
from channels_litestar._ending import Ended
from channels_litestar._options import HandlerOptions
from channels_litestar._race import race
from channels_litestar._start import Start

if TYPE_CHECKING:
    from channels_litestar.plugin import ChannelsPlugin

__all__ = ("Stream", "logger")

logger: Final = logging.getLogger("channels_litestar")


class Stream(ABC):
    """One connection that follows one channel, until either side ends it.

    The broker confirms the subscription before the client is answered: whatever is published after a client has
    connected reaches it.

    Args:
        connection: A request or a socket, not answered yet.
        channel: What it follows.
        plugin: Where the events come from.
        options: How.
    """

    def __init__(
        self,
        connection: ASGIConnection[Any, Any, Any, Any],
        channel: str,
        plugin: ChannelsPlugin,
        options: HandlerOptions,
    ) -> None:
        self._channel: Final = channel
        self._plugin: Final = plugin
        self._options: Final = options
        self._deadline: Final = SendDeadline(options.send_timeout)
        self._access: Final = Access(connection, channel, options.authorize, options.authorize_interval)

    async def _run(self, start: Start) -> None:
        """Do everything at once; raises `Ended`, with nothing of the connection left in the plugin."""
        parts = [self._read(), self._write(start)]
        if self._access.is_revocable:
            parts.append(self._watch())
        await race(*parts)

    @abstractmethod
    async def _read(self) -> Never:
        """Consume what the client sends; raises `Ended` when it leaves."""

    @abstractmethod
    async def _open(self, subscriber: Subscriber) -> None:
        """Answer the client."""

    @abstractmethod
    async def _send_item(self, item: Event | Gap, subscriber: Subscriber) -> None:
        """Send what the stream yields."""

    async def _write(self, start: Start) -> Never:
        async with self._subscription(start) as subscriber:
            await self._open(subscriber)
            async for item in subscriber:
                await self._send_item(item, subscriber)
        raise Ended(_ending.RESTART)

    async def _watch(self) -> Never:
        await self._access.watch("subscribe")
        raise Ended(_ending.DENIED)

    @asynccontextmanager
    async def _subscription(self, start: Start) -> AsyncIterator[Subscriber]:
        try:
            async with self._plugin.start_subscription(
                self._channel, after=start.after, history=start.history
            ) as subscriber:
                yield subscriber
        except BacklogOverflow as exc:
            raise Ended(_ending.OVERFLOW) from exc
        except BackendConnectionError as exc:
            raise Ended(_ending.AWAY) from exc
        except NotStarted as exc:
            raise Ended(_ending.RESTART) from exc

    async def _send_in_time(self, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
        """Send one message; a client that does not take it in time is given up, one that has gone is noticed."""
        try:
            await self._deadline.send(send, message)
        except TimeoutError as exc:
            raise Ended(_ending.STUCK) from exc
        except (OSError, WebSocketDisconnect) as exc:
            raise Ended(_ending.GONE) from exc
