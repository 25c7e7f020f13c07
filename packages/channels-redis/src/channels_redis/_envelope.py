"""What a stream backend stores and sends: one line that says where the event stands, then the event's own bytes.

``1:EPOCH:OFFSET:MILLISECONDS`` and a line feed, then the payload. The digit is the version of this format. The line
``1:::`` stands for no position (a sign of life).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from channels_core.events import Position

__all__ = ("UNPLACED", "Envelope", "EnvelopeReader")

VERSION: Final = b"1"
"""The first field of every envelope; another value is somebody else's, or from the future."""

UNPLACED: Final = b"1:::\n"
"""What stands before the payload of an event without a position."""

MAX_OFFSET_DIGITS: Final = 18
"""Fits a signed 64-bit integer; more digits come from nobody who counts events."""

MAX_EPOCHS: Final = 10_000
"""Epoch texts kept decoded; a busy process sees a few for each of its channels."""


class Envelope(NamedTuple):
    """A decoded envelope."""

    position: Position | None
    time_ms: int
    data: bytes


class EnvelopeReader:
    """Decode envelopes; anything may arrive, nothing is trusted."""

    __slots__ = ("_epochs",)

    def __init__(self) -> None:
        self._epochs: Final[dict[bytes, str]] = {}

    def read(self, blob: object) -> Envelope | None:
        """Return what the envelope holds, ``None`` for what is none."""
        if not isinstance(blob, bytes):
            return None
        head, line_feed, data = blob.partition(b"\n")
        fields = head.split(b":")
        if not line_feed or len(fields) != 4 or fields[0] != VERSION:
            return None
        _, epoch, offset, time_ms = fields
        if epoch and offset.isdigit() and time_ms.isdigit() and len(offset) <= MAX_OFFSET_DIGITS >= len(time_ms):
            return Envelope(Position(self._epoch(epoch), int(offset)), int(time_ms), data)
        return None if epoch or offset or time_ms else Envelope(None, 0, data)

    def _epoch(self, raw: bytes) -> str:
        epoch = self._epochs.get(raw)
        if epoch is None:
            if len(self._epochs) >= MAX_EPOCHS:
                self._epochs.clear()
            epoch = self._epochs[raw] = raw.decode("utf-8", "backslashreplace")
        return epoch
