"""Asking several servers at once."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from channels_core.exceptions import BackendConnectionError, BackendError
from channels_redis._topology import first_answer


async def give(answer: str) -> str:
    return answer


async def fail(error: Exception) -> str:
    raise error


async def test_an_error_that_comes_with_an_answer_is_no_complaint_of_the_loop() -> None:
    """Servers that end in the same turn: the answer counts, and the loop hears nothing of the errors."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for _ in range(20):  # which of them is looked at first is not ours to say
        asking = [fail(BackendConnectionError("gone")), give("yes"), fail(BackendConnectionError("gone"))]
        assert await first_answer(asking) == "yes"
    gc.collect()
    assert complaints == []


async def test_without_an_answer_a_refusal_says_more_than_an_absence() -> None:
    """A server that refuses explains what to do; one that is away may just be restarting."""
    with pytest.raises(BackendError, match="no such service"):
        await first_answer([fail(BackendConnectionError("gone")), fail(BackendError("no such service"))])
    with pytest.raises(BackendConnectionError, match="gone"):
        await first_answer([fail(BackendConnectionError("gone"))])
