"""The backend on plain Redis Pub/Sub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from channels_core.backend import Publication
from channels_core.events import Event
from channels_core.exceptions import BackendError
from channels_core.urls import parse_options
from channels_redis._base import RedisBackend, split_outcomes
from channels_redis._dispatch import Dispatcher
from channels_redis._names import DEFAULT_PREFIX, pubsub_name
from channels_redis._settings import AnyRedis, AnySettings, borrow
from channels_redis._url import DRIVER_PARAMETERS, PubSubOptions, read_settings
from channels_redis._wire import Reply, Wire, pack

__all__ = ("RedisChannelsPubSubBackend",)

MAX_TARGETS: Final = 10_000
"""Packed channel names kept; more than a busy process publishes to at a time."""


class _Target(NamedTuple):
    """Where the events of a channel go: its Redis channel, and the packed command up to the payload."""

    name: bytes
    head: bytes


Command = tuple[_Target, bytes]


class RedisChannelsPubSubBackend(RedisBackend):
    """Events over Redis Pub/Sub: at most once, no history, no positions.

    The payload on the wire is the event's own bytes and the Redis channel is ``KEY_PREFIX:CHANNEL``, so that any
    client in any language can publish and listen.

    What it does not promise: an event published while the connection of a subscriber was down is not delivered to it
    (a ``Gap("disconnected")`` says so), and an event whose publishing was retried after a lost connection may arrive
    twice. Redis Pub/Sub knows no databases: applications are kept apart by ``key_prefix`` alone.

    Args:
        redis: A client of `redis.asyncio`, whose settings are borrowed; it is never used or closed.
        key_prefix: What all names on the server begin with; no ``:`` and no braces.

    Raises:
        ImproperlyConfigured: The client or the prefix cannot be used.
    """

    keeps_history = False
    promise = "at most once; any Redis client can publish and listen"

    def __init__(self, *, redis: AnyRedis | AnySettings, key_prefix: str = DEFAULT_PREFIX) -> None:
        super().__init__(borrow(redis), key_prefix)
        self._targets: Final[dict[str, _Target]] = {}

    @classmethod
    def from_url(cls, url: str) -> Self:
        options = parse_options(url, PubSubOptions, driver=DRIVER_PARAMETERS)
        return cls(redis=read_settings(url), key_prefix=options.key_prefix)

    async def _publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        known, target = self._targets.get, self._target
        commands = [(known(channel) or target(channel), each.data) for each in batch for channel in each.channels]
        return split_outcomes(batch, await self._send(commands))

    async def _send(self, commands: Sequence[Command]) -> list[Reply]:
        if not commands:
            return []
        dispatcher = Dispatcher[Command](
            self._topology(), key=lambda command: command[0].name, pack_all=_pack_all, line=lambda node: node.publishing
        )
        return await dispatcher.send(commands)

    def _target(self, channel: str) -> _Target:
        """Make and keep the target of a channel."""
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        name = self._live_name(channel)
        # An empty payload packed and cut off: what is left is everything in front of the payload.
        head = pack(self._dialect.publish, name, b"").removesuffix(b"$0\r\n\r\n")
        target = self._targets[channel] = _Target(name, head)
        return target

    def _live_name(self, channel: str) -> bytes:
        return pubsub_name(self._prefix, channel)

    def _read_event(self, channel: str, payload: bytes) -> Event | None:
        return Event(channel, payload)


def _pack_all(wire: Wire, commands: Sequence[Command]) -> bytes:
    return b"".join([b"%b$%d\r\n%b\r\n" % (target.head, len(data), data) for target, data in commands])
