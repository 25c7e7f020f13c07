"""The goals: what was promised before anything was measured. `why` is printed only while a goal is not met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from channels_bench.judging import Absolute, Compare, Goal, Growth, Times

__all__ = ("GOALS",)

_REDIS_PEERS: Final = (
    "litestar-redis", "litestar-redis-streams", "broadcaster-redis", "broadcaster-redis-streams", "faststream",
    "django", "django-pubsub",
)  # fmt: skip
_PG_PEERS: Final = ("litestar-asyncpg", "litestar-psycopg", "broadcaster-postgres")

_NOTHING: Final = 0.1
"""Per cent of a core that counts as no measurable CPU: a millisecond per second."""

_BROKERS: Final = (
    ("redis", "ours-redis", _REDIS_PEERS, "redis-py", "Redis Pub/Sub"),
    ("redis", "ours-redis-streams", _REDIS_PEERS, "redis-py", "Redis Streams"),
    ("postgres", "ours-asyncpg", _PG_PEERS, "asyncpg", "PostgreSQL, asyncpg"),
    ("postgres", "ours-asyncpg-history", _PG_PEERS, "asyncpg", "PostgreSQL, asyncpg with history"),
    ("postgres", "ours-psycopg", _PG_PEERS, "psycopg", "PostgreSQL, psycopg"),
    ("postgres", "ours-psycopg-history", _PG_PEERS, "psycopg", "PostgreSQL, psycopg with history"),
)

_LATENCY: Final = {
    "ours-redis-streams": "the server runs a script that numbers, stores and sends the event, several times the work "
    "of the bare PUBLISH of the peers that keep no history; see Litestar's Streams for one that keeps it",
    "ours-asyncpg-history": "an event is a durable row before anybody hears of it, and is read by another query; the "
    "peers send it in the notification and keep nothing",
    "ours-psycopg-history": "as with asyncpg: stored first, and read by another query",
}
"""Why a single event may take longer than with the best peer."""

_STORED: Final = (
    "the floor carries bare payloads from connection to connection. With history each event is numbered, stored and "
    "told apart by its position on the way, which is most of the time that fanning out does not take; "
    "without history, where both carry the same, the goal is met"
)
_CROWD: Final = dict.fromkeys(("ours-redis-streams", "ours-asyncpg-history", "ours-psycopg-history"), _STORED)
"""Why fanning out from a broker may be slower than a callback on its driver."""


def _memory() -> Iterator[Goal]:
    """Issue 5, in memory."""
    for subscribers in (1_000, 10_000):
        name = f"memory: fan-out 1 → {subscribers:,}"
        workload = f"memory/fan-out-{subscribers}"
        yield Goal(f"{name}, of Litestar's plugin", Compare(workload, "ours", ("litestar",)), 3)
        yield Goal(f"{name}, of the deque floor", Compare(workload, "ours", ("deque",)), 0.8)
    yield Goal("memory: fan-out 1 → 1, of Litestar's plugin", Compare("memory/fan-out-1", "ours", ("litestar",)), 2)
    yield Goal(
        "memory: 10,000 subscribers leave a channel each, of Litestar's plugin",
        Compare("memory/leave-10000", "ours", ("litestar",)),
        30,
    )
    yield Goal(
        "memory: leaving 10,000 against leaving 1,000 (linear is 10, with half as much again for noise)",
        Growth("memory/leave-10000", "ours", "memory/leave-1000"),
        15,
        at_least=False,
    )
    size = Absolute("memory/idle-memory", "ours")
    yield Goal("memory of an idle subscriber with its task", size, 2048, at_least=False, unit=" bytes")
    yield Goal(
        "memory of an idle subscriber with its task, less than Litestar's (0.4 of it)",
        Compare("memory/idle-memory", "ours", ("litestar",)),
        2.5,
        why="the task that consumes and its coroutine are in both numbers, about as large as all the rest of ours; "
        "without the task, which is the column *without task*, the goal is met",
    )
    idle = Absolute("memory/idle", "ours")
    yield Goal("memory: CPU of 100 idle subscriptions", idle, _NOTHING, at_least=False, unit=" %")


def _brokers() -> Iterator[Goal]:
    """Issue 5, on every broker."""
    for section, ours, peers, floor, name in _BROKERS:
        crowd, one, late = f"{section}/fan-out-1000", f"{section}/fan-out-1", f"{section}/latency"
        yield Goal(f"{name}: fan-out 1 → 1,000, of the best peer", Compare(crowd, ours, peers), 5)
        text = f"{name}: fan-out 1 → 1,000, of the callback floor"
        yield Goal(text, Compare(crowd, ours, (floor,)), 0.4, why=_CROWD.get(ours, ""))
        yield Goal(f"{name}: fan-out 1 → 1, of the best peer", Compare(one, ours, peers), 10)
        text = f"{name}: latency p99 at 500/s, of the best peer"
        yield Goal(text, Compare(late, ours, peers), 1, why=_LATENCY.get(ours, ""))
        idle = Absolute(f"{section}/idle", ours)
        yield Goal(f"{name}: CPU of 100 idle subscriptions", idle, _NOTHING, at_least=False, unit=" %")


def _redis() -> Iterator[Goal]:
    """Issue 5, and issue 6, items 3 and 5."""
    publish, many = "redis/publish-background", "redis/one-leaves-10000"
    for other, limit, name in (("redis-py", 0.9, "a redis-py pipeline"), ("litestar-redis", 15, "Litestar's backend")):
        yield Goal(f"Redis Pub/Sub: background publish, of {name}", Compare(publish, "ours-redis", (other,)), limit)
    yield Goal(
        "Redis Streams: background publish, of a redis-py pipeline of XADD",
        Compare(publish, "ours-redis-streams", ("redis-py-xadd",)),
        0.8,
    )
    yield Goal(
        "Redis Pub/Sub: receive, of a raw redis-py reader", Compare("redis/receive", "ours-redis", ("redis-py",)), 0.8
    )
    for extra, what, command in (
        ("join", "subscribing to", "SUBSCRIBE"),
        ("until_the_broker_knows", "leaving", "UNSUBSCRIBE"),
    ):
        text = f"Redis Pub/Sub: {what} 10,000 channels, of one raw {command}"
        yield Goal(text, Times(many, "ours-redis", "redis-py", extra), 3, at_least=False)
        spent = Absolute(many, "ours-redis-streams", extra)
        yield Goal(f"Redis Streams: {what} 10,000 channels", spent, 1000, at_least=False, unit=" ms")
    yield Goal(
        "Redis Pub/Sub: 10,000 subscribers join a channel each, of broadcaster",
        Compare("redis/own-channels", "ours-redis", ("broadcaster-redis",)),
        1,
        why="broadcaster returns when it has written SUBSCRIBE; ours waits until the server has confirmed, which "
        "makes sure that the next event arrives, and its one reconciling task is woken before and after",
    )


def _postgres() -> Iterator[Goal]:
    """Issue 5, and issue 4, item 5."""
    publish, many = "postgres/publish-background", "postgres/one-leaves-10000"
    plain, kept = "without history", "with history"
    reason = (
        "the floor takes no events from callers: a list is cut into statements. Taking each event in, giving it its "
        "place in a lane, packing it with its channel's name and settling it is most of our time, not the server's work"
    )
    for text, ours, other, limit in (
        (f"{plain}, of batched pg_notify", "ours-asyncpg", "asyncpg", 0.7),
        (f"{plain}, of Litestar's backend", "ours-asyncpg", "litestar-asyncpg", 200),
        (f"{kept}, of a batched insert with notification", "ours-asyncpg-history", "asyncpg-insert", 0.6),
        (f"{plain} on psycopg, of asyncpg", "ours-psycopg", "ours-asyncpg", 0.5),
        (f"{kept} on psycopg, of asyncpg", "ours-psycopg-history", "ours-asyncpg-history", 0.5),
    ):
        yield Goal(f"PostgreSQL: background publish {text}", Compare(publish, ours, (other,)), limit, why=reason)
    for _, ours, _, _, name in (each for each in _BROKERS if each[0] == "postgres"):
        for extra, what in (("join", "subscribing to"), ("", "leaving")):
            spent = Absolute(many, ours, extra)
            yield Goal(f"{name}: {what} 10,000 channels", spent, 1000, at_least=False, unit=" ms")
        asked = Absolute("postgres/idle", ours, "requests_per_s")
        yield Goal(f"{name}: requests of 100 idle subscriptions", asked, 0.3, at_least=False, unit=" per second")


GOALS: Final = (*_memory(), *_brokers(), *_redis(), *_postgres())
