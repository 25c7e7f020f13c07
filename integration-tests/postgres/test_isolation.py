"""Publishing under REPEATABLE READ and SERIALIZABLE: whoever runs the transaction again publishes once."""

from __future__ import annotations

import asyncio
from typing import Final

import psycopg
import pytest
from psycopg import IsolationLevel

from channels_core.backend import ChannelsBackend
from channels_core.events import Position

from .support import DEADLINE, MakeBackend, Reader

WRITERS: Final = 6
TRANSACTIONS: Final = 5


@pytest.fixture
async def backend(make_backend: MakeBackend) -> ChannelsBackend:
    return await make_backend(history=1_000)


@pytest.fixture(params=[IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE], ids=lambda level: level.name)
def level(request: pytest.FixtureRequest) -> IsolationLevel:
    """Choose the isolation level of the callers."""
    return IsolationLevel(request.param)


async def connect(url: str, level: IsolationLevel) -> psycopg.AsyncConnection:
    connection = await psycopg.AsyncConnection.connect(url)
    await connection.set_isolation_level(level)
    return connection


async def test_a_transaction_that_runs_again_publishes_once(
    backend: ChannelsBackend, postgres_url: str, channel: str, level: IsolationLevel
) -> None:
    """A commit that fails with 40001 publishes nothing, to none of its channels; the same transaction works again."""
    names = [channel, f"{channel}-second"]
    async with Reader(backend) as reader, await connect(postgres_url, level) as connection:
        await backend.subscribe(names)
        for name in names:
            await connection.execute("SELECT channels.publish(%s, 'caller')", [name])
        await backend.publish(b"faster", names[1:])
        with pytest.raises(psycopg.errors.SerializationFailure):
            await connection.commit()
        await connection.rollback()
        for name in names:
            await connection.execute("SELECT channels.publish(%s, 'caller')", [name])
        await connection.commit()
        await backend.publish(b"end", names)
        events = await reader.take(5)
    assert [(event.data, offset_of(event.position)) for event in events if event.channel == names[0]] == [
        (b"caller", 1), (b"end", 2),
    ]  # fmt: skip
    assert [(event.data, offset_of(event.position)) for event in events if event.channel == names[1]] == [
        (b"faster", 1), (b"caller", 2), (b"end", 3),
    ]  # fmt: skip


def offset_of(position: Position | None) -> int:
    assert position is not None
    return position.offset


class Writers:
    """Transactions that begin at once, on one channel, each run again until it commits."""

    def __init__(self, url: str, channel: str, level: IsolationLevel) -> None:
        self._url: Final = url
        self._channel: Final = channel
        self._level: Final = level
        self._all_published: Final = asyncio.Barrier(WRITERS)
        self.failures = 0

    async def write(self, writer: int) -> None:
        async with await connect(self._url, self._level) as connection:
            for turn in range(TRANSACTIONS):
                wait = turn == 0  # so that all of them have a snapshot before anybody commits
                while not await self._committed(connection, f"{writer}.{turn}", wait=wait):
                    self.failures += 1
                    wait = False

    async def _committed(self, connection: psycopg.AsyncConnection, data: str, *, wait: bool) -> bool:
        try:
            await connection.execute("SELECT channels.publish(%s, %s)", [self._channel, data])
            if wait:
                await self._all_published.wait()
            await connection.commit()
        except psycopg.errors.SerializationFailure:
            await connection.rollback()
            return False
        return True


async def test_writers_that_fail_and_try_again(
    backend: ChannelsBackend, postgres_url: str, channel: str, level: IsolationLevel
) -> None:
    """However many attempts fail, each event comes once, with consecutive offsets, in the order of its writer."""
    writers = Writers(postgres_url, channel, level)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*map(writers.write, range(WRITERS)))
        await backend.publish(b"end", [channel])
        events = await reader.take(WRITERS * TRANSACTIONS + 1)
    assert writers.failures >= WRITERS - 1
    assert [offset_of(event.position) for event in events] == list(range(1, WRITERS * TRANSACTIONS + 2))
    assert events[-1].data == b"end"
    for writer in range(WRITERS):
        own = [event.data for event in events if event.data.startswith(b"%d." % writer)]
        assert own == [b"%d.%d" % (writer, turn) for turn in range(TRANSACTIONS)]
