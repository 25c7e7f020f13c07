"""Server-sent events: a response that follows one channel (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Never

import msgspec
from litestar.connection import Request
from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from channels_core.events import Event, Gap
from channels_core.subscriber import Subscriber
from channels_litestar import _ending
from channels_litestar._ending import Ended, Ending
from channels_litestar._fanout import encode_once
from channels_litestar._frames import describe_gap, read_text, write_token
from channels_litestar._options import HandlerOptions
from channels_litestar._race import race
from channels_litestar._start import Start, read_start
from channels_litestar._stream import Stream, logger

if TYPE_CHECKING:
    from channels_litestar.plugin import ChannelsPlugin

__all__ = ("EventStream", "SSEStream")

_KEEP_ALIVE: Final = b":\n\n"
"""A comment: clients ignore it, proxies see traffic, and sending it finds a dead connection."""

_RETRY_MS: Final = 1_000
"""How long a browser waits before it connects again; its own default is several seconds."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx collects responses in a buffer otherwise
}


class SSEStream(Stream):
    """Sends the events of a channel as a response body that goes on until either side ends it."""

    def __init__(
        self, request: Request[Any, Any, Any], channel: str, plugin: ChannelsPlugin, options: HandlerOptions
    ) -> None:
        super().__init__(request, channel, plugin, options)
        self._request: Final = request
        self._sending: Final = asyncio.Lock()
        self._opened = False

    async def admit(self) -> EventStream:
        """Return the response.

        Raises:
            HTTPException: The client may not have it, or asked for something that cannot be.
        """
        await self._access.require("subscribe")
        start = read_start(self._request, self._channel, history=0, max_history=self._options.handler_max_history)
        return EventStream(self, start)

    async def serve(self, response: ASGIResponse, start: Start, receive: Receive, send: Send) -> None:
        """Return when the response is complete and nothing of it is left."""
        self._response = response
        self._receive = receive
        self._asgi_send = send
        try:
            await race(self._run(start), self._keep_alive())
        except Ended as ended:
            await self._finish(ended.ending)
        except Exception:
            logger.exception("an event stream of channel %r failed", self._channel)
            await self._finish(_ending.BROKEN)
        finally:
            self._deadline.close()

    async def _read(self) -> Never:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise Ended(_ending.GONE)

    async def _open(self, subscriber: Subscriber) -> None:
        await self._send_in_time(self._response.start_response, self._asgi_send)
        self._opened = True
        await self._send(f"retry: {_RETRY_MS}\nid: {subscriber.cursor}\n\n".encode())

    async def _send_item(self, item: Event | Gap, subscriber: Subscriber) -> None:
        await self._send(_encode_event(item) if isinstance(item, Event) else _encode_gap(item, subscriber))

    async def _keep_alive(self) -> Never:
        while True:
            await asyncio.sleep(self._options.sse_keep_alive)
            if self._opened:
                await self._send(_KEEP_ALIVE)

    async def _finish(self, ending: Ending) -> None:
        if ending is _ending.GONE or ending is _ending.STUCK:
            return
        with suppress(Ended):
            if self._opened:
                await self._send(b"", more_body=False)
            else:
                await self._send_in_time(_write_refusal(ending), self._asgi_send)

    async def _send(self, body: bytes, *, more_body: bool = True) -> None:
        async with self._sending:
            await self._send_in_time(
                self._asgi_send, {"type": "http.response.body", "body": body, "more_body": more_body}
            )


class EventStream(Response[None]):
    """A response whose body is the events of one channel.

    Args:
        stream: Who writes the body.
        start: Where it begins.
    """

    def __init__(self, stream: SSEStream, start: Start) -> None:
        super().__init__(None, media_type="text/event-stream", headers=_HEADERS)
        self._stream: Final = stream
        self._start: Final = start

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **options: Any) -> ASGIResponse:
        """Return the application that writes the response; headers and cookies of outer layers are kept."""
        return _StreamingResponse(
            self._stream,
            self._start,
            headers={**(options.get("headers") or {}), **self.headers},
            cookies=[*self.cookies, *(options.get("cookies") or ())],
            media_type=self.media_type,
        )


class _StreamingResponse(ASGIResponse):
    _should_set_content_length = False

    def __init__(self, stream: SSEStream, start: Start, **options: Any) -> None:
        super().__init__(**options)
        self._stream: Final = stream
        self._start: Final = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stream.serve(self, self._start, receive, send)


def _write_refusal(ending: Ending) -> Any:
    body = msgspec.json.encode({"status_code": ending.status, "detail": ending.reason})
    response = ASGIResponse(body=body, status_code=ending.status)

    async def respond(send: Send) -> None:
        await response.start_response(send)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return respond


@encode_once
def _encode_event(event: Event) -> bytes:
    """Write an event; what is not UTF-8 comes as base64 under ``event: binary``, since this is a text format."""
    token, text = write_token(event), read_text(event.data)
    id_line = f"id: {token}\n" if token is not None else ""
    if text is None:
        return f"{id_line}event: binary\ndata: {base64.b64encode(event.data).decode()}\n\n".encode()
    return f"{id_line}{_write_data(text)}\n".encode()


def _encode_gap(gap: Gap, subscriber: Subscriber) -> bytes:
    frame = describe_gap(gap, subscriber.cursor)
    return f"id: {frame.cursor}\nevent: gap\n{_write_data(msgspec.json.encode(frame).decode())}\n".encode()


def _write_data(text: str) -> str:
    """Write one ``data:`` line per line: any of CR LF, CR and LF ends one, and arrives as LF."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines)
