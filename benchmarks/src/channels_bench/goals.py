"""The goals: what was promised before anything was measured, and how far the measurement is from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from channels_bench.measure import Results, ratio
from channels_bench.plan import WORKLOADS

__all__ = ("GOALS", "Goal", "Verdict", "judge")


@dataclass(frozen=True)
class Goal:
    """A number that must be reached.

    Args:
        text: What is compared with what.
        measure: Reads the number, ``None`` where something was not measured.
        limit: What it must reach, or must not pass.
        at_least: Whether the limit is a lower one.
        unit: Behind the number.
    """

    text: str
    measure: Callable[[Results], float | None]
    limit: float
    at_least: bool = True
    unit: str = " times"


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


def judge(results: Results, goals: Sequence[Goal] | None = None) -> Iterator[Verdict]:
    """Judge every goal whose numbers were measured."""
    for goal in GOALS if goals is None else goals:
        value = goal.measure(results)
        if value is not None:
            yield Verdict(goal, value)


def compare(workload: str, ours: str, others: Sequence[str]) -> Callable[[Results], float | None]:
    """Return how many times better ours is than the best of the others."""
    higher = _higher_is_better(workload)

    def measure(results: Results) -> float | None:
        mine = value_of(results, workload, ours)
        theirs = [value for other in others if (value := value_of(results, workload, other)) is not None]
        if mine is None or not theirs:
            return None
        return min(ratio(mine, each, higher_is_better=higher) for each in theirs)

    return measure


def absolute(workload: str, system: str, extra: str = "") -> Callable[[Results], float | None]:
    """Return the value itself, or what was noted beside it."""

    def measure(results: Results) -> float | None:
        measured = results.get(workload, {}).get(system)
        if measured is None:
            return None
        return measured.extra.get(extra) if extra else measured.value

    return measure


def growth(larger: str, smaller: str, system: str) -> Callable[[Results], float | None]:
    """Return how many times more the larger workload takes."""

    def measure(results: Results) -> float | None:
        much, little = value_of(results, larger, system), value_of(results, smaller, system)
        return much / little if much and little else None

    return measure


def value_of(results: Results, workload: str, system: str) -> float | None:
    """Return the median of one system in one workload, if it was measured."""
    measured = results.get(workload, {}).get(system)
    return measured.value if measured is not None else None


def _higher_is_better(workload: str) -> bool:
    return next(each.higher_is_better for each in WORKLOADS if each.name == workload)


_REDIS_PEERS: Final = (
    "litestar-redis", "litestar-redis-streams", "broadcaster-redis", "broadcaster-redis-streams", "faststream",
    "django", "django-pubsub",
)  # fmt: skip
_PG_PEERS: Final = ("litestar-asyncpg", "litestar-psycopg", "broadcaster-postgres")

_NOTHING: Final = 0.1
"""Per cent of a core that counts as no measurable CPU: a tenth of a second in 100 s."""


def _brokers() -> Iterator[Goal]:
    for section, ours, peers, floor, name in (
        ("redis", "ours-redis", _REDIS_PEERS, "redis-py", "Redis Pub/Sub"),
        ("redis", "ours-redis-streams", _REDIS_PEERS, "", "Redis Streams"),
        ("postgres", "ours-asyncpg", _PG_PEERS, "asyncpg", "PostgreSQL, asyncpg"),
        ("postgres", "ours-psycopg", _PG_PEERS, "", "PostgreSQL, psycopg"),
    ):
        crowd, one = f"{section}/fan-out-1000", f"{section}/fan-out-1"
        yield Goal(f"{name}: fan-out 1 → 1,000, of the best peer", compare(crowd, ours, peers), 5)
        if floor:
            yield Goal(f"{name}: fan-out 1 → 1,000, of the callback floor", compare(crowd, ours, (floor,)), 0.4)
        yield Goal(f"{name}: fan-out 1 → 1, of the best peer", compare(one, ours, peers), 10)
        yield Goal(f"{name}: latency p99 at 500/s, of the best peer", compare(f"{section}/latency", ours, peers), 1)
        idle = absolute(f"{section}/idle", ours)
        yield Goal(f"{name}: CPU of 100 idle subscriptions", idle, _NOTHING, at_least=False, unit=" %")


GOALS: Final = (
    Goal("memory: fan-out 1 → 1,000, of Litestar's plugin", compare("memory/fan-out-1000", "ours", ("litestar",)), 3),
    Goal("memory: fan-out 1 → 1,000, of the deque floor", compare("memory/fan-out-1000", "ours", ("deque",)), 0.8),
    Goal("memory: fan-out 1 → 10,000, of Litestar's plugin", compare("memory/fan-out-10000", "ours", ("litestar",)), 3),
    Goal("memory: fan-out 1 → 10,000, of the deque floor", compare("memory/fan-out-10000", "ours", ("deque",)), 0.8),
    Goal("memory: fan-out 1 → 1, of Litestar's plugin", compare("memory/fan-out-1", "ours", ("litestar",)), 2),
    Goal(
        "memory: 10,000 subscribers leave a channel each, of Litestar's plugin",
        compare("memory/leave-10000", "ours", ("litestar",)),
        30,
    ),
    Goal(
        "memory: leaving 10,000 against leaving 1,000 (linear is 10, with half as much again for noise)",
        growth("memory/leave-10000", "memory/leave-1000", "ours"),
        15,
        at_least=False,
    ),
    Goal(
        "memory of an idle subscriber with its task",
        absolute("memory/idle-memory", "ours"),
        2048,
        at_least=False,
        unit=" bytes",
    ),
    Goal(
        "memory of an idle subscriber with its task, less than Litestar's (0.4 of it)",
        compare("memory/idle-memory", "ours", ("litestar",)),
        2.5,
    ),
    Goal("memory: CPU of 100 idle subscriptions", absolute("memory/idle", "ours"), _NOTHING, at_least=False, unit=" %"),
    *_brokers(),
    Goal(
        "Redis Pub/Sub: background publish, of a redis-py pipeline",
        compare("redis/publish-background", "ours-redis", ("redis-py",)),
        0.9,
    ),
    Goal(
        "Redis Pub/Sub: background publish, of Litestar's backend",
        compare("redis/publish-background", "ours-redis", ("litestar-redis",)),
        15,
    ),
    Goal(
        "Redis Streams: background publish, of a redis-py pipeline of XADD",
        compare("redis/publish-background", "ours-redis-streams", ("redis-py-xadd",)),
        0.8,
    ),
    Goal(
        "Redis Pub/Sub: receive, of a raw redis-py reader",
        compare("redis/receive", "ours-redis", ("redis-py",)),
        0.8,
    ),
    Goal(
        "Redis Pub/Sub: subscribing to 10,000 channels against one raw SUBSCRIBE",
        lambda results: _times("redis/one-leaves-10000", "ours-redis", "redis-py", results),
        3,
        at_least=False,
    ),
    Goal(
        "Redis Streams: subscribing to 10,000 channels",
        absolute("redis/one-leaves-10000", "ours-redis-streams", "join"),
        1000,
        at_least=False,
        unit=" ms",
    ),
    Goal(
        "Redis Pub/Sub: 10,000 subscribers join a channel each, of broadcaster",
        compare("redis/own-channels", "ours-redis", ("broadcaster-redis",)),
        1,
    ),
    Goal(
        "PostgreSQL: background publish without history, of batched pg_notify",
        compare("postgres/publish-background", "ours-asyncpg", ("asyncpg",)),
        0.7,
    ),
    Goal(
        "PostgreSQL: background publish without history, of Litestar's backend",
        compare("postgres/publish-background", "ours-asyncpg", ("litestar-asyncpg",)),
        200,
    ),
    Goal(
        "PostgreSQL: background publish with history, of a batched insert with notification",
        compare("postgres/publish-background", "ours-asyncpg-history", ("asyncpg-insert",)),
        0.6,
    ),
    Goal(
        "PostgreSQL: background publish on psycopg, of asyncpg",
        compare("postgres/publish-background", "ours-psycopg", ("ours-asyncpg",)),
        0.5,
    ),
    Goal(
        "PostgreSQL: subscribing to 10,000 channels",
        absolute("postgres/one-leaves-10000", "ours-asyncpg", "join"),
        1000,
        at_least=False,
        unit=" ms",
    ),
    Goal(
        "PostgreSQL: leaving 10,000 channels",
        absolute("postgres/one-leaves-10000", "ours-asyncpg"),
        1000,
        at_least=False,
        unit=" ms",
    ),
)


def _times(workload: str, ours: str, other: str, results: Results) -> float | None:
    mine = absolute(workload, ours, "join")(results)
    theirs = absolute(workload, other, "join")(results)
    return mine / theirs if mine is not None and theirs else None
