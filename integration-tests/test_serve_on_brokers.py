"""``channels serve`` on real brokers: several processes behind one broker, and a broker that goes away."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final
from uuid import uuid4

import pytest
from served import Served, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from channels_harness import RedisServer
from channels_harness.brokers import backend_url

V1: Final = Subprotocol("channels.v1")

DEADLINE: Final = 30.0
"""Seconds for what takes a moment; only against hanging."""


def follow(server: Served, channel: str, after: str | None = None) -> connect:
    """Open an enveloped WebSocket."""
    query = "" if after is None else f"?after={after}"
    return connect(server.url(f"/ws/{channel}{query}", "ws"), proxy=None, subprotocols=[V1])


async def frame(client: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE):
        decoded: dict[str, Any] = json.loads(await client.recv())
        return decoded


async def publish(server: Served, channel: str, *texts: str) -> None:
    async with server.client() as client:
        for text in texts:
            (await client.post(f"/publish/{channel}", content=text)).raise_for_status()


async def wait_for_health(server: Served, status: int) -> None:
    async with asyncio.timeout(DEADLINE), server.client() as client:
        while (await client.get("/health")).status_code != status:
            pass


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker, kind", [("redis", "streams"), ("postgres", "")])
async def test_a_client_resumes_at_another_process(broker: str, kind: str, request: pytest.FixtureRequest) -> None:
    """What is published at one process reaches the other's clients, and a cursor of one is good at the other."""
    url = backend_url(request.getfixturevalue(f"{broker}_url"), kind, history=100)
    channel = f"serve-{uuid4().hex}"
    async with serving(url) as one, serving(url) as other:
        async with follow(one, channel) as client:
            assert (await frame(client))["type"] == "joined"
            await publish(other, channel, "1", "2")
            assert (await frame(client))["data"] == "1"
            cursor = (await frame(client))["cursor"]
        await publish(one, channel, "3")
        async with follow(other, channel, cursor) as client:
            assert (await frame(client))["cursor"] == cursor
            await publish(one, channel, "4")
            assert [(await frame(client))["data"] for _ in range(2)] == ["3", "4"]
        for server in (one, other):
            assert await server.stop() == (0, "")


@pytest.mark.timeout(180)
async def test_a_broker_that_is_restarted() -> None:
    """While the broker is away /health says so; afterwards open connections go on by themselves, told of the border."""
    with RedisServer() as broker:
        url = backend_url(broker.url, "streams", history=100)
        async with serving(url) as server, follow(server, "chat") as client:
            await frame(client)
            await publish(server, "chat", "before")
            assert (await frame(client))["data"] == "before"
            broker.stop()
            await wait_for_health(server, 503)
            broker.start()
            await wait_for_health(server, 200)
            await publish(server, "chat", "after")
            border, event = await frame(client), await frame(client)
            assert (border["type"], border["reason"]) == ("gap", "epoch")
            assert event["data"] == "after"
