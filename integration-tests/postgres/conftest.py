"""Both backends on one server, each test with a backend of its own."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from channels_core.backend import ChannelsBackend
from channels_core.registry import create_backend
from channels_harness.brokers import backend_url
from channels_postgres._backend import PostgresChannelsBackend

from .support import MakeBackend

_RUN: Final = secrets.token_hex(4)
_numbers: Final = itertools.count()


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Name the driver."""
    return str(request.param)


@pytest.fixture
def channel() -> str:
    """Name a channel that nobody else uses."""
    return f"channel-{_RUN}-{next(_numbers)}"


@pytest.fixture
async def make_backend(driver: str, postgres_url: str) -> AsyncIterator[MakeBackend]:
    """Start a backend from URL options; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def make(url: str = postgres_url, **options: Any) -> PostgresChannelsBackend:
            backend = create_backend(backend_url(url, driver, **options))
            assert isinstance(backend, PostgresChannelsBackend)
            stack.push_async_callback(backend.on_shutdown)
            await backend.on_startup()
            return backend

        yield make


@pytest.fixture
async def backend(make_backend: MakeBackend) -> ChannelsBackend:
    """Start a backend without history."""
    return await make_backend()
