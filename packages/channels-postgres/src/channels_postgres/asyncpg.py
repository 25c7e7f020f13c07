"""The backend on asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final, Self

import asyncpg

from channels_core.exceptions import BackendConnectionError, BackendError, ImproperlyConfigured, InvalidURL
from channels_core.urls import redact_url
from channels_postgres._backend import PostgresChannelsBackend
from channels_postgres._driver import CONNECT_TIMEOUT, Argument, Driver, Link, Row
from channels_postgres._errors import error_of
from channels_postgres._options import DAY, MIB, Options

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ("AsyncPgChannelsBackend",)

_CLOSE_TIMEOUT: Final = 0.1
"""Seconds for the goodbye to the server, which nobody needs to succeed. A restart says it on several connections, one
after the other, and where they are half-open each of them costs as long."""

_SSL_AND_TARGET: Final = (
    "krbsrvname", "gsslib", "passfile", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "ssl_max_protocol_version", "ssl_min_protocol_version", "target_session_attrs",
)  # fmt: skip


class AsyncPgChannelsBackend(PostgresChannelsBackend):
    """Talks to PostgreSQL through asyncpg.

    Args:
        dsn: Where to connect, as asyncpg takes it; may lead through a transaction pooler if ``listen_dsn`` is given.
        make_connection: Makes a connection, in place of ``dsn``; each one becomes ours and is closed by us.
        history: Events kept per channel; 0 keeps none, unless ``max_age`` is given, which alone then limits.
        max_age: Seconds after which an event is never delivered again; ``None`` for no limit.
        listen_dsn: A direct connection for LISTEN, where ``dsn`` leads through a transaction pooler.
        max_payload: The most bytes of one event.
        unlogged: Keep history in unlogged tables: faster, and a crash of the server empties all of it.
        prefix: Begins the names of notification channels, and is the schema's name.
        record_ttl: Seconds that a channel's last position outlives its history.

    Raises:
        ImproperlyConfigured: Neither or both of ``dsn`` and ``make_connection``, or a value out of range.
    """

    scheme: ClassVar = "postgresql+asyncpg"
    driver_parameters: ClassVar = (
        "application_name", "database", "dbname", "host", "options", "password", "port", "user", *_SSL_AND_TARGET,
    )  # fmt: skip

    def __init__(
        self,
        dsn: str | None = None,
        *,
        make_connection: Callable[[], Awaitable[Connection]] | None = None,
        history: int = 0,
        max_age: float | None = None,
        listen_dsn: str | None = None,
        max_payload: int = MIB,
        unlogged: bool = False,
        prefix: str = "channels",
        record_ttl: float = 30 * DAY,
    ) -> None:
        if (dsn is None) == (make_connection is None):
            raise ImproperlyConfigured("expected one of dsn and make_connection")
        options = Options(history, max_age, listen_dsn, max_payload, unlogged, prefix, record_ttl)
        super().__init__(AsyncPgDriver(dsn, make_connection, listen_dsn), options)

    @classmethod
    def _from_options(cls, dsn: str, options: Options) -> Self:
        return cls(dsn, **options.keywords())


class AsyncPgDriver(Driver):
    """Opens asyncpg connections."""

    def __init__(
        self,
        dsn: str | None,
        make_connection: Callable[[], Awaitable[Connection]] | None,
        listen_dsn: str | None,
    ) -> None:
        self._dsn: Final = dsn
        self._make_connection: Final = make_connection
        self._listen_dsn: Final = listen_dsn

    async def connect(self, *, listening: bool) -> Link:
        pooled = self._listen_dsn is not None and not listening
        with _translated():
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return AsyncPgLink(await self._open(pooled, listening), pooled=pooled)

    async def _open(self, pooled: bool, listening: bool) -> Connection:
        dsn = self._listen_dsn if listening and self._listen_dsn is not None else self._dsn
        if dsn is None:
            assert self._make_connection is not None, "the constructor demands one of both"
            return await self._make_connection()
        try:
            return await asyncpg.connect(dsn, statement_cache_size=0 if pooled else 100)
        except ValueError as exc:  # asyncpg's own configuration errors are ValueErrors, too
            raise InvalidURL(f"asyncpg cannot read {redact_url(dsn)!r}: {exc}") from exc


class AsyncPgLink(Link):
    """One asyncpg connection.

    Args:
        connection: Ours alone.
        pooled: Whether a transaction pooler may stand in between. asyncpg prepares a statement and runs it in two
            round trips, which such a pooler may send to two servers, unless they are in one transaction.
    """

    def __init__(self, connection: Connection, *, pooled: bool) -> None:
        self._connection: Final = connection
        self._pooled: Final = pooled
        self._on_notification: Callable[[str, str], None] | None = None

    @property
    def closed(self) -> bool:
        return self._connection.is_closed()

    async def fetch(self, statement: str, *arguments: Argument) -> Sequence[Row]:
        with _translated(self._connection):
            if not self._pooled:
                return await self._connection.fetch(statement, *arguments)
            await self._connection.execute("BEGIN")
            rows = await self._connection.fetch(statement, *arguments)
            await self._connection.execute("COMMIT")
            return rows

    async def run(self, script: str) -> None:
        with _translated(self._connection):
            await self._connection.execute(script)

    async def listen(self, names: Collection[str]) -> None:
        with _translated(self._connection):
            for name in names:
                await self._connection.add_listener(name, self._notified)

    async def unlisten(self, names: Collection[str]) -> None:
        with _translated(self._connection):
            for name in names:
                await self._connection.remove_listener(name, self._notified)

    def watch(self, on_notification: Callable[[str, str], None], on_lost: Callable[[], None]) -> None:
        self._on_notification = on_notification
        self._connection.add_termination_listener(lambda _connection: on_lost())

    def abort(self) -> None:
        self._connection.terminate()

    async def close(self) -> None:
        try:
            await self._connection.close(timeout=_CLOSE_TIMEOUT)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError):
            self._connection.terminate()

    def _notified(self, _connection: object, _pid: int, name: str, payload: object) -> None:
        if self._on_notification is not None:
            self._on_notification(name, str(payload))


@contextmanager
def _translated(connection: Connection | None = None) -> Iterator[None]:
    try:
        yield
    except asyncpg.InvalidCachedStatementError as exc:
        raise BackendConnectionError("the schema changed under a prepared statement") from exc
    except asyncpg.PostgresError as exc:
        raise error_of(exc.sqlstate, str(exc)) from exc
    except (asyncpg.InternalClientError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise _client_error(exc) from exc
    except AttributeError as exc:
        # A connection that is lost forgets its protocol, and a call between two of its round trips trips over that.
        if connection is None or not connection.is_closed():
            raise
        raise BackendConnectionError("the connection was lost in the middle of a call") from exc


def _client_error(exc: Exception) -> BackendConnectionError | BackendError:
    """Judge what the driver says on its own account.

    An `InterfaceError` is either a closed connection or a wrong use, which have one class; only the second is for good.
    """
    text = str(exc) or type(exc).__name__
    if isinstance(exc, (asyncpg.UnsupportedServerFeatureError, asyncpg.DataError)):
        return BackendError(text)
    return BackendConnectionError(text)
