"""Who is measured. To add a system: write an adapter in `channels_bench.systems` and one line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ("SYSTEMS", "Entry", "Kind", "Server")

Kind = Literal["ours", "peer", "floor"]
Server = Literal["", "redis", "postgres"]


@dataclass(frozen=True)
class Entry:
    """One system.

    Args:
        label: What readers call it.
        kind: Ours, a peer, or a floor: the least that the work can cost.
        target: Module of `channels_bench.systems` and class.
        server: Which server it needs.
        django: Runs in Django's own environment.
        wire_name: What the channel ``bench`` is called on the wire, for the feeder of `receive`.
    """

    label: str
    kind: Kind
    target: str
    server: Server = ""
    django: bool = False
    wire_name: str = "bench"


SYSTEMS: Final[dict[str, Entry]] = {
    "ours": Entry("channels", "ours", "ours:Memory"),
    "litestar": Entry("Litestar", "peer", "litestar:Memory"),
    "broadcaster": Entry("broadcaster", "peer", "broadcaster:Broadcaster"),
    "deque": Entry("deque and future, async for", "floor", "floors:DequeFloor"),
    "loop": Entry("deque and future, bare loop", "floor", "floors:LoopFloor"),
    "callback": Entry("callback", "floor", "floors:CallbackFloor"),
    "ours-redis": Entry("channels, Pub/Sub", "ours", "ours:RedisPubSub", "redis", wire_name="channels:bench"),
    "ours-redis-streams": Entry("channels, Streams", "ours", "ours:RedisStreams", "redis"),
    "litestar-redis": Entry("Litestar, Pub/Sub", "peer", "litestar:RedisPubSub", "redis"),
    "litestar-redis-streams": Entry("Litestar, Streams", "peer", "litestar:RedisStreams", "redis"),
    "broadcaster-redis": Entry("broadcaster, Pub/Sub", "peer", "broadcaster:Broadcaster", "redis"),
    "broadcaster-redis-streams": Entry("broadcaster, Streams", "peer", "broadcaster:RedisStreams", "redis"),
    "faststream": Entry("FastStream, Pub/Sub", "peer", "faststream:FastStream", "redis"),
    "django": Entry("Django channels, core layer", "peer", "django:Layer", "redis", django=True),
    "django-pubsub": Entry("Django channels, Pub/Sub layer", "peer", "django:PubSubLayer", "redis", django=True),
    "redis-py": Entry("redis-py pipeline and callback", "floor", "redis_floors:RedisPy", "redis"),
    "redis-py-xadd": Entry("redis-py pipeline of XADD", "floor", "redis_floors:RedisPyXAdd", "redis"),
    "hiredis": Entry("asyncio.Protocol with hiredis", "floor", "redis_floors:HiredisProtocol", "redis"),
    "ours-asyncpg": Entry("channels, asyncpg", "ours", "ours:AsyncPg", "postgres"),
    "ours-asyncpg-history": Entry("channels, asyncpg with history", "ours", "ours:AsyncPgHistory", "postgres"),
    "ours-psycopg": Entry("channels, psycopg", "ours", "ours:PsycoPg", "postgres"),
    "ours-psycopg-history": Entry("channels, psycopg with history", "ours", "ours:PsycoPgHistory", "postgres"),
    "litestar-asyncpg": Entry("Litestar, asyncpg", "peer", "litestar:AsyncPg", "postgres"),
    "litestar-psycopg": Entry("Litestar, psycopg", "peer", "litestar:PsycoPg", "postgres"),
    "broadcaster-postgres": Entry("broadcaster", "peer", "broadcaster:Broadcaster", "postgres"),
    "asyncpg": Entry("asyncpg, batched pg_notify and callback", "floor", "postgres_floors:AsyncPg", "postgres"),
    "psycopg": Entry("psycopg, batched pg_notify and callback", "floor", "postgres_floors:PsycoPg", "postgres"),
    "asyncpg-insert": Entry(
        "asyncpg, batched insert with one notification", "floor", "postgres_floors:AsyncPgInsert", "postgres"
    ),
    "ours-web": Entry("channels, memory", "ours", "web:Channels"),
    "litestar-web": Entry("Litestar, memory", "peer", "web:LitestarChannels"),
    "broadcaster-web": Entry("broadcaster, memory, bare ASGI", "peer", "web:Broadcaster"),
    "bare-web": Entry("bare ASGI and a loop", "floor", "web:Bare"),
    "ours-web-redis": Entry("channels, Redis Pub/Sub", "ours", "web:Channels", "redis"),
    "litestar-web-redis": Entry("Litestar, Redis Pub/Sub", "peer", "web:LitestarRedis", "redis"),
}
