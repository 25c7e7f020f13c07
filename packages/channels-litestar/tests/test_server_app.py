"""The served application where its broker fails, in one process with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from live_site import Site, eventually

from channels_core.backend import Publication
from channels_core.events import Event
from channels_core.exceptions import BackendConnectionError, BackendError
from channels_core.memory import MemoryChannelsBackend
from channels_litestar import ChannelsPlugin
from channels_litestar._server_app import ServerInfo, make_app


class FailingBackend(MemoryChannelsBackend):
    """A broker that can go away, and that refuses events that say so."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    async def on_startup(self) -> None:
        if self.gone.is_set():
            raise BackendConnectionError("the broker is away")
        await super().on_startup()

    async def stream_events(self) -> AsyncIterator[Event]:
        await self.gone.wait()
        if self.gone.is_set():
            raise BackendConnectionError("the broker went away")
        yield Event("never", b"")

    async def publish_probe(self, channel: str, data: bytes) -> None:
        raise BackendError("probes are refused here, because nothing is received")

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        if self.gone.is_set():
            raise BackendConnectionError("the broker is away")
        return [BackendError("refused") if each.data == b"refuse me" else None for each in batch]


def make_site(backend: MemoryChannelsBackend, max_bytes: int = 1000) -> Site:
    plugin = ChannelsPlugin(backend, arbitrary_channels_allowed=True, publish_timeout=0.2, shutdown_timeout=0.1)
    return Site(plugin, app=make_app(plugin, ServerInfo(None, 0, max_bytes), ["same-origin"]))


async def test_health_and_publish_without_broker() -> None:
    """While the broker is away /health and /publish answer 503, and the metrics say so."""
    backend = FailingBackend()
    async with make_site(backend) as site, site.client() as client:
        assert (await client.get("/health")).status_code == 200
        backend.gone.set()
        await eventually(lambda: not site.plugin.health().ok)
        health = await client.get("/health")
        assert (health.status_code, health.json()["ok"]) == (503, False)
        assert (await client.post("/publish/chat", content="x")).status_code == 503
        assert "channels_healthy 0\n" in (await client.get("/metrics")).text


async def test_a_refused_event() -> None:
    """An event that the broker refuses is answered 502: trying again does not help."""
    async with make_site(FailingBackend()) as site, site.client() as client:
        assert (await client.post("/publish/chat", content="x")).status_code == 204
        assert (await client.post("/publish/chat", content="refuse me")).status_code == 502


async def test_more_bytes_than_the_broker_takes() -> None:
    """The backend's own limit answers 413 as well."""
    backend = FailingBackend()
    backend.max_payload = 10
    async with make_site(backend) as site, site.client() as client:
        assert (await client.post("/publish/chat", content="x" * 10)).status_code == 204
        assert (await client.post("/publish/chat", content="x" * 11)).status_code == 413
