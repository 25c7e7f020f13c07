"""The memory backend with a broker that can be stopped, cut, trimmed and made to forget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from channels_core._memory_broker import MemoryBroker, Receiver
from channels_core.backend import ChannelsBackend, History, Publication
from channels_core.events import Position
from channels_core.exceptions import BackendConnectionError, BackendError
from channels_core.memory import MemoryChannelsBackend
from channels_core.testing import Subject


class RemoteBroker(MemoryBroker):
    """A memory broker that one needs a connection for."""

    def __init__(self, history: int) -> None:
        super().__init__(history, None)
        self.away = False
        self.connections: set[Receiver] = set()

    def cut(self) -> None:
        for receiver in tuple(self.connections):
            self.connections.discard(receiver)
            self.detach(receiver)


class RemoteBackend(MemoryChannelsBackend):
    """The memory backend, which hears when its broker is away."""

    def __init__(self, broker: RemoteBroker) -> None:
        super().__init__()
        self._adopt(broker)
        self.broker = broker

    async def on_startup(self) -> None:
        self._reach()
        await super().on_startup()
        self.broker.connections.add(self._started())

    async def on_shutdown(self) -> None:
        if self._receiver is not None:
            self.broker.connections.discard(self._receiver)
        await super().on_shutdown()

    async def subscribe(self, channels: Sequence[str]) -> None:
        self._reach()
        await super().subscribe(channels)

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        self._reach()
        return await super().publish_batch(batch)

    async def publish_probe(self, channel: str, data: bytes) -> None:
        self._reach()
        await super().publish_probe(channel, data)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        self._reach()
        return await super().get_history(channel, limit, after=after)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        self._reach()
        return await super().get_tops(channels)

    def _reach(self) -> None:
        if self.broker.away:
            raise BackendConnectionError("the broker is away")


class MemorySubject(Subject):
    """The memory backend with every hook."""

    idle_seconds = 0.2

    @cached_property
    def broker(self) -> RemoteBroker:
        return RemoteBroker(100 if self.keeps_history else 0)

    def make_backend(self) -> ChannelsBackend:
        return RemoteBackend(self.broker)

    async def lose_memory(self) -> None:
        self.broker.forget()

    async def trim(self, channel: str, keep: int) -> None:
        self.broker.trim(channel, keep)

    async def cut_connections(self) -> None:
        self.broker.cut()

    async def stop_broker(self) -> None:
        self.broker.away = True
        self.broker.cut()

    async def start_broker(self) -> None:
        self.broker.away = False

    async def change_incarnation(self) -> None:
        self.broker.reincarnate()

    async def connection_count(self) -> int:
        return len(self.broker.connections)
