from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from live_site import eventually


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    """After each test the event loop has the tasks that it had before."""
    before = asyncio.all_tasks()
    yield
    await eventually(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})
