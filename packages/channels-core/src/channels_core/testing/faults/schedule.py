"""Faults in an order that a seed decides, so that a failure can be replayed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Self

import msgspec

__all__ = ("FaultSchedule", "Step")

_DIGITS: Final = 3
"""Milliseconds: finer times cannot be kept by an event loop and only make the printed schedule long."""


class Step(msgspec.Struct, frozen=True):
    """One fault of a schedule.

    Attributes:
        at: Seconds after the start of the schedule.
        fault: A name of the caller's.
        lasts: Seconds from breaking to mending, for faults that have a duration.
    """

    at: float
    fault: str
    lasts: float

    def __str__(self) -> str:
        return f"{self.fault}@{self.at}+{self.lasts}"


class FaultSchedule(msgspec.Struct, frozen=True):
    """Steps in the order of their times.

    ``str(schedule)`` is one line to print when a run fails, and `FaultSchedule.parse` its inverse.

    Example::

        schedule = FaultSchedule.plan(seed, ["cut", "restart"], count=5, within=10.0)
        await schedule.run({"cut": cut, "restart": restart})
    """

    steps: tuple[Step, ...]

    @classmethod
    def plan(
        cls,
        seed: int,
        faults: Sequence[str],
        *,
        count: int,
        within: float,
        lasts: tuple[float, float] = (0.05, 1.0),
    ) -> Self:
        """Draw ``count`` faults over ``within`` seconds; the same arguments give the same schedule.

        Every fault occurs before any is repeated, so that a short schedule does not leave one out.
        """
        draw = random.Random(seed)
        times = sorted(round(draw.uniform(0.0, within), _DIGITS) for _ in range(count))
        names: list[str] = []
        while len(names) < count:
            names.extend(draw.sample(list(faults), len(faults)))
        drawn = zip(times, names[:count], strict=True)
        return cls(tuple(Step(at, name, round(draw.uniform(*lasts), _DIGITS)) for at, name in drawn))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str(schedule)`` gave."""
        return cls(tuple(_parse_step(part) for part in text.split()))

    def __str__(self) -> str:
        return " ".join(map(str, self.steps))

    async def run(self, actions: Mapping[str, Callable[[float], Awaitable[None]]]) -> None:
        """Execute the steps, one after the other; an action gets the seconds that its fault lasts.

        A step whose time has passed, because the one before took longer, comes at once.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        for step in self.steps:
            await asyncio.sleep(max(0.0, start + step.at - loop.time()))
            await actions[step.fault](step.lasts)


def _parse_step(text: str) -> Step:
    fault, _, times = text.rpartition("@")
    at, _, lasts = times.partition("+")
    return Step(float(at), fault, float(lasts))
