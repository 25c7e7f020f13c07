"""The backend with history: one script per publish, live delivery by Pub/Sub, the stream for history only."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Self

from channels_core.backend import History, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendError, ChannelsException, ImproperlyConfigured
from channels_core.urls import parse_options
from channels_redis._base import RedisBackend, raise_refusal, split_outcomes
from channels_redis._dispatch import Dispatcher
from channels_redis._envelope import UNPLACED, EnvelopeReader
from channels_redis._history import Reading, follow, pack_readings, read_position
from channels_redis._names import DEFAULT_PREFIX
from channels_redis._node import learn_facts
from channels_redis._runs import ChannelKeys, Run, group_runs, make_keys, pack_runs
from channels_redis._scripts import BORDER, OUT_OF_ORDER, PUBLISH, READ
from channels_redis._settings import AnyRedis, AnySettings, borrow, database_of
from channels_redis._url import DRIVER_PARAMETERS, StreamOptions, read_settings
from channels_redis._wire import Reply, Wire, pack, pack_words

__all__ = ("RedisChannelsStreamBackend",)

LANE_TTL_MS: Final = 15 * 60 * 1000
"""How long the highest number of a lane is kept after its last event; the contract asks for 10 minutes."""

RECORD_TTL: Final = 30 * 24 * 3600.0
"""Seconds that a channel's record outlives its last event: as long as a client's cursor should keep its meaning."""

MAX_TTL: Final = 100 * 365 * 24 * 3600
"""A century: Redis refuses times that pass its 64-bit milliseconds, and does so in the middle of a script."""

RELEARN_INTERVAL: Final = 1.0
"""Seconds between two looks at a server's identity; a restarted server gives every channel a new epoch just once."""

MAX_KEYS: Final = 10_000
"""Channels whose packed keys are kept; more than a busy process publishes to at a time."""

logger: Final = logging.getLogger("channels_redis")


class RedisChannelsStreamBackend(RedisBackend):
    """Events with history and positions, over Redis streams and Pub/Sub.

    An event is accepted by one script, atomically: it gets its offset, is stored and sent out to the subscribers. A
    retry is never stored twice. A flush, an eviction, a failover and a restart of the server give the channel a new
    epoch, so that an old position is never taken for a new one.

    What it does not promise: events that the server acknowledged and then lost (a crash between two writes to its
    disk, a failover to a replica that lags) are gone; they lie inside a ``Gap("epoch")``.

    Args:
        history: How many events are kept per channel, at least 1.
        redis: A client of `redis.asyncio`, whose settings are borrowed; it is never used or closed.
        key_prefix: What all names on the server begin with; no ``:`` and no braces.
        max_age: Seconds after which an event is not given any more, ``None`` for no limit.
        record_ttl: Seconds that a channel's record outlives its last event. Positions older than that mean nothing.
        approximate: Let the server trim in whole blocks of its streams, which is much cheaper; no more than
            ``history`` events are ever given either way.

    Raises:
        ImproperlyConfigured: The client or an option cannot be used.
    """

    keeps_history = True
    promise = "history and positions; loss is announced, retries never duplicate"

    def __init__(
        self,
        history: int,
        *,
        redis: AnyRedis | AnySettings,
        key_prefix: str = DEFAULT_PREFIX,
        max_age: float | None = None,
        record_ttl: float = RECORD_TTL,
        approximate: bool = True,
    ) -> None:
        settings = borrow(redis)
        super().__init__(settings, key_prefix)
        _check(history, max_age, record_ttl)
        self._history: Final = history
        self._max_age_ms: Final = 0 if max_age is None else max(1, round(max_age * 1000))
        self._record_ttl_ms: Final = round(record_ttl * 1000)
        self._approximate: Final = approximate
        self._database: Final = database_of(settings)
        self._keys: Final[dict[str, ChannelKeys]] = {}
        self._envelopes: Final = EnvelopeReader()
        self._token = ""
        self._epochs = itertools.count()
        self._skipped = 0

    @classmethod
    def from_url(cls, url: str) -> Self:
        options = parse_options(url, StreamOptions, driver=DRIVER_PARAMETERS)
        return cls(
            options.history,
            redis=read_settings(url),
            key_prefix=options.key_prefix,
            max_age=options.max_age,
            record_ttl=options.record_ttl,
            approximate=options.approximate,
        )

    @property
    def skipped(self) -> int:
        """How many messages and entries were no events of ours, damaged or from somebody else; they are left out."""
        return self._skipped

    async def on_startup(self) -> None:
        # Anew for each start: a process may have forked in between, and two of them must not make the same epochs.
        self._token = secrets.token_urlsafe(9)
        await super().on_startup()

    async def _publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        runs, indices = group_runs(batch, self._keys_of)
        replies = await self._send(runs) if runs else []
        return split_outcomes(batch, [replies[index] for index in indices])

    async def publish_probe(self, channel: str, data: bytes) -> None:
        dispatcher = Dispatcher[bytes](
            self._topology(),
            key=lambda name: name,
            pack_all=lambda wire, names: b"".join(pack(self._dialect.publish, each, UNPLACED + data) for each in names),
            line=lambda node: node.publishing,
        )
        raise_refusal(await dispatcher.send((self._live_name(channel),)))

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        dispatcher = Dispatcher[Reading](
            self._topology(),
            key=lambda reading: reading.keys.record,
            pack_all=lambda wire, readings: pack_readings(readings, self._history, self._max_age_ms),
            line=lambda node: node.reading,
        )
        (reply,) = await dispatcher.send((Reading(self._keys_of(channel), limit, after),))
        raise_refusal((reply,))
        epoch, offset, entries = reply or (None, None, ())
        events = [event for event in (self._read_entry(channel, entry) for entry in entries) if event is not None]
        return History(follow(events, after, limit), read_position(epoch, offset))

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        dispatcher = Dispatcher[bytes](
            self._topology(),
            key=lambda record: record,
            pack_all=lambda wire, records: b"".join([pack(b"HMGET", each, b"e", b"s") for each in records]),
            line=lambda node: node.reading,
        )
        replies = await dispatcher.send([self._keys_of(channel).record for channel in channels]) if channels else []
        raise_refusal(replies)
        return {channel: read_position(*reply) for channel, reply in zip(channels, replies, strict=True)}

    async def _send(self, runs: Sequence[Run]) -> list[Reply]:
        dispatcher = Dispatcher[Run](
            self._topology(),
            key=lambda run: run.keys.record,
            pack_all=lambda wire, some: pack_runs(some, wire.note, self._fresh_epoch),
            line=lambda node: node.publishing,
            again=OUT_OF_ORDER,
        )
        replies = await dispatcher.send(runs)
        if BORDER in replies:
            await self._relearn()
        return replies

    async def _greet(self, wire: Wire) -> None:
        await self._introduce(wire, pack(b"SCRIPT", b"LOAD", PUBLISH.text), pack(b"SCRIPT", b"LOAD", READ.text))
        await self._learn(wire)

    async def _learn(self, wire: Wire) -> None:
        await learn_facts(wire, "server", "replication")
        # The run differs after a restart, the replication id after a failover and back to a server that kept running.
        incarnation = f"{wire.facts.get('run_id', '')}:{wire.facts.get('master_replid', '')}"
        wire.learned = asyncio.get_running_loop().time()
        wire.note = pack_words(
            incarnation.encode(),
            self._dialect.publish,
            b"~" if self._approximate else b"=",
            b"%d" % self._history,
            b"%d" % self._max_age_ms,
            b"%d" % min(self._max_age_ms or self._record_ttl_ms, self._record_ttl_ms),
            b"%d" % self._record_ttl_ms,
            b"%d" % LANE_TTL_MS,
        )

    async def _relearn(self) -> None:
        """Look at the servers again: were our picture the old one, every event would begin another epoch."""
        due = asyncio.get_running_loop().time() - RELEARN_INTERVAL
        # The events are accepted: a connection that is lost now is the next call's business.
        with suppress(ChannelsException):
            for node in self._topology().nodes:
                wire = await node.publishing.wire()
                if wire.learned < due:
                    await self._learn(wire)

    def _fresh_epoch(self) -> bytes:
        return f"{self._token}{next(self._epochs):x}".encode()

    def _keys_of(self, channel: str) -> ChannelKeys:
        keys = self._keys.get(channel)
        if keys is None:
            if len(self._keys) >= MAX_KEYS:
                self._keys.clear()
            keys = self._keys[channel] = make_keys(self._prefix, channel, self._database)
        return keys

    def _live_name(self, channel: str) -> bytes:
        return self._keys_of(channel).live

    def _read_event(self, channel: str, payload: bytes) -> Event | None:
        envelope = self._envelopes.read(payload)
        if envelope is None:
            self._skip(channel)
            return None
        return Event(channel, envelope.data, envelope.position)

    def _read_entry(self, channel: str, entry: Any) -> Event | None:
        _, fields = entry
        event = self._read_event(channel, fields[1] if len(fields) == 2 and fields[0] == b"e" else b"")
        return event if event is not None and event.position is not None else None

    def _skip(self, channel: str) -> None:
        self._skipped += 1
        if self._skipped == 1:
            logger.warning("skipped a message in %r that is no event of ours; further ones are only counted", channel)


def _check(history: int, max_age: float | None, record_ttl: float) -> None:
    if history < 1:
        raise ImproperlyConfigured(f"history={history!r}: expected 1 or more; without history use redis://")
    if max_age is not None and max_age <= 0:
        raise ImproperlyConfigured(f"max_age={max_age!r}: expected seconds above 0, or None for no limit")
    if not (max_age or 0) <= record_ttl <= MAX_TTL or record_ttl <= 0:
        raise ImproperlyConfigured(
            f"record_ttl={record_ttl!r}: expected seconds, at least max_age={max_age!r} and at most {MAX_TTL}"
        )
