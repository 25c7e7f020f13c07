"""Running several calls at once."""

from __future__ import annotations

import asyncio

import pytest

from channels_redis._settle import settle


async def test_all_results_come_in_order() -> None:
    """Results stand where their calls stood, whichever ended first."""

    async def give(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await settle(give(turns) for turns in (3, 1, 2)) == [3, 1, 2]
    assert await settle(()) == []


async def test_a_single_call_needs_no_task() -> None:
    """A call that is alone runs in its caller's task: joining a channel pays for each turn of the event loop."""

    async def who() -> asyncio.Task[object] | None:
        return asyncio.current_task()

    assert await settle([who()]) == [asyncio.current_task()]


async def test_an_error_waits_for_the_siblings() -> None:
    """No call is left behind when another one fails."""
    ended: list[str] = []

    async def fail() -> None:
        raise OSError("broken")

    async def take_long() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.append("long")

    with pytest.raises(OSError, match="broken"):
        await settle([fail(), take_long()])
    assert ended == ["long"]
