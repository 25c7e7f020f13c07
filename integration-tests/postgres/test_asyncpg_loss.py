"""asyncpg's connections that end while a call is under way."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from channels_core.exceptions import BackendConnectionError
from channels_postgres.asyncpg import AsyncPgDriver

DEADLINE = 60.0


@pytest.mark.parametrize("statement", ["SELECT $1::text[]", "SELECT $1::pg_catalog.bytea[]", "SELECT pg_sleep(0)"])
async def test_a_call_that_its_connection_leaves_may_be_retried(postgres_url: str, statement: str) -> None:
    """In whatever turn of the loop a connection ends, the call says that it is lost, and is never refused for good."""
    driver = AsyncPgDriver(postgres_url, None, None)
    arguments = (["x"],) if "text" in statement else ([b"x"],) if "bytea" in statement else ()
    lost = 0
    async with asyncio.timeout(DEADLINE):
        for turns in count():
            link = await driver.connect(listening=False)
            fetching = asyncio.ensure_future(link.fetch(statement, *arguments))
            for _ in range(turns):
                await asyncio.sleep(0)
            answered = fetching.done()
            link.abort()
            await asyncio.wait([fetching])
            if answered:
                break
            assert fetching.exception() is None or isinstance(fetching.exception(), BackendConnectionError)
            lost += fetching.exception() is not None
    assert lost
