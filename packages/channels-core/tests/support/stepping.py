"""Cancel a coroutine at each place where it waits, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class Stepper(Generic[T]):
    """Awaits something, and calls back when it waits for the n-th time.

    Args:
        work: What to await.
        number: At which suspension, from 1.
        late: Call when what it waits for has just happened, instead of at once: the nastiest moment for a
            cancellation, because the result is there and is never taken.
        act: What to do then.
    """

    def __init__(self, work: Awaitable[T], number: int, act: Callable[[], object], *, late: bool) -> None:
        self._work: Final = work
        self._number: Final = number
        self._act: Final = act
        self._late: Final = late
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._work.__await__()
        answer: Any = None
        throw: BaseException | None = None
        while True:
            try:
                waited_for = steps.send(answer) if throw is None else self._throw(steps, throw)
            except StopIteration as done:
                result: T = done.value
                return result
            self.suspensions += 1
            if self.suspensions == self._number:
                self._schedule(waited_for)
            answer, throw = None, None
            try:
                answer = yield waited_for
            except BaseException as exc:
                throw = exc

    @staticmethod
    def _throw(steps: Iterator[Any], exc: BaseException) -> Any:
        assert isinstance(steps, Generator)
        return steps.throw(exc)

    def _schedule(self, waited_for: Any) -> None:
        if self._late and isinstance(waited_for, asyncio.Future):
            waited_for.add_done_callback(lambda _: self._act())
        else:
            asyncio.get_running_loop().call_soon(self._act)


async def cancel_at(number: int, work: Awaitable[T], *, late: bool) -> bool:
    """Cancel work at its n-th suspension; false when it ended before, or in spite of it."""
    stepper = Stepper(work, number, lambda: task.cancel(), late=late)

    async def run() -> T:
        return await stepper

    task = asyncio.create_task(run())
    await asyncio.wait((task,), timeout=10)
    assert task.done(), "the cancelled work hangs"
    if not task.cancelled():
        task.result()
    return stepper.suspensions >= number
