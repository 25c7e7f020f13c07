"""What the rest of this distribution needs of a driver: the whole difference between asyncpg and psycopg."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, Protocol

__all__ = ("CONNECT_TIMEOUT", "Argument", "Driver", "Link", "Row")

Argument = str | bytes | int | float | Sequence[str] | Sequence[bytes] | Sequence[int]
"""What a statement may take; every statement casts its parameters, so that no driver has to guess a type."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for one attempt to connect: only for callers without a deadline of their own, so it is generous."""


class Row(Protocol):
    """One row; the columns are ``text``, ``bytea``, ``bytea[]``, ``bigint``, ``boolean`` or ``void``."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Link(ABC):
    """One connection. All errors are `BackendConnectionError` or `BackendError`.

    One statement at a time. After an error or a cancelled call nothing is known about the connection: `abort` it.
    """

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the connection is known to be gone."""

    @abstractmethod
    async def fetch(self, statement: str, *arguments: Argument) -> Sequence[Row]:
        """Run one statement in a transaction of its own; arguments never become part of its text."""

    @abstractmethod
    async def run(self, script: str) -> None:
        """Run statements of our own making, without arguments, in one round trip."""

    @abstractmethod
    async def listen(self, names: Collection[str]) -> None:
        """Receive the notifications of these names, which must be plain identifiers."""

    @abstractmethod
    async def unlisten(self, names: Collection[str]) -> None:
        """Undo `listen`."""

    @abstractmethod
    def watch(self, on_notification: Callable[[str, str], None], on_lost: Callable[[], None]) -> None:
        """Set who is called, in the event loop, with name and payload, and when the connection ends."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the connection at once; a call in flight ends with `BackendConnectionError`."""

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye to the server, in bounded time."""


class Driver(ABC):
    """Opens connections to one server."""

    @abstractmethod
    async def connect(self, *, listening: bool) -> Link:
        """Connect.

        Args:
            listening: For LISTEN; the other connections may go through a pooler that is no good for it.

        Raises:
            BackendConnectionError: The server is not there.
            BackendError: It refuses: wrong password, no such database.
        """
