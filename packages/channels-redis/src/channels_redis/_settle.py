"""Run several calls at once and leave none of them behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

__all__ = ("settle",)

ResultT = TypeVar("ResultT")


async def settle(calls: Iterable[Awaitable[ResultT]]) -> list[ResultT]:
    """Return all results; raise the first error only after every call has ended.

    A call that went on after its sibling failed could open a connection that nobody closes, or publish behind its own
    retry.
    """
    works = list(calls)
    if len(works) == 1:
        # No task: three turns of the event loop are most of what joining one channel costs beside the round trip.
        return [await works[0]]
    results: list[ResultT] = []
    for answer in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        results.append(answer)
    return results
