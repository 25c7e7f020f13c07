from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from live_site import SpiedSubscriber, eventually

from channels_core.subscriber import Subscriber


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    """After each test the event loop has the tasks that it had before."""
    before = asyncio.all_tasks()
    yield
    await eventually(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})


@pytest.fixture
def spied() -> Iterator[list[Subscriber]]:
    """The subscribers of plugins that were made with ``subscriber_class=SpiedSubscriber``, in order."""
    SpiedSubscriber.made.clear()
    yield SpiedSubscriber.made
    SpiedSubscriber.made.clear()
