"""What both backends do alike: lifecycle, subscriptions and the stream of events."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

from channels_core.backend import ChannelsBackend, Key, Publication
from channels_core.events import Event
from channels_core.exceptions import BackendConnectionError, BackendError, ChannelsException
from channels_redis._errors import Redirect, explain_loss, has_errors
from channels_redis._names import checked_prefix
from channels_redis._node import Node
from channels_redis._receiver import PLAIN, SHARDED, Inbox, ReceivingWire
from channels_redis._settings import AnySettings, ClusterSettings, ServerSettings
from channels_redis._settle import settle
from channels_redis._topology import Cluster, Topology, make_topology
from channels_redis._wire import Wire, pack

__all__ = ("RedisBackend", "raise_refusal", "split_outcomes")

MAX_NAMES: Final = 5_000
"""Names in one SUBSCRIBE: the server does nothing else while it reads one command."""


class Session:
    """Everything that lives from one start to the next stop."""

    def __init__(self, topology: Topology) -> None:
        self.topology: Final = topology
        self.inbox: Final = Inbox()
        self.names: Final[dict[bytes, str]] = {}
        self.receivers: Final[dict[Node, ReceivingWire]] = {}

    async def close(self) -> None:
        """Drop all connections, and wait until the sockets are closed."""
        self.inbox.fail(BackendConnectionError("the backend was stopped"))
        self.topology.close()
        for wire in self.receivers.values():
            wire.abort("the backend was stopped")
        await self.topology.wait_closed()
        for wire in self.receivers.values():
            await wire.wait_closed()


class RedisBackend(ChannelsBackend):
    """Base of both backends."""

    max_payload: int = 16 * 1024 * 1024
    """Redis drops every subscriber whose output buffer passes 32 MB (client-output-buffer-limit pubsub); half of that
    leaves a subscriber that is behind some room."""

    def __init__(self, settings: AnySettings, key_prefix: str) -> None:
        self._settings: Final = settings
        self._prefix: Final = checked_prefix(key_prefix)
        self._dialect: Final = SHARDED if isinstance(settings, ClusterSettings) else PLAIN
        self._session: Session | None = None
        self._probes: tuple[str, ...] = ()

    @property
    def key_prefix(self) -> str:
        """What every name on the server begins with."""
        return self._prefix

    @classmethod
    def explain(cls, error: BaseException) -> str | None:
        """Say what an error means, where its message does not say so already; for ``channels doctor``."""
        return explain_loss(error)

    async def on_startup(self) -> None:
        await self.on_shutdown()
        session = Session(make_topology(self._settings, self._greet))
        try:
            await session.topology.find()
            # The command connections first: their greeting is what explains a refusal.
            await settle(node.publishing.wire() for node in session.topology.nodes)
            await settle(self._open_receiver(session, node) for node in session.topology.nodes)
        except BaseException:
            await session.close()
            raise
        self._session = session
        self._probes = tuple(self._name_probes(session.topology))

    async def on_shutdown(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in self._started().inbox.stream():
            yield event

    async def subscribe(self, channels: Sequence[str]) -> None:
        session = self._started()
        wanted = {self._live_name(channel): channel for channel in channels}
        session.names.update(wanted)
        try:
            await self._confirm(session, self._dialect.subscribe, wanted)
        except ChannelsException:
            for name in wanted:
                session.names.pop(name, None)
            raise

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        session = self._started()
        names = {self._live_name(channel) for channel in channels}
        await self._confirm(session, self._dialect.unsubscribe, names)
        for name in names:
            session.names.pop(name, None)

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        raise_refusal(await self.publish_batch((Publication(data, tuple(channels), key),)))

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        good = [each for each in batch if len(each.data) <= self.max_payload]
        try:
            outcomes = iter(await self._publish_batch(good))
        except BackendError as exc:
            # The connection had to be opened again, and the server does not let us in as before: it may again, when a
            # changed password has reached all sides, say. What waits to be published can wait for it.
            raise BackendConnectionError(str(exc)) from exc
        if len(good) == len(batch):
            return list(outcomes)
        # The plugin never gets here; who uses a backend alone must not lose the good ones because of a bad one.
        refusal = BackendError(f"redis backends take at most {self.max_payload} bytes in one event")
        return [refusal if len(each.data) > self.max_payload else next(outcomes) for each in batch]

    def probe_channels(self) -> Sequence[str]:
        return self._probes

    @abstractmethod
    async def _publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        """Publish, as `publish_batch` promises; nothing is too large."""

    @abstractmethod
    def _live_name(self, channel: str) -> bytes:
        """Return the Redis channel that carries the live events of a channel."""

    @abstractmethod
    def _read_event(self, channel: str, payload: bytes) -> Event | None:
        """Return the event that a payload stands for, ``None`` for none of ours."""

    async def _greet(self, wire: Wire) -> None:
        """Say on a new command connection what has to be said first."""
        await self._introduce(wire, pack(b"PING"))

    async def _introduce(self, wire: Wire, *commands: bytes) -> None:
        """Run commands that must not be refused, and look what kind of server it is.

        Plain Pub/Sub would work on a node of a cluster, but nobody who uses the cluster's URL would ever hear of it.
        """
        *replies, hello = await wire.call(b"".join((*commands, pack(b"HELLO"))), len(commands) + 1)
        raise_refusal(replies)
        if _read_mode(hello) == "cluster" and isinstance(self._settings, ServerSettings):
            raise BackendError(f"redis at {wire.address} is a node of a cluster: use a redis+cluster:// URL")

    def _started(self) -> Session:
        if self._session is None:
            raise BackendConnectionError(f"{type(self).__name__} is not started; await on_startup() first")
        return self._session

    def _topology(self) -> Topology:
        return self._started().topology

    async def _open_receiver(self, session: Session, node: Node) -> None:
        def make(address: str, connection: Any) -> ReceivingWire:
            return ReceivingWire(
                address,
                connection,
                inbox=session.inbox,
                dialect=self._dialect,
                names=session.names,
                read_event=self._read_event,
            )

        session.receivers[node] = await node.open(make)

    async def _confirm(self, session: Session, command: bytes, names: Iterable[bytes]) -> None:
        groups: defaultdict[Node, list[bytes]] = defaultdict(list)
        for name in names:
            groups[session.topology.node_of(name)].append(name)
        await settle(self._confirm_at(session, node, command, group) for node, group in groups.items())

    async def _confirm_at(self, session: Session, node: Node, command: bytes, names: Sequence[bytes]) -> None:
        wire = session.receivers.get(node)
        if wire is None:
            raise BackendConnectionError("the cluster has a node that was not there at the start")
        try:
            if isinstance(session.topology, Cluster):
                raise_refusal(await wire.call(b"".join([pack(command, name) for name in names]), len(names)))
            else:
                for start in range(0, len(names), MAX_NAMES):
                    part = names[start : start + MAX_NAMES]
                    raise_refusal(await wire.call(pack(command, *part), len(part), error_ends=True))
        except asyncio.CancelledError:
            # What the server made of it is unknown; only a new connection has a known set of subscriptions.
            wire.abort("a subscription was cancelled")
            raise

    def _name_probes(self, topology: Topology) -> Iterable[str]:
        if not isinstance(topology, Cluster):
            return
        token = secrets.token_hex(8)
        for number, node in enumerate(topology.nodes):
            names = (f"probe-{token}-{number}-{attempt}" for attempt in range(1_000_000))
            yield next(name for name in names if topology.serves(self._live_name(name), node))


def split_outcomes(batch: Sequence[Publication], replies: Sequence[object]) -> list[BackendError | None]:
    """Return why each publication was refused, if it was; the replies are one for each of its channels."""
    if not has_errors(replies):
        return [None] * len(batch)
    rest = iter(replies)
    return [
        next((reply for reply in [next(rest) for _ in each.channels] if isinstance(reply, BackendError)), None)
        for each in batch
    ]


def _read_mode(hello: object) -> str | None:
    """Return the mode that a server names in its answer to ``HELLO``, which needs no right; ``None`` for no answer."""
    pairs = [*itertools.chain.from_iterable(hello.items())] if isinstance(hello, dict) else hello
    if not isinstance(pairs, list) or b"mode" not in pairs[::2]:
        return None
    return bytes(pairs[pairs[::2].index(b"mode") * 2 + 1]).decode("utf-8", "replace")


def raise_refusal(replies: Iterable[object]) -> None:
    """Raise the first error among replies."""
    for reply in replies:
        if isinstance(reply, Redirect):
            raise BackendConnectionError(f"redis redirected a subscription: {reply}")
        if isinstance(reply, (BackendConnectionError, BackendError)):
            raise reply
