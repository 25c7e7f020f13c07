"""Which server a name lives on: one, the primary that Sentinels name, or the nodes of a cluster."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from channels_core.exceptions import BackendConnectionError, BackendError
from channels_redis._names import SLOTS, slot_of
from channels_redis._node import Node, learn_facts, open_wire
from channels_redis._settings import (
    CONNECT_TIMEOUT,
    Address,
    AnySettings,
    ClusterSettings,
    SentinelSettings,
    ServerSettings,
)
from channels_redis._wire import Reply, Wire, pack

__all__ = ("Cluster", "Single", "Topology", "make_topology")

HANGING_TIMEOUT: Final = 1.0
"""Seconds for a primary that has replicas: one that hangs is replaced soon, and the wait must not outlast that."""

Greet = Callable[[Wire], Awaitable[None]]
AnswerT = TypeVar("AnswerT")


class Topology(ABC):
    """The servers that one started backend talks to."""

    nodes: Sequence[Node] = ()

    @abstractmethod
    async def find(self) -> None:
        """Find out which servers there are."""

    @abstractmethod
    def node_of(self, key: bytes) -> Node:
        """Return the server that this key lives on."""

    def suspect(self) -> None:  # noqa: B027  # only a cluster remembers what it found
        """Note that what `find` found may be wrong by now."""

    def close(self) -> None:
        """Drop all connections; calls in flight end with `BackendConnectionError`."""
        for node in self.nodes:
            node.close()

    async def wait_closed(self) -> None:
        """Return when the sockets are closed."""
        for node in self.nodes:
            await node.wait_closed()


class Single(Topology):
    """One server."""

    def __init__(self, settings: ServerSettings, greet: Greet | None) -> None:
        self._settings: Final = settings
        self.node: Final = Node(self._locate, greet=greet)
        self.nodes = (self.node,)

    async def find(self) -> None:
        return None

    def node_of(self, key: bytes) -> Node:
        return self.node

    async def _locate(self) -> ServerSettings:
        return self._settings


class Sentinel(Topology):
    """The server that Sentinels call the primary, asked anew for every connection."""

    def __init__(self, settings: SentinelSettings, greet: Greet | None) -> None:
        self._settings: Final = settings
        self.node: Final = Node(self._locate, check=_require_primary, greet=greet, timeout=HANGING_TIMEOUT)
        self.nodes = (self.node,)

    async def find(self) -> None:
        return None

    def node_of(self, key: bytes) -> Node:
        return self.node

    async def _locate(self) -> ServerSettings:
        return self._settings.server.at(await first_answer(self._ask(each) for each in self._settings.sentinels))

    async def _ask(self, sentinel: ServerSettings) -> Address:
        asked = pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._settings.service.encode())
        (reply,) = await _ask_once(sentinel, asked)
        if isinstance(reply, Exception):
            raise reply
        if not reply:
            raise BackendError(f"the Sentinel at {sentinel.address} knows no service {self._settings.service!r}")
        return bytes(reply[0]).decode(), int(reply[1])


class Cluster(Topology):
    """The primaries of a cluster, by hash slot."""

    def __init__(self, settings: ClusterSettings, greet: Greet | None) -> None:
        self._settings: Final = settings
        self._greet: Final = greet
        self._by_address: dict[Address, Node] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._stale = True

    async def find(self) -> None:
        if not self._stale:
            return
        known = dict.fromkeys((*self._settings.start, *self._by_address))
        ranges = await first_answer(self._ask(self._settings.server.at(each)) for each in known)
        self._slots = [None] * SLOTS
        for start, end, address in ranges:
            self._slots[start : end + 1] = [self._node(address)] * (end + 1 - start)
        self._drop_unused()
        self._stale = False

    def node_of(self, key: bytes) -> Node:
        node = self._slots[slot_of(key)]
        if node is None:
            raise BackendConnectionError(f"no node of the cluster serves slot {slot_of(key)} at the moment")
        return node

    def suspect(self) -> None:
        self._stale = True

    def move(self, slot: int, address: str) -> Node:
        """Note that a slot lives elsewhere now, and return where."""
        node = self.node_at(address)
        self._slots[slot] = node
        return node

    def node_at(self, address: str) -> Node:
        """Return the node at ``HOST:PORT``, as redirections write it."""
        host, _, port = address.rpartition(":")
        if not host:
            # Redis 7 leaves out the host when it is the one that was asked; only a fresh look can tell.
            raise BackendConnectionError(f"redirected to {address!r}, which names no host")
        return self._node(self._remapped(host, int(port)))

    def serves(self, key: bytes, node: Node) -> bool:
        """Return whether this key lives on this node."""
        return self._slots[slot_of(key)] is node

    async def _ask(self, start: ServerSettings) -> list[tuple[int, int, Address]]:
        (reply,) = await _ask_once(start, pack(b"CLUSTER", b"SLOTS"))
        if isinstance(reply, Exception):
            raise reply
        if not reply:
            raise BackendConnectionError(f"the node at {start.address} knows of no slots")
        return [self._read_range(entry, start) for entry in reply]

    def _read_range(self, entry: Any, start: ServerSettings) -> tuple[int, int, Address]:
        first, last, (host, port, *_), *_ = entry
        # An empty host means "where you asked me" (CLUSTER SLOTS).
        name = bytes(host or b"").decode()
        return first, last, self._remapped(name if name not in ("", "?") else start.kwargs["host"], port)

    def _remapped(self, host: str, port: int) -> Address:
        remap = self._settings.address_remap
        return (host, port) if remap is None else remap((host, port))

    def _node(self, address: Address) -> Node:
        if address not in self._by_address:
            settings = self._settings.server.at(address)

            async def locate() -> ServerSettings:
                return settings

            self._by_address[address] = Node(locate, greet=self._greet, timeout=HANGING_TIMEOUT)
            self.nodes = tuple(self._by_address.values())
        return self._by_address[address]

    def _drop_unused(self) -> None:
        used = set(self._slots)
        for address, node in list(self._by_address.items()):
            if node not in used:
                node.close()
                del self._by_address[address]
        self.nodes = tuple(self._by_address.values())


def make_topology(settings: AnySettings, greet: Greet | None) -> Topology:
    """Return the topology that the settings describe."""
    if isinstance(settings, ClusterSettings):
        return Cluster(settings, greet)
    if isinstance(settings, SentinelSettings):
        return Sentinel(settings, greet)
    return Single(settings, greet)


async def first_answer(asking: Iterable[Awaitable[AnswerT]]) -> AnswerT:
    """Return the first answer of several servers asked at once; a hung one must not hold up the others.

    Raises:
        BackendError: No answer, and at least one refused.
        BackendConnectionError: No answer, and nobody refused.
    """
    pending = {asyncio.ensure_future(each) for each in asking}
    errors: list[BaseException] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # All of them are looked at: the loop complains of a task whose error nobody has seen.
            failed = {task: error for task in done if (error := task.exception()) is not None}
            for task in done - failed.keys():
                return task.result()
            errors += failed.values()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    raise next((error for error in errors if isinstance(error, BackendError)), errors[0])


async def _ask_once(server: ServerSettings, command: bytes) -> list[Reply]:
    wire = await open_wire(server, Wire)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await wire.call(command, 1)
    except TimeoutError as exc:
        raise BackendConnectionError(f"redis at {server.address} did not answer in {CONNECT_TIMEOUT} s") from exc
    finally:
        wire.abort("asked")


async def _require_primary(wire: Wire) -> None:
    await learn_facts(wire, "replication")
    role = wire.facts.get("role")
    if role != "master":
        raise BackendConnectionError(f"redis at {wire.address} is a {role}, not the primary (any more)")
