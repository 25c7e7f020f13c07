"""How a stream ends, and what its client is told."""

from __future__ import annotations

from typing import Final

__all__ = (
    "AWAY",
    "BROKEN",
    "DENIED",
    "GAP",
    "GONE",
    "MALFORMED",
    "OVERFLOW",
    "QUEUE_FULL",
    "RESTART",
    "STUCK",
    "TOO_LARGE",
    "Ended",
    "Ending",
)


class Ending:
    """One way for a stream to end.

    Attributes:
        code: The WebSocket close code (RFC 6455 section 7.4.1 and the IANA registry), for an open connection.
        status: The HTTP status, for a connection that was not opened yet.
        reason: For people who debug a client; at most 123 bytes.
    """

    __slots__ = ("code", "reason", "status")

    def __init__(self, code: int, status: int, reason: str) -> None:
        self.code: Final = code
        self.status: Final = status
        self.reason: Final = reason


class Ended(Exception):
    """Raised inside a stream to end it: a way to leave nested code, and no error."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending: Final = ending


GONE: Final = Ending(1001, 499, "the client is gone")
"""Nobody is left to be told."""

STUCK: Final = Ending(1006, 499, "the client does not read")
"""Not told either: the client takes nothing."""

RESTART: Final = Ending(1012, 503, "the server is stopping; connect again")
GAP: Final = Ending(1012, 503, "events may be missing; connect again and refetch")
OVERFLOW: Final = Ending(1013, 503, "too slow; connect again")
QUEUE_FULL: Final = Ending(1013, 503, "too many events wait to be published; try again later")
AWAY: Final = Ending(1013, 503, "the broker is away; try again later")
DENIED: Final = Ending(1008, 403, "not allowed")
TOO_LARGE: Final = Ending(1009, 413, "the message is larger than the broker takes")
BROKEN: Final = Ending(1011, 500, "internal error")
MALFORMED: Final = Ending(1007, 400, "expected a JSON object of type publish with data or base64")
