"""A WebSocket connection that follows one channel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Never, cast

import msgspec
from litestar.connection import WebSocket
from litestar.exceptions import HTTPException

from channels_core.events import Event, Gap
from channels_core.exceptions import MessageTooLarge, NotStarted, PublishQueueFull
from channels_core.subscriber import Subscriber
from channels_litestar import _ending
from channels_litestar._access import REFUSALS, check_origin
from channels_litestar._ending import Ended, Ending
from channels_litestar._frames import SUBPROTOCOL, EnvelopedFrames, Frames, RawFrames
from channels_litestar._options import HandlerOptions
from channels_litestar._start import Start, read_start
from channels_litestar._stream import Stream, logger

if TYPE_CHECKING:
    from channels_litestar.plugin import ChannelsPlugin

__all__ = ("WebSocketStream",)

_HTTP_RESPONSE: Final = "websocket.http.response"
"""ASGI extension: refuse a handshake with a status of our choice."""

_CLOSED_BY_SERVER: Final = "after sending 'websocket.close'"
"""In the `RuntimeError` of uvicorn (0.54) where it closed a connection because the client answered no ping, and could
not say so yet, because bytes still wait to be written."""

_PRIVATE_CODES: Final = 4000
"""Close codes of applications begin here; Litestar adds the HTTP status in the same way."""

_MAX_REASON: Final = 30
"""Characters of a close reason that fit in any script: the frame holds 123 bytes."""


class WebSocketStream(Stream):
    """Sends the events of a channel over a socket, raw or in envelopes, and publishes what the client sends."""

    def __init__(
        self, socket: WebSocket[Any, Any, Any], channel: str, plugin: ChannelsPlugin, options: HandlerOptions
    ) -> None:
        super().__init__(socket, channel, plugin, options)
        self._socket: Final = socket
        self._frames: Final = _choose_frames(socket, options)
        self._accepted = False

    async def serve(self) -> None:
        """Return when the connection is closed and nothing of it is left."""
        await self._socket.receive()
        try:
            await self._run(await self._admit())
        except Ended as ended:
            await self._finish(ended.ending)
        except Exception as exc:
            if isinstance(exc, HTTPException) and not self._accepted:
                await self._refuse(exc.status_code, exc.detail)
                return
            logger.exception("a WebSocket of channel %r failed", self._channel)
            await self._finish(_ending.BROKEN)
        finally:
            self._deadline.close()

    async def _admit(self) -> Start:
        options = self._options
        check_origin(self._socket, options.ws_allowed_origins)
        await self._access.require("subscribe")
        return read_start(
            self._socket,
            self._channel,
            history=options.ws_handler_send_history,
            max_history=options.handler_max_history,
        )

    async def _read(self) -> Never:
        while True:
            message = cast("Mapping[str, Any]", await self._socket.receive())
            if message["type"] == "websocket.disconnect":
                raise Ended(_ending.GONE)
            if self._options.ws_handler_publish:
                await self._publish(message)

    async def _publish(self, message: Mapping[str, Any]) -> None:
        data = self._frames.decode(message)
        try:
            await self._access.require_recent("publish")
            self._plugin.publish(data, self._channel)
            # The server may have a burst of messages at hand, and gives them without a turn of the loop in between;
            # the publisher needs one, or its queue fills up while the broker is idle.
            await asyncio.sleep(0)
        except REFUSALS as exc:
            raise Ended(_ending.DENIED) from exc
        except MessageTooLarge as exc:
            raise Ended(_ending.TOO_LARGE) from exc
        except PublishQueueFull as exc:
            raise Ended(_ending.QUEUE_FULL) from exc
        except NotStarted as exc:
            raise Ended(_ending.RESTART) from exc

    async def _open(self, subscriber: Subscriber) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": self._frames.subprotocol, "headers": []})
        self._accepted = True
        if greeting := self._frames.greet(subscriber.cursor, self._channel):
            await self._send(greeting)

    async def _send_item(self, item: Event | Gap, subscriber: Subscriber) -> None:
        if isinstance(item, Event):
            await self._send(self._frames.encode_event(item))
        elif message := self._frames.encode_gap(item, subscriber.cursor):
            await self._send(message)

    async def _finish(self, ending: Ending) -> None:
        """Tell the client, unless it is gone or does not take anything any more."""
        if ending is _ending.GONE or ending is _ending.STUCK:
            return
        if self._accepted:
            await self._close(ending.code, ending.reason)
        else:
            await self._refuse(ending.status, ending.reason)

    async def _refuse(self, status: int, detail: str) -> None:
        """Answer the handshake with an HTTP status where the server can, else close."""
        if _HTTP_RESPONSE not in (self._socket.scope.get("extensions") or {}):
            await self._close(_PRIVATE_CODES + status, detail[:_MAX_REASON])
            return
        body = msgspec.json.encode({"status_code": status, "detail": detail})
        headers = [(b"content-type", b"application/json")]
        with suppress(Ended):
            await self._send({"type": f"{_HTTP_RESPONSE}.start", "status": status, "headers": headers})
            await self._send({"type": f"{_HTTP_RESPONSE}.body", "body": body})
        # uvicorn (0.54) takes the handshake for unfinished, and logs an error, until its transport is closed: a turn
        # of the loop later.
        await asyncio.sleep(0)

    async def _close(self, code: int, reason: str) -> None:
        with suppress(Ended):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _send(self, message: Any) -> None:
        try:
            await self._send_in_time(self._socket.send, message)
        except RuntimeError as exc:
            if _CLOSED_BY_SERVER not in str(exc):
                raise
            raise Ended(_ending.GONE) from exc


def _choose_frames(socket: WebSocket[Any, Any, Any], options: HandlerOptions) -> Frames:
    if SUBPROTOCOL in socket.scope["subprotocols"]:
        return EnvelopedFrames()
    return RawFrames(options.ws_send_mode, options.ws_on_gap)
