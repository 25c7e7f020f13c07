from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
from throwaway import Installer

from channels_core._memory_broker import MemoryBroker
from channels_core._runtime import Runtime


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    return Installer(tmp_path / "throwaway", monkeypatch)


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> None:
    """Check after every asynchronous test that tasks, subscribers and broker connections are where they were."""
    if iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_nothing_left")


@pytest.fixture
async def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    runtimes = _record(monkeypatch, Runtime)
    brokers = _record(monkeypatch, MemoryBroker)
    yield
    for _ in range(5):  # what was cancelled last may still have to see it
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"
    assert not [broker._receivers for broker in brokers if broker._receivers], "broker connections left"
    for runtime in runtimes:
        assert not runtime.subscribers, "subscribers left"
        assert not len(runtime.router), "channels left"


def _record(monkeypatch: pytest.MonkeyPatch, cls: type[Any]) -> list[Any]:
    """Return a list that gets every instance made from now on."""
    made: list[Any] = []
    init: Callable[..., None] = cls.__init__

    def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(cls, "__init__", recording)
    return made
