"""The backend on psycopg 3, at the level of libpq.

psycopg's connection class holds a lock while it waits for notifications, and a cancelled call first asks the server
to cancel and waits for the answer, also when there is no server any more. Here one reader in the event loop serves
statements and notifications alike, and a cancelled call drops its connection at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Final, Self

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from channels_core.exceptions import BackendConnectionError, BackendError, InvalidURL
from channels_core.urls import redact_url
from channels_postgres._backend import PostgresChannelsBackend
from channels_postgres._driver import CONNECT_TIMEOUT, Argument, Driver, Link, Row
from channels_postgres._errors import error_of
from channels_postgres._options import DAY, MIB, Options
from channels_postgres._wire import BINARY, decode_row, encode_argument

__all__ = ("PsycoPgChannelsBackend",)

_BAD: Final = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


class PsycoPgChannelsBackend(PostgresChannelsBackend):
    """Talks to PostgreSQL through psycopg 3.

    Args:
        dsn: Where to connect, as libpq takes it; may lead through a transaction pooler if ``listen_dsn`` is given.
        history: Events kept per channel; 0 keeps none, unless ``max_age`` is given, which alone then limits.
        max_age: Seconds after which an event is never delivered again; ``None`` for no limit.
        listen_dsn: A direct connection for LISTEN, where ``dsn`` leads through a transaction pooler.
        max_payload: The most bytes of one event.
        unlogged: Keep history in unlogged tables: faster, and a crash of the server empties all of it.
        prefix: Begins the names of notification channels, and is the schema's name.
        record_ttl: Seconds that a channel's last position outlives its history.

    Raises:
        ImproperlyConfigured: A value is out of range.
    """

    scheme: ClassVar = "postgresql+psycopg"
    driver_parameters: ClassVar = (
        "application_name", "channel_binding", "client_encoding", "dbname", "fallback_application_name",
        "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "krbsrvname", "load_balance_hosts", "options",
        "passfile", "password", "port", "require_auth", "requirepeer", "service", "ssl_max_protocol_version",
        "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir", "sslkey",
        "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "target_session_attrs", "user",
    )  # fmt: skip

    def __init__(
        self,
        dsn: str,
        *,
        history: int = 0,
        max_age: float | None = None,
        listen_dsn: str | None = None,
        max_payload: int = MIB,
        unlogged: bool = False,
        prefix: str = "channels",
        record_ttl: float = 30 * DAY,
    ) -> None:
        options = Options(history, max_age, listen_dsn, max_payload, unlogged, prefix, record_ttl)
        super().__init__(PsycoPgDriver(dsn, listen_dsn or dsn), options)

    @classmethod
    def _from_options(cls, dsn: str, options: Options) -> Self:
        return cls(dsn, **options.keywords())


class PsycoPgDriver(Driver):
    """Opens psycopg connections and keeps their libpq part."""

    def __init__(self, dsn: str, listen_dsn: str) -> None:
        self._dsn: Final = dsn
        self._listen_dsn: Final = listen_dsn

    async def connect(self, *, listening: bool) -> Link:
        dsn = self._listen_dsn if listening else self._dsn
        with _translated(dsn):
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        return PqLink(connection)


class PqLink(Link):
    """One libpq connection, read and written by callbacks of the event loop."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection: Final = connection  # it would complain when collected before it is closed
        self._pgconn: Final = connection.pgconn
        self._socket: Final = self._pgconn.socket
        self._loop: Final = asyncio.get_running_loop()
        self._answer: asyncio.Future[list[PGresult]] | None = None
        self._results: list[PGresult] = []
        self._writing = False
        self._lost = False
        self._on_notification: Callable[[str, str], None] = lambda _name, _payload: None
        self._on_lost: Callable[[], None] = lambda: None
        self._loop.add_reader(self._socket, self._readable)

    @property
    def closed(self) -> bool:
        return self._lost

    async def fetch(self, statement: str, *arguments: Argument) -> Sequence[Row]:
        values = [encode_argument(each) for each in arguments]
        formats = [BINARY] * len(values)
        # Parsed, bound and run in one round trip, unnamed: nothing is left behind on a pooler's server.
        results = await self._ask(
            lambda: self._pgconn.send_query_params(statement.encode(), values, None, formats, BINARY)
        )
        return [decode_row(result, row) for result in results for row in range(result.ntuples)]

    async def run(self, script: str) -> None:
        await self._ask(lambda: self._pgconn.send_query(script.encode()))

    async def listen(self, names: Collection[str]) -> None:
        await self.run(";".join(f'LISTEN "{name}"' for name in names))

    async def unlisten(self, names: Collection[str]) -> None:
        await self.run(";".join(f'UNLISTEN "{name}"' for name in names))

    def watch(self, on_notification: Callable[[str, str], None], on_lost: Callable[[], None]) -> None:
        self._on_notification = on_notification
        self._on_lost = on_lost

    def abort(self) -> None:
        self._lose(BackendConnectionError("the connection was dropped"))

    async def close(self) -> None:
        self.abort()  # libpq says goodbye without waiting for anything

    async def _ask(self, send: Callable[[], None]) -> list[PGresult]:
        if self.closed:
            raise BackendConnectionError("the connection is closed")
        answer: asyncio.Future[list[PGresult]] = self._loop.create_future()
        self._answer = answer
        self._results = []
        try:
            send()
            self._flush()
        except psycopg.Error as exc:
            self._lose(BackendConnectionError(str(exc)))
        try:
            return await answer
        finally:
            self._answer = None

    def _flush(self) -> None:
        """Write what libpq holds; the reader stays on, because the server may wait for us to read."""
        pending = bool(self._pgconn.flush())
        if pending and not self._writing:
            self._loop.add_writer(self._socket, self._writable)
        elif self._writing and not pending:
            self._loop.remove_writer(self._socket)
        self._writing = pending

    def _writable(self) -> None:
        try:
            self._flush()
        except psycopg.Error as exc:
            self._lose(BackendConnectionError(str(exc)))

    def _readable(self) -> None:
        try:
            self._pgconn.consume_input()
            self._read_notifications()
            self._read_results()
        except psycopg.Error as exc:
            self._lose(BackendConnectionError(str(exc)))

    def _read_notifications(self) -> None:
        while (notification := self._pgconn.notifies()) is not None:
            self._on_notification(_text(notification.relname), _text(notification.extra))

    def _read_results(self) -> None:
        while self._answer is not None and not self._answer.done() and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._results.append(result)
            else:
                self._settle(self._answer)
        # What came behind the last result was parsed only now, and will not make the socket readable again.
        self._read_notifications()

    def _settle(self, answer: asyncio.Future[list[PGresult]]) -> None:
        failed = next((result for result in self._results if result.status in _BAD), None)
        if failed is None:
            answer.set_result(self._results)
        else:
            answer.set_exception(_error_in(failed))

    def _lose(self, error: BackendConnectionError) -> None:
        if self._lost:
            return
        self._lost = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._pgconn.finish()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._on_lost()


@contextmanager
def _translated(dsn: str) -> Iterator[None]:
    try:
        yield
    except psycopg.ProgrammingError as exc:
        raise InvalidURL(f"psycopg cannot read {redact_url(dsn)!r}: {exc}") from exc
    except psycopg.Error as exc:
        raise _connect_error(exc) from exc
    except (OSError, TimeoutError) as exc:
        raise BackendConnectionError(str(exc) or "no connection in time") from exc


_REFUSALS: Final = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "is not permitted to log in": "28000",
    "authentication failed": "28000",
    "permission denied for database": "42501",
}
"""What libpq says in words where it gives no SQLSTATE, which is so until the connection stands."""


def _connect_error(error: psycopg.Error) -> BackendConnectionError | BackendError:
    text = str(error)
    sqlstate = error.sqlstate or next((state for words, state in _REFUSALS.items() if words in text), None)
    if sqlstate is None and "FATAL" in text and "does not exist" in text:
        sqlstate = "28000" if " role " in text else "3D000"
    return error_of(sqlstate, text)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _error_in(result: PGresult) -> BackendConnectionError | BackendError:
    sqlstate = result.error_field(DiagnosticField.SQLSTATE)
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return error_of(_text(sqlstate) if sqlstate else None, _text(message))
