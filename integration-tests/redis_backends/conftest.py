"""Started backends, and a server with users, for the tests of this folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from channels_core.registry import create_backend
from channels_core.testing.stage import Instance
from channels_harness import RedisServer
from channels_harness.brokers import backend_url

DEADLINE: Final = 20.0
"""Seconds for what must come; only against hanging."""

_numbers: Final = itertools.count()


@pytest.fixture
def channel() -> str:
    """Name a channel that nobody else uses."""
    return f"channel-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
async def start() -> AsyncIterator[Callable[[str], Awaitable[Instance]]]:
    """Start a backend from a URL; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(url: str) -> Instance:
            instance = Instance(create_backend(url), DEADLINE)
            stack.push_async_callback(instance.stop)
            await instance.start()
            return instance

        yield start


@pytest.fixture
def streams_url(redis_url: str) -> str:
    """The URL of the stream backend on the broker of this run."""
    return backend_url(redis_url, "streams", history=100)


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server with users of different rights and no open door."""
    with RedisServer("redis70") as server:
        yield server


@pytest.fixture
def user(guarded: RedisServer) -> Callable[..., str]:
    """Give the URL of a user with these rights."""

    def give(*rules: str, variant: str = "") -> str:
        with guarded.client() as client:
            execute: Any = client.execute_command
            execute("ACL", "SETUSER", "someone", "reset", "on", ">secret", *rules)
        return backend_url(f"redis://someone:secret@127.0.0.1:{guarded.port}/0", variant)

    return give
