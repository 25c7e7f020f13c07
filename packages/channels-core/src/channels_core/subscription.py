"""What ``subscribe`` returns: something to await, or to enter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import Any, Final

from channels_core.events import Cursor, Position
from channels_core.subscriber import Subscriber

__all__ = ("After", "Subscription", "read_after")

After = Cursor | Mapping[str, Position] | str
"""Where to resume: a cursor, a mapping from channel to position, or a cursor's token."""


class Subscription:
    """Awaitable that gives a `Subscriber`, and async context manager that unsubscribes it from everything.

    Nothing happens before it is awaited or entered.
    """

    __slots__ = ("_start", "_subscriber")

    def __init__(self, start: Callable[[], Awaitable[Subscriber]]) -> None:
        self._start: Final = start
        self._subscriber: Subscriber | None = None

    def __await__(self) -> Generator[Any, None, Subscriber]:
        return self._start().__await__()

    async def __aenter__(self) -> Subscriber:
        self._subscriber = await self._start()
        return self._subscriber

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._subscriber is not None:
            await self._subscriber.stop()


def read_after(after: After | None) -> Mapping[str, Position]:
    """Return the positions to resume from.

    Raises:
        InvalidCursor: A token that is none of ours.
    """
    if after is None:
        return {}
    return Cursor.parse(after) if isinstance(after, str) else after
