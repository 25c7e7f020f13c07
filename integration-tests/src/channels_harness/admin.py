"""Looking at a running broker, and breaking it from the inside."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import psycopg
import redis

from channels_harness.redis_server import server_version

__all__ = ("Admin", "PostgresAdmin", "RedisAdmin")

_TIMEOUT: Final = 5
"""Seconds for connecting and for a command: a paused server must not hang the test run."""


class Admin(ABC):
    """What tests do to a broker that an application would not do. Blocking; own short-lived connections."""

    @abstractmethod
    def version(self) -> str:
        """Return the server's name and version."""

    @abstractmethod
    def connections(self) -> list[int]:
        """Return the client-side ports of all connections but ours, as far as they are on TCP; 0 for others."""

    @abstractmethod
    def cut(self, ports: Collection[int] | None = None) -> int:
        """End the clients' connections, all of them or those from these client-side ports; returns how many."""


class RedisAdmin(Admin):
    """Works on all primaries of a Redis broker.

    Args:
        clients: Returns a new client for each primary.
    """

    def __init__(self, clients: Callable[[], list[redis.Redis]]) -> None:
        self._clients = clients

    @classmethod
    def from_url(cls, url: str) -> RedisAdmin:
        """Work on one server: ``redis://`` or ``rediss://``."""
        return cls(lambda: [redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)])

    @contextlib.contextmanager
    def clients(self) -> Iterator[list[redis.Redis]]:
        """Give a client for each primary, closed at the end."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(client) for client in self._clients()]

    def version(self) -> str:
        with self.clients() as clients:
            return server_version(clients[0])

    def connections(self) -> list[int]:
        with self.clients() as clients:
            return [_port(row) for client in clients for row in _others(client)]

    def cut(self, ports: Collection[int] | None = None) -> int:
        with self.clients() as clients:
            return sum(_kill(client, ports) for client in clients)

    def flush(self) -> None:
        """Let the broker forget everything."""
        with self.clients() as clients:
            for client in clients:
                client.flushall()

    def keys(self) -> set[bytes]:
        """Return the names of all keys."""
        with self.clients() as clients:
            return {key for client in clients for key in client.scan_iter(count=1_000)}


class PostgresAdmin(Admin):
    """Works on one PostgreSQL server; its user must be a superuser.

    Args:
        url: The database.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> psycopg.Connection:
        """Return a new blocking connection in autocommit mode, to be closed by the caller."""
        return psycopg.connect(self._url, autocommit=True, connect_timeout=_TIMEOUT)

    def version(self) -> str:
        return f"PostgreSQL {str(self._rows('SHOW server_version')[0][0]).split()[0]}"

    def connections(self) -> list[int]:
        return [int(port or 0) for _, port in self._others()]

    def cut(self, ports: Collection[int] | None = None) -> int:
        pids = [pid for pid, port in self._others() if ports is None or port in ports]
        return len(self._rows("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", pids))

    @contextlib.contextmanager
    def open_transaction(self, *statements: str) -> Iterator[psycopg.Connection]:
        """Keep a transaction open that has executed these statements; roll it back at the end."""
        connection = psycopg.connect(self._url, connect_timeout=_TIMEOUT)
        with contextlib.closing(connection):
            connection.execute("SELECT pg_current_xact_id()")
            for statement in statements:
                connection.execute(statement.encode())
            yield connection
            connection.rollback()

    def roll_back(self, *statements: str) -> None:
        """Execute these statements in a transaction that is rolled back."""
        with self.open_transaction(*statements):
            pass

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        with self.connect() as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return f"{self._url.rpartition('/')[0]}/{name}"

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        with self.connect() as connection:
            statement = psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(psycopg.sql.Identifier(name)))

    def _others(self) -> list[tuple[int, int | None]]:
        rows = self._rows(
            "SELECT pid, client_port FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return [(int(pid), port) for pid, port in rows]

    def _rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement.encode(), parameters).fetchall()


def _others(client: redis.Redis) -> list[dict[str, str]]:
    """Return the rows of CLIENT LIST that are neither ours nor a replication link."""
    own = client.client_id()
    rows: Any = [*client.client_list("normal"), *client.client_list("pubsub")]
    return [row for row in rows if int(row["id"]) != own]


def _kill(client: redis.Redis, ports: Collection[int] | None) -> int:
    ids = [row["id"] for row in _others(client) if ports is None or _port(row) in ports]
    return sum(client.client_kill_filter(_id=identifier) for identifier in ids)


def _port(row: dict[str, str]) -> int:
    return int(row["addr"].rpartition(":")[2])
