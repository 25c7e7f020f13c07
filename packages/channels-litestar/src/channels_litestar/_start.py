"""Where a stream starts, as its client asks."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException

from channels_core.events import Cursor, Position
from channels_core.exceptions import InvalidCursor

__all__ = ("Start", "read_start")

MAX_TOKEN_BYTES: Final = 4096
"""The longest cursor token taken or given: servers and proxies refuse longer header lines."""

_EPOCH_BYTES: Final = 128
"""Room for an epoch when the length of a token is estimated; ours have at most half of that."""


class Start(msgspec.Struct, frozen=True):
    """Arguments for `ChannelsPlugin.subscribe`."""

    after: Cursor | None
    history: int | None


def read_start(
    connection: ASGIConnection[Any, Any, Any, Any], channel: str, *, history: int, max_history: int
) -> Start:
    """Read ``Last-Event-ID``, ``?after=`` and ``?history=``.

    The header wins over the query, because a browser that reconnects sends both and only the header is fresh.

    Args:
        connection: The request.
        channel: What it wants to follow.
        history: Events sent where the client does not say.
        max_history: The most that it may ask for.

    Raises:
        ClientException: A value cannot be read, or a token could grow past `MAX_TOKEN_BYTES`.
    """
    _check_token_length(channel)
    asked = connection.query_params.get("history")
    token = connection.headers.get("last-event-id") or connection.query_params.get("after")
    return Start(
        after=_read_token(token) if token else None,
        history=(history or None) if asked is None else _read_history(asked, max(history, max_history)),
    )


def _check_token_length(channel: str) -> None:
    longest = Cursor({channel: Position("e" * _EPOCH_BYTES, 2**63 - 1)})
    if len(str(longest)) > MAX_TOKEN_BYTES:
        raise ClientException("the channel's name is too long: its cursor token could pass 4 KiB")


def _read_token(token: str) -> Cursor:
    if len(token) > MAX_TOKEN_BYTES:
        raise ClientException("the cursor token is longer than 4 KiB")
    try:
        return Cursor.parse(token)
    except InvalidCursor as exc:
        raise ClientException(str(exc)) from exc


def _read_history(text: str, maximum: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= maximum):
        raise ClientException(f"history={text[:20]!r}: expected a number from 0 to {maximum}")
    return int(text) or None
