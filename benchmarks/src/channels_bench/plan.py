"""What is measured: the workloads, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

__all__ = ("WORKLOADS", "Workload", "select")


@dataclass(frozen=True)
class Workload:
    """One row of the tables.

    Args:
        name: Section and workload, ``"redis/fan-out-1000"``; what ``--only`` is matched with.
        title: What readers call it.
        unit: Of the value.
        task: Of `channels_bench.tasks`.
        systems: Who takes part.
        count: Events of the first round; or of every round where `seconds` is ``None``.
        seconds: How long a round should take: the first rounds find out how many events that is.
        subscribers: How many.
        higher_is_better: Whether the value is a rate.
        feeder: Task of a second process that publishes, empty for none.
        together: All systems at once: they wait, and nobody disturbs anybody.
        fresh: A new process for each sample.
        quick: Part of ``--quick``.
        patience: Seconds that a round may take.
        repeats: Rounds that count when it is not quick; ``None`` for what the command line says.
        warmup: Events of a round before the first that counts.
        fault: All systems at once, and the servers are restarted in the middle.
        columns: What a table shows in place of value, spread and ratio.
        profile: Task that explains the value; empty for the same task under the profiler.
    """

    name: str
    title: str
    unit: str
    task: str
    systems: tuple[str, ...]
    count: int
    seconds: float | None = 0.5
    subscribers: int = 1
    higher_is_better: bool = True
    feeder: str = ""
    together: bool = False
    fresh: bool = False
    quick: bool = False
    repeats: int | None = None
    patience: float = 20.0
    warmup: int = 0
    fault: bool = False
    columns: tuple[str, ...] = ()
    profile: str = ""

    @property
    def section(self) -> str:
        """The part before the slash."""
        return self.name.partition("/")[0]


_MEMORY: Final = ("ours", "litestar", "broadcaster", "deque", "loop", "callback")
_REDIS: Final = (
    "ours-redis", "ours-redis-streams", "litestar-redis", "litestar-redis-streams", "broadcaster-redis",
    "broadcaster-redis-streams", "faststream", "django", "django-pubsub",
)  # fmt: skip
_CROWD: Final = tuple(name for name in _REDIS if name not in ("faststream", "django"))
"""FastStream opens a connection per subscriber; Django's core layer reached a tenth of its Pub/Sub layer and takes
too long to wait for."""
_POSTGRES: Final = (
    "ours-asyncpg", "ours-asyncpg-history", "ours-psycopg", "ours-psycopg-history", "litestar-asyncpg",
    "litestar-psycopg", "broadcaster-postgres",
)  # fmt: skip
_WEB: Final = ("ours-web", "litestar-web", "broadcaster-web", "bare-web", "ours-web-redis", "litestar-web-redis")


_EVENTS: Final = {1: 40_000, 100: 3_000, 1_000: 300, 10_000: 50}
"""Events by number of subscribers: equal for all systems, because wake-ups are paid per burst."""

_WARMUP: Final = {1: 1_000, 100: 100, 1_000: 100, 10_000: 50}
"""A burst as long as the longest that counts: backlogs have the memory that they need."""

_BROKER_EVENTS: Final = {1: 50, 100: 500, 1_000: 100}
"""The same with a broker; for one subscriber only the first guess, as speeds differ a hundredfold."""


def _fan_out(section: str, subscribers: int, systems: Iterable[str], *, quick: bool = False) -> Workload:
    return Workload(
        name=f"{section}/fan-out-{subscribers}",
        title=f"fan-out 1 → {subscribers:,}",
        unit="deliveries/s",
        task="fan_out",
        systems=tuple(systems),
        count=(_EVENTS if section == "memory" else _BROKER_EVENTS)[subscribers],
        seconds=0.5 if section != "memory" and subscribers == 1 else None,
        subscribers=subscribers,
        quick=quick,
        repeats=5 if section == "memory" and subscribers < 10_000 else 3,
        warmup=_WARMUP[subscribers] if section == "memory" else 10,
    )


def _own_channels(section: str, count: int, systems: Iterable[str], *, quick: bool = False) -> Workload:
    return Workload(
        name=f"{section}/leave-{count}",
        title=f"{count:,} subscribers leave a channel each",
        unit="ms",
        task="own_channels",
        systems=tuple(systems),
        count=count,
        seconds=None,
        higher_is_better=False,
        quick=quick,
        repeats=1 if count > 1_000 else 3,
        patience=30.0,
    )


def _channels(section: str, count: int, systems: Iterable[str], *, quick: bool = False) -> Workload:
    return Workload(
        name=f"{section}/one-leaves-{count}",
        title=f"one subscriber leaves {count:,} channels",
        unit="ms",
        task="join_and_leave",
        systems=tuple(systems),
        count=count,
        seconds=None,
        higher_is_better=False,
        quick=quick,
        repeats=3,
        patience=30.0,  # for who publishes one by one
    )


def _publish(section: str, how: str, systems: Iterable[str], *, quick: bool = False) -> Workload:
    titles = {"background": "in the background", "awaited": "awaited one by one", "concurrently": "100 at a time"}
    return Workload(
        name=f"{section}/publish-{how}",
        title=f"publish {titles[how]}",
        unit="events/s",
        task=f"publish_{how}",
        systems=tuple(systems),
        count=30,
        seconds=0.5 if how == "background" else 0.2,
        quick=quick,
        repeats=4 if how == "background" else 3,
    )


def _receive(section: str, systems: Iterable[str]) -> Workload:
    return Workload(
        name=f"{section}/receive",
        title="receive, fed by another process",
        unit="events/s",
        task="receive",
        systems=tuple(systems),
        count=2_000,
        feeder="feed",
        repeats=4,
    )


def _latency(section: str, systems: Iterable[str]) -> Workload:
    return Workload(
        name=f"{section}/latency",
        title="latency p99 at 500/s, two processes",
        unit="ms",
        task="latency_receive",
        systems=tuple(systems),
        count=500,
        seconds=None,
        higher_is_better=False,
        feeder="latency_send",
        repeats=3,
        patience=8.0,  # some never answer: they have lost an event
    )


def _outage(section: str, systems: Iterable[str]) -> Workload:
    return Workload(
        name=f"{section}/outage",
        title="outage: the broker is away for a second while 50 events per second are published",
        unit="events lost silently",
        task="outage_receive",
        systems=tuple(systems),
        count=250,
        seconds=None,
        higher_is_better=False,
        feeder="outage_send",
        repeats=1,
        patience=30.0,
        fault=True,
        columns=("accepted", "received", "lost", "announced", "lost_silently", "twice"),
    )


def _idle(section: str, systems: Iterable[str]) -> Workload:
    return Workload(
        name=f"{section}/idle",
        title="CPU of 100 idle subscriptions",
        unit="% of a core",
        task="idle_cpu",
        systems=tuple(systems),
        count=4 if section == "memory" else 16,  # whoever asks its broker every fifteen seconds is seen
        seconds=None,
        subscribers=100,
        higher_is_better=False,
        together=True,
        repeats=1,
        patience=30.0,
    )


def _history(section: str, systems: Iterable[str]) -> Workload:
    return Workload(
        name=f"{section}/history",
        title="history of 1,000 events to a new subscriber",
        unit="ms",
        task="history",
        systems=tuple(systems),
        count=10,
        seconds=None,
        higher_is_better=False,
        repeats=3,
        patience=5.0,
    )


WORKLOADS: Final = (
    _fan_out("memory", 1, _MEMORY, quick=True),
    _fan_out("memory", 100, _MEMORY),
    _fan_out("memory", 1_000, _MEMORY, quick=True),
    _fan_out("memory", 10_000, [name for name in _MEMORY if name != "broadcaster"]),
    _own_channels("memory", 1_000, ("ours", "litestar"), quick=True),
    _own_channels("memory", 10_000, ("ours", "litestar")),
    _channels("memory", 10_000, ("ours", "litestar")),
    Workload(
        name="memory/idle-memory",
        title="memory of an idle subscriber with its task",
        unit="bytes",
        task="idle_memory",
        systems=("ours", "litestar", "broadcaster", "deque"),
        count=1,
        seconds=None,
        subscribers=10_000,
        higher_is_better=False,
        fresh=True,
        repeats=3,
        profile="idle_memory_lines",
    ),
    _idle("memory", ("ours", "litestar")),
    _fan_out("redis", 1, (*_REDIS, "redis-py"), quick=True),
    _fan_out(
        "redis",
        100,
        ("ours-redis", "ours-redis-streams", "litestar-redis", "broadcaster-redis", "django-pubsub", "redis-py"),
    ),
    _fan_out("redis", 1_000, (*_CROWD, "redis-py")),
    _publish("redis", "background", (*_REDIS, "redis-py", "redis-py-xadd", "hiredis"), quick=True),
    _publish("redis", "awaited", _REDIS),
    _publish("redis", "concurrently", _REDIS),
    _receive("redis", ("ours-redis", "litestar-redis", "broadcaster-redis", "redis-py", "hiredis")),
    _latency("redis", (*_REDIS, "redis-py")),
    _idle("redis", _REDIS),
    _channels("redis", 10_000, ("ours-redis", "ours-redis-streams", "litestar-redis", "redis-py")),
    Workload(
        name="redis/own-channels",
        title="10,000 subscribers join a channel each",
        unit="ms",
        task="join_own_channels",
        systems=("ours-redis", "broadcaster-redis"),
        count=10_000,
        seconds=None,
        higher_is_better=False,
        repeats=1,
    ),
    _history("redis", ("ours-redis-streams", "litestar-redis-streams")),
    _outage("redis", _REDIS),
    _fan_out("postgres", 1, (*_POSTGRES, "asyncpg"), quick=True),
    _fan_out("postgres", 1_000, (*_POSTGRES, "asyncpg", "psycopg")),
    _publish("postgres", "background", (*_POSTGRES, "asyncpg", "asyncpg-insert"), quick=True),
    _publish("postgres", "awaited", _POSTGRES),
    _publish("postgres", "concurrently", _POSTGRES),
    _latency("postgres", (*_POSTGRES, "asyncpg")),
    _idle("postgres", _POSTGRES),
    Workload(
        name="postgres/publish-many",
        title="publish in the background to 50 channels in turn",
        unit="events/s",
        task="publish_many",
        systems=("ours-asyncpg", "ours-asyncpg-history", "ours-psycopg", "ours-psycopg-history", "asyncpg"),
        count=30,
        repeats=3,
    ),
    _channels("postgres", 10_000, ("ours-asyncpg", "ours-asyncpg-history", "ours-psycopg", "ours-psycopg-history")),
    _history("postgres", ("ours-asyncpg-history", "ours-psycopg-history")),
    _outage("postgres", _POSTGRES),
    Workload(
        name="web/websocket-1000",
        title="1 → 1,000 WebSocket clients through uvicorn",
        unit="deliveries/s",
        task="through_server",
        systems=_WEB,
        count=100,
        warmup=10,
        seconds=None,
        subscribers=1_000,
        feeder="crowd",
        repeats=5,
        patience=20.0,
    ),
)


_NOT_QUICK: Final = (
    "litestar-redis-streams", "broadcaster-redis-streams", "faststream", "django", "litestar-psycopg",
    "ours-psycopg-history",
)  # fmt: skip
"""Peers that never were the fastest of their kind and take the longest to start, and one of ours that has a twin."""


def select(only: Iterable[str], *, quick: bool) -> list[Workload]:
    """Return the workloads whose names begin with one of these, or contain it after the slash; all for none."""
    wanted = tuple(only)
    chosen = [each for each in WORKLOADS if each.quick or not quick or wanted]
    if wanted:
        chosen = [
            each for each in chosen if any(each.name.startswith(word) or f"/{word}" in each.name for word in wanted)
        ]
    return [_shortened(each) for each in chosen] if quick else chosen


def _shortened(workload: Workload) -> Workload:
    return replace(workload, systems=tuple(name for name in workload.systems if name not in _NOT_QUICK))
