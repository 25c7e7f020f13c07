from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def race(*coroutines: Coroutine[object, object, T]) -> T:
    """Run coroutines at once and return what the first one to end returns, or raise what it raised.

    The others are cancelled and have ended when this returns. Of several that end in the same turn of the loop,
    the one that was named first counts.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ended[0].result()
