"""Brokers for the integration tests, and the check that each test gives back what it took."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Final, get_args

import pytest

from channels_harness.brokers import Broker, PostgresChoice, RedisChoice, choose_postgres, choose_redis

RELEASE_TIMEOUT: Final = 10.0
"""Seconds for a server to notice that a client has closed its connection; only against hanging."""

BROKERS: Final = pytest.StashKey[dict[str, "LazyBroker"]]()


class LazyBroker:
    """A broker that is started once, when the header or a test asks for it."""

    def __init__(self, start: Callable[[], Broker]) -> None:
        self._start = start
        self._broker: Broker | None = None

    def get(self) -> Broker:
        if self._broker is None:
            self._broker = self._start()
        return self._broker

    def __str__(self) -> str:
        try:
            return str(self.get())
        except Exception as exc:
            # Nothing is skipped for want of a server: the tests that need it fail with this error.
            return f"NOT AVAILABLE, {type(exc).__name__}: {exc}"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("channels")
    group.addoption("--redis", choices=get_args(RedisChoice), default="auto", help="which Redis to start")
    group.addoption("--postgres", choices=get_args(PostgresChoice), default="auto", help="which PostgreSQL to start")


def pytest_configure(config: pytest.Config) -> None:
    stack = ExitStack()
    config.add_cleanup(stack.close)
    config.stash[BROKERS] = {
        "redis": LazyBroker(lambda: choose_redis(config.getoption("redis"), stack)),
        "postgres": LazyBroker(lambda: choose_postgres(config.getoption("postgres"), stack)),
    }


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.option.collectonly:
        return []
    return [f"{name} broker: {broker}" for name, broker in config.stash[BROKERS].items()]


@pytest.fixture(scope="session")
def redis_broker(pytestconfig: pytest.Config) -> Broker:
    return pytestconfig.stash[BROKERS]["redis"].get()


@pytest.fixture(scope="session")
def postgres_broker(pytestconfig: pytest.Config) -> Broker:
    return pytestconfig.stash[BROKERS]["postgres"].get()


@pytest.fixture(scope="session")
def redis_url(redis_broker: Broker) -> str:
    return redis_broker.url


@pytest.fixture(scope="session")
def postgres_url(postgres_broker: Broker) -> str:
    return postgres_broker.url


@pytest.fixture(autouse=True)
def connections_come_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, each broker that it used has as many connections as before."""
    names = {"redis_broker", "postgres_broker"} & set(request.fixturenames)
    brokers: list[Broker] = [request.getfixturevalue(name) for name in names]
    before = [len(broker.admin.connections()) for broker in brokers]
    yield
    for broker, count in zip(brokers, before, strict=True):
        wait_for_connections(broker, count)


def wait_for_connections(broker: Broker, most: int) -> None:
    """Be patient: a server closes its end a moment after the client."""
    deadline = time.monotonic() + RELEASE_TIMEOUT
    while (count := len(broker.admin.connections())) > most:
        assert time.monotonic() < deadline, f"{broker}: {count} connections, {most} before the test"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def tasks_come_back(request: pytest.FixtureRequest) -> None:
    """After each test, its event loop has no more tasks than before; a test without one is left alone."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("tasks_of_the_loop")


@pytest.fixture
async def tasks_of_the_loop() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
