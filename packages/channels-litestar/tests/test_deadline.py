from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels_litestar._deadline import SendDeadline


class Client:
    """Takes messages as long as its gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.taken: list[Any] = []

    async def send(self, message: Any) -> None:
        await self.gate.wait()
        self.taken.append(message)


async def test_a_message_that_is_not_taken_in_time_fails() -> None:
    """Only the message that waits too long fails, whatever was taken before it."""
    client, deadline = Client(), SendDeadline(0.05)
    for number in range(100):
        await deadline.send(client.send, number)
    client.gate.clear()
    with pytest.raises(TimeoutError, match="was not taken within"):
        await deadline.send(client.send, "stuck")
    client.gate.set()
    await deadline.send(client.send, "again")
    assert client.taken == [*range(100), "again"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_message_has_all_of_its_time_though_others_were_sent_just_before() -> None:
    """The timer of an earlier message is not the end of a later one's time."""
    client, deadline = Client(), SendDeadline(0.25)
    for _ in range(4):
        client.gate.clear()
        asyncio.get_running_loop().call_later(0.1, client.gate.set)
        await deadline.send(client.send, "slow")
    assert client.taken == ["slow"] * 4


async def test_a_cancellation_from_outside_stays_one() -> None:
    """Who cancels the task is not told of a timeout."""
    client, deadline = Client(), SendDeadline(60)
    client.gate.clear()
    sending = asyncio.create_task(deadline.send(client.send, "x"))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_without_a_limit_there_is_no_timer() -> None:
    """``None`` waits as long as it takes."""
    client, deadline = Client(), SendDeadline(None)
    await deadline.send(client.send, "x")
    assert deadline._timer is None
    assert client.taken == ["x"]


async def test_no_timer_outlives_the_connection() -> None:
    """Who sends nothing more leaves nothing in the event loop."""
    client, deadline = Client(), SendDeadline(60)
    await deadline.send(client.send, "x")
    timer = deadline._timer
    assert timer is not None
    deadline.close()
    assert timer.cancelled()
    deadline.close()
