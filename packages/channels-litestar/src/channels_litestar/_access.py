"""Who may open a stream, asked before it opens and again while it is open."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException

__all__ = ("REFUSALS", "SAME_ORIGIN", "Access", "Action", "Authorize", "check_origin")

Action = Literal["publish", "subscribe"]
"""What a connection wants to do with a channel."""

Authorize = Callable[[ASGIConnection[Any, Any, Any, Any], str, Action], bool | Awaitable[bool]]
"""Answers whether the connection may do that with the channel; may also raise a Litestar HTTP exception."""

SAME_ORIGIN: Final = "same-origin"
"""Entry of ``ws_allowed_origins`` that stands for the host that the request was sent to."""

REFUSALS: Final = (NotAuthorizedException, PermissionDeniedException)
"""What ``authorize`` may raise instead of answering no."""


class Access:
    """The permission of one connection to one channel.

    Args:
        connection: Whose permission.
        channel: To what.
        authorize: Asked each time; ``None`` permits everything.
        interval: Seconds that an answer holds; ``None`` for as long as the connection is open.
    """

    def __init__(
        self,
        connection: ASGIConnection[Any, Any, Any, Any],
        channel: str,
        authorize: Authorize | None,
        interval: float | None,
    ) -> None:
        self._connection: Final = connection
        self._channel: Final = channel
        self._authorize: Final = authorize
        self._interval: Final = interval
        self._asked: Final[dict[Action, float]] = {}

    @property
    def is_revocable(self) -> bool:
        """Whether `watch` can ever return."""
        return self._authorize is not None and self._interval is not None

    async def require(self, action: Action) -> None:
        """Ask now.

        Raises:
            PermissionDeniedException: The answer is no.
        """
        if self._authorize is None:
            return
        answer = self._authorize(self._connection, self._channel, action)
        if inspect.isawaitable(answer):
            answer = await answer
        if not answer:
            raise PermissionDeniedException(f"not allowed to {action}")
        self._asked[action] = asyncio.get_running_loop().time()

    async def require_recent(self, action: Action) -> None:
        """Ask only where the last answer is missing or older than the interval.

        Raises:
            PermissionDeniedException: The answer is no.
        """
        asked = self._asked.get(action)
        age = None if asked is None else asyncio.get_running_loop().time() - asked
        if age is None or (self._interval is not None and age >= self._interval):
            await self.require(action)

    async def watch(self, action: Action) -> None:
        """Ask again every interval, and return when the answer is no; only where `is_revocable`.

        Whatever else ``authorize`` raises is raised here, and so is `TimeoutError` for an answer that takes longer
        than the interval: who cannot be asked permits nothing.
        """
        while True:
            await asyncio.sleep(self._interval or 0)
            try:
                async with asyncio.timeout(self._interval):
                    await self.require(action)
            except REFUSALS:
                return


def check_origin(connection: ASGIConnection[Any, Any, Any, Any], allowed: Collection[str] | None) -> None:
    """Refuse a browser page from elsewhere; programs send no ``Origin`` and pass.

    Raises:
        PermissionDeniedException: The origin is not among those allowed.
    """
    origin = connection.headers.get("origin")
    if allowed is None or origin is None or origin in allowed:
        return
    if SAME_ORIGIN in allowed and _read_host(origin) == connection.headers.get("host"):
        return
    raise PermissionDeniedException(f"origin {origin!r} is not allowed")


def _read_host(origin: str) -> str:
    """Return the host and port of an origin, an empty string where it has none or cannot be read."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
