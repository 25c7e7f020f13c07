"""Events, gaps, positions and cursors: the values that travel through everything else. No I/O."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from channels_core.exceptions import InvalidCursor

__all__ = ("ORIGIN", "Cursor", "Event", "Gap", "GapReason", "Position")

GapReason = Literal["backlog", "disconnected", "epoch", "trimmed"]
"""Why events may be missing: see `Gap`."""

_CHECKSUM_BYTES: Final = 4
"""CRC-32: a token is opaque, not secret; the sum finds truncation and typing errors, nothing more."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where an event stands in its channel.

    Offsets of one epoch are consecutive integers in delivery order, from 1. Offsets of different epochs are
    never compared. ``str(position)`` and `Position.parse` are inverse.

    Attributes:
        epoch: Changes when the broker may have lost part of its memory of the channel. Opaque, may hold any text.
        offset: Consecutive within the epoch; an epoch may begin at any offset.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what ``str(position)`` gave.

        Raises:
            InvalidCursor: The text is no position.
        """
        epoch, colon, digits = text.rpartition(":")
        if not colon or not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
            raise InvalidCursor(f"no position: {text[:80]!r}, expected 'EPOCH:OFFSET'")
        position = cls(epoch, int(digits))
        if str(position) != text:
            raise InvalidCursor(f"no position: {text[:80]!r}, the offset has leading zeros")
        return position

    def before(self) -> Position:
        """Return the position right before this one in the same epoch."""
        return Position(self.epoch, self.offset - 1)


_MAX_DIGITS: Final = 19
"""A signed 64-bit integer, which is what brokers count in; longer digits come from forged tokens."""

ORIGIN: Final = Position("", 0)
"""The position of a channel that has no event yet, "before anything": offset 1 of any epoch comes next."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One piece of data published to, or received from, a channel.

    Attributes:
        channel: The channel's name.
        data: The payload, always bytes.
        position: Where it stands in its channel; ``None`` from a backend that keeps no history.
    """

    channel: str
    data: bytes
    position: Position | None = None


class Gap(msgspec.Struct, frozen=True, gc=False):
    """A place in a stream where events of one channel may be missing.

    Attributes:
        channel: The channel's name.
        reason: ``"backlog"``: this subscriber was too slow. ``"disconnected"``: the broker was away and keeps no
            history. ``"trimmed"``: history no longer reaches back. ``"epoch"``: the broker may have lost memory.
        after: The last position before the gap, ``None`` where unknown.
        until: The last missing position, ``None`` where unknown.
        missed: How many events are missing, ``None`` where unknown.
    """

    channel: str
    reason: GapReason
    after: Position | None = None
    until: Position | None = None
    missed: int | None = None


class Cursor(Mapping[str, Position]):
    """Channel → position of the last event consumed; immutable.

    ``str(cursor)`` is one opaque, URL-safe token and `Cursor.parse` its inverse. Tokens are not secret and not
    signed: they come back from clients, and whoever reads them must expect any channel and any position.
    """

    __slots__ = ("_positions",)

    def __init__(self, positions: Mapping[str, Position] | None = None) -> None:
        self._positions: Final = dict(positions or {})

    def __getitem__(self, channel: str) -> Position:
        return self._positions[channel]

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __hash__(self) -> int:
        return hash(frozenset(self._positions.items()))

    def __repr__(self) -> str:
        return f"Cursor({self._positions!r})"

    def __str__(self) -> str:
        rows = [(channel, p.epoch, p.offset) for channel, p in sorted(self._positions.items())]
        body = msgspec.msgpack.encode(rows)
        checksum = zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")
        return base64.urlsafe_b64encode(checksum + body).rstrip(b"=").decode("ascii")

    @classmethod
    def parse(cls, token: str) -> Cursor:
        """Read what ``str(cursor)`` gave.

        Raises:
            InvalidCursor: The token is damaged or none of ours.
        """
        try:
            return cls(_read_token(token))
        except (ValueError, TypeError, msgspec.DecodeError) as exc:
            raise InvalidCursor(f"no cursor token: {token[:80]!r}; start without one to follow from now on") from exc


def _read_token(token: str) -> dict[str, Position]:
    padded = token.encode("ascii") + b"=" * (-len(token) % 4)
    raw = base64.b64decode(padded, altchars=b"-_", validate=True)
    body = raw[_CHECKSUM_BYTES:]
    if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != raw[:_CHECKSUM_BYTES]:
        raise binascii.Error("checksum differs")
    rows = msgspec.msgpack.decode(body, type=list[tuple[str, str, int]])
    return {channel: _checked(epoch, offset) for channel, epoch, offset in rows}


def _checked(epoch: str, offset: int) -> Position:
    if not 0 <= offset < 1 << 63:
        raise ValueError(f"offset out of range: {offset}")
    return Position(epoch, offset)
