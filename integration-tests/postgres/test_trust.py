"""Who may do what, and whose functions run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from channels_core.events import Position
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker
from channels_postgres._backend import PostgresChannelsBackend
from channels_postgres._log import LogSession
from channels_postgres._schema import grants, schema_script

from .support import MakeBackend, Reader

EXECUTABLE = """
SELECT DISTINCT proname FROM pg_proc
WHERE pronamespace = 'channels'::regnamespace AND has_function_privilege(%s, oid, 'EXECUTE')
"""

FORBIDDEN = (
    "SELECT channels.trim(1, 0.001, 0.001, 1000000)",
    "SELECT channels.append('{a}', '{1}', '{x}')",
    "SELECT channels.publish_batch('', '{a}', '{1}', '{1}', '{x}')",
    "SELECT channels.incarnation()",
    "SELECT channels.channel_hash('a')",
    "SELECT FROM channels.events",
    "INSERT INTO channels.pending (channel, payload, leader) VALUES ('a', 'x', false)",
)


@pytest.fixture
def server(postgres_broker: Broker) -> PostgresAdmin:
    return PostgresAdmin(postgres_broker.url)


@pytest.fixture
def database(server: PostgresAdmin, channel: str, driver: str) -> Iterator[str]:
    name = f"db_{driver}_{channel.replace('-', '_')}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """Connect as the superuser that owns everything."""
    with closing(PostgresAdmin(database).connect()) as connection:
        yield connection


@pytest.fixture
def role(owner: psycopg.Connection, driver: str, channel: str) -> Iterator[str]:
    """Create a role that may log in and do what everybody may."""
    name = f"role_{driver}_{channel.replace('-', '_')}"
    owner.execute(f"CREATE ROLE {name} LOGIN".encode())
    yield name
    owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.fixture
def url(database: str, role: str) -> str:
    """Return the URL under which the role connects."""
    return database.replace("postgres@", f"{role}@")


def test_usage_lets_a_role_publish_and_no_more(owner: psycopg.Connection, role: str, url: str, channel: str) -> None:
    """With USAGE on the schema a role publishes in SQL; it cannot trim, number, read, or pass for a backend."""
    owner.execute(schema_script().encode())
    owner.execute(f"GRANT USAGE ON SCHEMA channels TO {role}".encode())
    assert {name for (name,) in owner.execute(EXECUTABLE, [role])} == {"publish", "publish_bytes", "top"}
    with closing(PostgresAdmin(url).connect()) as connection:
        connection.execute("SELECT channels.publish(%s, 'text')", [channel])
        connection.execute("SELECT channels.publish(%s, 'bytes'::bytea)", [channel])
        top = connection.execute("SELECT channels.top(%s)", [channel]).fetchone()
        assert top is not None
        assert Position.parse(top[0]).offset == 2
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_without_usage_nobody_publishes(owner: psycopg.Connection, url: str) -> None:
    """A role without USAGE cannot even publish."""
    owner.execute(schema_script().encode())
    with closing(PostgresAdmin(url).connect()) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT channels.publish('a', 'x')")


@pytest.mark.parametrize("strict", [False, True], ids=["functions are public", "functions are not public"])
async def test_the_grants_suffice(
    make_backend: MakeBackend, owner: psycopg.Connection, role: str, url: str, channel: str, strict: bool
) -> None:
    """With what `--grant` prints a role can do all that a backend does, whatever default privileges there are."""
    if strict:
        owner.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    owner.execute(schema_script().encode())
    owner.execute(grants(role).encode())
    backend = await make_backend(url, history=10)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(b"1", [channel], key=("lane", 1))
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await backend.publish_in(connection, b"2", [channel])
            await connection.execute("SELECT channels.publish(%s, '3')", [channel])
            await connection.execute("SELECT channels.publish(%s, '4'::bytea)", [channel])
            await connection.commit()
            assert (await backend.top_in(connection, channel)).offset == 4
            await connection.execute("SELECT channels.top(%s)", [channel])
        events = await reader.take(4)
    assert [event.data for event in events] == [b"1", b"2", b"3", b"4"]
    assert (await backend.get_history(channel)).events == events
    await trim(backend)


async def trim(backend: PostgresChannelsBackend) -> None:
    """Do what the backend does every minute."""
    session = backend._session
    assert isinstance(session, LogSession)
    await session.trim()


def test_shadowing_functions_are_not_called(owner: psycopg.Connection, role: str, url: str, channel: str) -> None:
    """Functions of others, in the caller's search_path, do not run in place of the server's."""
    owner.execute(schema_script().encode())
    owner.execute(f"GRANT USAGE ON SCHEMA channels TO {role}; GRANT CREATE ON SCHEMA public TO {role}".encode())
    with closing(PostgresAdmin(url).connect()) as connection:
        connection.execute(
            "CREATE FUNCTION public.convert_to(text, text) RETURNS bytea LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'somebody else is called'; END $$"
        )
        for path in ("public, pg_catalog", "pg_catalog, public"):
            connection.execute(f"SET search_path = {path}".encode())
            connection.execute("SELECT channels.publish(%s, 'text')", [channel])
            connection.execute("SELECT channels.publish(%s, 'bytes'::bytea)", [channel])


async def test_without_history_connecting_suffices(
    make_backend: MakeBackend, owner: psycopg.Connection, role: str, url: str, channel: str
) -> None:
    """A role that may only connect publishes and receives notifications."""
    name = owner.info.dbname
    owner.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {role}".encode())
    owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    backend = await make_backend(url)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(b"x", [channel])
        assert (await reader.next()).data == b"x"
