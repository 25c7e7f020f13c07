"""What travels in a WebSocket message: raw data, or the envelope of subprotocol ``channels.v1``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, cast

import msgspec

from channels_core.events import Cursor, Event, Gap
from channels_litestar._ending import GAP, MALFORMED, Ended
from channels_litestar._fanout import encode_once

__all__ = ("SUBPROTOCOL", "EnvelopedFrames", "Frames", "OnGap", "RawFrames", "SendMode", "describe_gap")

SUBPROTOCOL: Final = "channels.v1"
"""Clients that offer it get the enveloped mode."""

OnGap = Literal["close", "ignore"]
"""What a raw connection does when events may be missing: raw frames cannot say so."""

SendMode = Literal["text", "binary"]
"""The kind of message that carries an event in raw mode."""

Message = dict[str, Any]
"""An ASGI message."""


class Frames(Protocol):
    """Turns what a stream yields into messages, and a client's messages into data."""

    @property
    def subprotocol(self) -> str | None:
        """What the handshake's answer names."""

    def greet(self, cursor: Cursor, channel: str) -> Message | None:
        """Return the first message of the connection."""

    def encode_event(self, event: Event) -> Message:
        """Return the message for an event."""

    def encode_gap(self, gap: Gap, cursor: Cursor) -> Message | None:
        """Return the message for a gap, ``None`` for none; raise `Ended` where the connection cannot go on."""

    def decode(self, message: Mapping[str, Any]) -> bytes:
        """Return what the client wants to publish; raise `Ended` where it cannot be read."""


class RawFrames:
    """An event's own bytes, and nothing else."""

    subprotocol: Final = None

    def __init__(self, mode: SendMode, on_gap: OnGap) -> None:
        self._mode: Final = mode
        self._on_gap: Final = on_gap

    def greet(self, cursor: Cursor, channel: str) -> None:
        return None

    def encode_event(self, event: Event) -> Message:
        """In text mode, data that is not UTF-8 comes as a binary message: a text message cannot hold it."""
        text = read_text(event.data) if self._mode == "text" else None
        return _message(text=text) if text is not None else _message(data=event.data)

    def encode_gap(self, gap: Gap, cursor: Cursor) -> None:
        if self._on_gap == "close":
            raise Ended(GAP)

    def decode(self, message: Mapping[str, Any]) -> bytes:
        text = message.get("text")
        return text.encode() if text is not None else message.get("bytes") or b""


class EnvelopedFrames:
    """JSON objects in text messages, each with the cursor to resume from."""

    subprotocol: Final = SUBPROTOCOL

    def greet(self, cursor: Cursor, channel: str) -> Message:
        return _envelope(Joined(channel=channel, cursor=str(cursor)))

    def encode_event(self, event: Event) -> Message:
        return _message(text=_encode_event(event))

    def encode_gap(self, gap: Gap, cursor: Cursor) -> Message:
        return _envelope(describe_gap(gap, cursor))

    def decode(self, message: Mapping[str, Any]) -> bytes:
        try:
            publish = _decoder.decode(message.get("text") or message.get("bytes") or b"")
        except msgspec.DecodeError as exc:
            raise Ended(MALFORMED) from exc
        if (publish.data is None) == (publish.base64 is None):
            raise Ended(MALFORMED)
        return publish.data.encode() if publish.data is not None else cast("bytes", publish.base64)


class Joined(msgspec.Struct, tag="joined", tag_field="type", frozen=True):
    """The first message: whatever is published from now on arrives."""

    channel: str
    cursor: str


class EventFrame(msgspec.Struct, tag="event", tag_field="type", frozen=True, omit_defaults=True):
    """An event: ``data`` where it is UTF-8, ``base64`` otherwise; ``cursor`` where the backend keeps history."""

    channel: str
    data: str | None = None
    base64: bytes | None = None
    cursor: str | None = None


class GapFrame(msgspec.Struct, tag="gap", tag_field="type", frozen=True):
    """A place where events may be missing; ``null`` where unknown."""

    channel: str
    reason: str
    after: str | None
    until: str | None
    missed: int | None
    cursor: str


class PublishFrame(msgspec.Struct, tag="publish", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """What a client sends to publish: either ``data`` or ``base64``."""

    data: str | None = None
    base64: bytes | None = None


_decoder: Final = msgspec.json.Decoder(PublishFrame)


def describe_gap(gap: Gap, cursor: Cursor) -> GapFrame:
    """Return what a client is told of a gap."""
    return GapFrame(
        channel=gap.channel,
        reason=gap.reason,
        after=str(gap.after) if gap.after is not None else None,
        until=str(gap.until) if gap.until is not None else None,
        missed=gap.missed,
        cursor=str(cursor),
    )


def read_text(data: bytes) -> str | None:
    """Return the data as text, ``None`` where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def write_token(event: Event) -> str | None:
    """Return the token to resume from after this event of a one-channel stream."""
    return str(Cursor({event.channel: event.position})) if event.position is not None else None


@encode_once
def _encode_event(event: Event) -> str:
    text = read_text(event.data)
    binary = event.data if text is None else None
    frame = EventFrame(channel=event.channel, data=text, base64=binary, cursor=write_token(event))
    return msgspec.json.encode(frame).decode()


def _envelope(frame: msgspec.Struct) -> Message:
    return _message(text=msgspec.json.encode(frame).decode())


def _message(*, text: str | None = None, data: bytes | None = None) -> Message:
    return {"type": "websocket.send", "text": text, "bytes": data}
