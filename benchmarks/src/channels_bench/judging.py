"""What a goal is, how its number is read from the results, and whether it was reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from channels_bench.measure import Results, ratio
from channels_bench.plan import WORKLOADS

__all__ = ("Absolute", "Compare", "Goal", "Growth", "Measure", "Times", "Verdict", "judge")


@dataclass(frozen=True)
class Measure(ABC):
    """How a number is read from the results.

    Args:
        workload: Where it was measured.
        system: Ours.
    """

    workload: str
    system: str

    @abstractmethod
    def read(self, results: Results) -> float | None:
        """Return the number, ``None`` where something was not measured."""


@dataclass(frozen=True)
class Compare(Measure):
    """How many times better ours is than the best of the others."""

    others: tuple[str, ...]

    def read(self, results: Results) -> float | None:
        higher = next(each.higher_is_better for each in WORKLOADS if each.name == self.workload)
        mine = _noted(results, self.workload, self.system)
        theirs = [each for name in self.others if (each := _noted(results, self.workload, name)) is not None]
        if mine is None or not theirs:
            return None
        return min(ratio(mine, each, higher_is_better=higher) for each in theirs)


@dataclass(frozen=True)
class Absolute(Measure):
    """The value itself, or what was noted beside it."""

    extra: str = ""

    def read(self, results: Results) -> float | None:
        return _noted(results, self.workload, self.system, self.extra)


@dataclass(frozen=True)
class Times(Measure):
    """How many times the other's number, which was noted beside the value."""

    other: str
    extra: str

    def read(self, results: Results) -> float | None:
        mine = _noted(results, self.workload, self.system, self.extra)
        theirs = _noted(results, self.workload, self.other, self.extra)
        return mine / theirs if mine is not None and theirs else None


@dataclass(frozen=True)
class Growth(Measure):
    """How many times more this workload takes than a smaller one."""

    smaller: str

    def read(self, results: Results) -> float | None:
        much, little = _noted(results, self.workload, self.system), _noted(results, self.smaller, self.system)
        return much / little if much and little else None


def _noted(results: Results, workload: str, system: str, extra: str = "") -> float | None:
    measured = results.get(workload, {}).get(system)
    if measured is None:
        return None
    return measured.extra.get(extra) if extra else measured.value


@dataclass(frozen=True)
class Goal:
    """A number that must be reached.

    Args:
        text: What is compared with what.
        measure: Reads the number.
        limit: What it must reach, or must not pass.
        at_least: Whether the limit is a lower one.
        unit: Behind the number.
        why: Reasons that stand on the page as long as it is not reached.
    """

    text: str
    measure: Measure
    limit: float
    at_least: bool = True
    unit: str = " times"
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """A goal and what became of it."""

    goal: Goal
    value: float

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.value >= self.goal.limit if self.goal.at_least else self.value <= self.goal.limit

    @property
    def share(self) -> float:
        """How much of the goal was reached; 1 and more is all of it."""
        if not self.goal.limit:
            return 1.0 if self.met else 0.0
        return ratio(self.value, self.goal.limit, higher_is_better=self.goal.at_least)


def judge(results: Results, goals: Iterable[Goal]) -> Iterator[Verdict]:
    """Judge every goal whose numbers were measured."""
    for goal in goals:
        value = goal.measure.read(results)
        if value is not None:
            yield Verdict(goal, value)
