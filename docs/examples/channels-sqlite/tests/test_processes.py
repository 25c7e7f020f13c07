"""Several processes share one file."""

import asyncio
import sys
from pathlib import Path

import pytest

from channels_core import ChannelsPlugin, Event
from channels_core.testing import Checker

PROCESSES = 3
EVENTS = 100

PUBLISHER = """
import asyncio, sys
from channels_core import ChannelsPlugin

async def main(url, name, count):
    async with ChannelsPlugin(url, channels=["shared"]) as channels:
        for number in range(count):
            await channels.wait_published(f"{name}:{number}", "shared")

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.parametrize("history", [0, 1000])
def test_events_of_three_processes_reach_a_fourth(tmp_path: Path, history: int) -> None:
    """Nothing is lost, duplicated or reordered between processes, and where history is kept, it says the same."""
    asyncio.run(_publish_and_check(f"sqlite:///{tmp_path / 'events.db'}?history={history}", history))


async def _publish_and_check(url: str, history: int) -> None:
    checker = Checker()
    checker.joined("here", "shared")
    async with ChannelsPlugin(url, channels=["shared"]) as channels, channels.subscribe("shared") as subscriber:
        processes = [await _start(url, name) for name in "abc"]
        for name in "abc":
            for number in range(EVENTS):
                checker.published("shared", f"{name}:{number}".encode(), publisher=name)
        received = [await asyncio.wait_for(anext(subscriber), 30) for _ in range(PROCESSES * EVENTS)]
        assert [await process.wait() for process in processes] == [0] * PROCESSES
        for item in received:
            checker.item("here", item)
        if history:
            assert await channels.get_history("shared") == received
    assert all(isinstance(item, Event) for item in received)
    checker.verify()


async def _start(url: str, name: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", PUBLISHER, url, name, str(EVENTS))
