"""`publish_in` and `top_in` on connections as applications configure them, and on what is no connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import psycopg
import pytest
from psycopg import rows
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from channels_core.backend import ChannelsBackend
from channels_core.events import ORIGIN
from channels_core.exceptions import ImproperlyConfigured
from channels_postgres._backend import PostgresChannelsBackend

from .support import MakeBackend, Reader
from .test_history import LIBRARIES


@dataclass
class Order:
    """A row of an application."""

    id: int


ROW_FACTORIES: Final[dict[str, Any]] = {
    "tuple": rows.tuple_row,
    "dict": rows.dict_row,
    "namedtuple": rows.namedtuple_row,
    "scalar": rows.scalar_row,
    "class": rows.class_row(Order),
    "args": rows.args_row(Order),
    "kwargs": rows.kwargs_row(Order),
}

CURSORS: Final[dict[str, Any]] = {
    "client": psycopg.AsyncClientCursor,
    "raw": psycopg.AsyncRawCursor,
}


@pytest.fixture
def driver() -> str:
    """Use one driver: on a connection of the caller's the backend's own does nothing."""
    return "asyncpg"


@pytest.fixture(params=[0, 100], ids=["without history", "with history"])
async def backend(make_backend: MakeBackend, request: pytest.FixtureRequest) -> PostgresChannelsBackend:
    return await make_backend(history=request.param)


@pytest.mark.parametrize("rows_as", ROW_FACTORIES)
async def test_whatever_rows_the_application_has(
    backend: PostgresChannelsBackend, postgres_url: str, channel: str, rows_as: str
) -> None:
    """Publishing and positions work, and the connection keeps its row factory."""
    row_factory = ROW_FACTORIES[rows_as]
    connection = await psycopg.AsyncConnection.connect(postgres_url, row_factory=row_factory)
    async with connection:
        await use(backend, connection, channel)
        assert connection.row_factory is row_factory


@pytest.mark.parametrize("cursor", CURSORS)
async def test_whatever_cursors_the_application_has(
    backend: PostgresChannelsBackend, postgres_url: str, channel: str, cursor: str
) -> None:
    """Publishing and positions work, and the connection keeps its cursor factory."""
    cursor_factory = CURSORS[cursor]
    connection = await psycopg.AsyncConnection.connect(postgres_url, cursor_factory=cursor_factory)
    async with connection:
        await use(backend, connection, channel)
        assert connection.cursor_factory is cursor_factory


async def use(backend: PostgresChannelsBackend, connection: psycopg.AsyncConnection[Any], channel: str) -> None:
    """Publish twice in a transaction of this connection, receive it, and ask for positions there."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish_in(connection, b"\0 first", [channel])
        await backend.publish_in(connection, b"second", [channel])
        await connection.commit()
        events = await reader.take(2)
        if backend.keeps_history:
            assert await backend.top_in(connection, channel) == events[-1].position
            assert await backend.top_in(connection, f"{channel}-silent") == ORIGIN
    assert [event.data for event in events] == [b"\0 first", b"second"]


async def test_a_rollback_with_rows_of_a_class(
    backend: PostgresChannelsBackend, postgres_url: str, channel: str
) -> None:
    """Also on a connection that makes objects of rows the event is part of the transaction."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        async with await psycopg.AsyncConnection.connect(postgres_url, row_factory=rows.class_row(Order)) as connection:
            await backend.publish_in(connection, b"never", [channel])
            await connection.rollback()
        await backend.publish(b"sentinel", [channel])
        assert (await reader.next()).data == b"sentinel"


Opener = Callable[[AsyncExitStack, str], Awaitable[object]]


async def asyncpg_pool(stack: AsyncExitStack, url: str) -> object:
    return await stack.enter_async_context(asyncpg.create_pool(url, min_size=1, max_size=1))


async def psycopg_connection(stack: AsyncExitStack, url: str) -> object:
    return stack.enter_context(psycopg.connect(url))


async def psycopg_cursor(stack: AsyncExitStack, url: str) -> object:
    connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url))
    return await stack.enter_async_context(connection.cursor())


async def async_engine(stack: AsyncExitStack, url: str) -> object:
    engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    stack.push_async_callback(engine.dispose)
    return engine


async def session_maker(stack: AsyncExitStack, url: str) -> object:
    engine: Any = await async_engine(stack, url)
    return async_sessionmaker(engine)


async def blocking_connection(stack: AsyncExitStack, url: str) -> object:
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    stack.callback(engine.dispose)
    return stack.enter_context(engine.connect())


NO_CONNECTIONS: Final[dict[str, Opener]] = {
    "asyncpg.Pool": asyncpg_pool,
    "psycopg.Connection": psycopg_connection,
    "psycopg.AsyncCursor": psycopg_cursor,
    "AsyncEngine": async_engine,
    "async_sessionmaker": session_maker,
    "sqlalchemy.Connection": blocking_connection,
}


@pytest.mark.parametrize("kind", NO_CONNECTIONS)
async def test_what_has_no_transaction_of_the_caller_is_refused(
    backend: PostgresChannelsBackend, postgres_url: str, channel: str, kind: str
) -> None:
    """A pool or an engine would publish outside the caller's transaction: refused in words, and nothing is sent."""
    async with Reader(backend) as reader, AsyncExitStack() as stack:
        await backend.subscribe([channel])
        handle = await NO_CONNECTIONS[kind](stack, postgres_url)
        with pytest.raises(ImproperlyConfigured, match="expected a connection of asyncpg"):
            await backend.publish_in(handle, b"never", [channel])
        if backend.keeps_history:
            with pytest.raises(ImproperlyConfigured, match="expected a connection of asyncpg"):
                await backend.top_in(handle, channel)
        await backend.publish(b"sentinel", [channel])
        assert (await reader.next()).data == b"sentinel"


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        yield pool


async def test_a_connection_lent_by_a_pool(backend: PostgresChannelsBackend, pool: asyncpg.Pool, channel: str) -> None:
    """A connection out of a pool is as good as any: the event is part of its transaction, and the pool goes on."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await backend.publish_in(connection, b"never", [channel])
            await transaction.rollback()
        async with pool.acquire() as connection, connection.transaction():
            await backend.publish_in(connection, b"committed", [channel])
        assert (await reader.next()).data == b"committed"


@pytest.fixture
async def keeping(make_backend: MakeBackend) -> PostgresChannelsBackend:
    """Start a backend with history."""
    return await make_backend(history=100)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_the_position_of_the_callers_snapshot(
    keeping: PostgresChannelsBackend, postgres_url: str, channel: str, library: str
) -> None:
    """In one REPEATABLE READ transaction of any library the position stays, whatever others or it itself publish."""
    backend, begin = keeping, LIBRARIES[library]
    async with begin(postgres_url) as connection:
        assert await backend.top_in(connection, channel) == ORIGIN
    await backend.publish(b"1", [channel])
    async with begin(postgres_url) as connection:
        await execute(library, connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        position = await backend.top_in(connection, channel)
        assert {channel: position} == await backend.get_tops([channel])
        await backend.publish(b"2", [channel])
        assert await backend.top_in(connection, channel) == position
        await backend.publish_in(connection, b"elsewhere", [f"{channel}-other"])
        assert await backend.top_in(connection, f"{channel}-other") == ORIGIN
    assert position.offset == 1
    await follows(backend, channel, b"2")
    async with begin(postgres_url) as connection:
        assert (await backend.top_in(connection, channel)).offset == 2
        assert (await backend.top_in(connection, f"{channel}-other")).offset == 1


async def execute(library: str, connection: Any, statement: str) -> None:
    await connection.execute(statement if library in ("asyncpg", "psycopg") else text(statement))


async def follows(backend: ChannelsBackend, channel: str, data: bytes) -> None:
    """Check that this is the newest event."""
    async with asyncio.timeout(10):
        history = await backend.get_history(channel, 1)
    assert [event.data for event in history.events] == [data]
