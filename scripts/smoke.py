"""Start `channels serve`, join a channel with a real WebSocket client, POST an event and receive it.

Usage: `uv run scripts/smoke.py [URL]`; the backend URL is memory:// unless given.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from typing import Final

import httpx
import websockets

DEADLINE: Final = 30.0
"""Seconds for the whole run: generous, because a cold machine imports slowly."""

RETRY: Final = 0.05
"""Seconds between two looks at a server that is starting."""

MESSAGE: Final = '{"text": "hello from the smoke run"}'


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def serving(url: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the server as a person would, and stop it with SIGTERM."""
    command = ("-m", "channels_core.cli", "serve", url, "--host", "127.0.0.1", "--port", str(port))
    process = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        status = await process.wait()
    if status not in (0, -signal.SIGTERM):
        raise SystemExit(f"the server ended with status {status}")


async def healthy(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    """Wait until the server says that it is well, or has ended."""
    while process.returncode is None:
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/health")).status_code == httpx.codes.OK:
                return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), RETRY)
    raise SystemExit("the server ended before it was well")


async def smoke(url: str) -> None:
    """Publish over HTTP what a WebSocket client must receive."""
    port = free_port()
    async with (
        asyncio.timeout(DEADLINE),
        serving(url, port) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        await healthy(client, process)
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws/chat", proxy=None) as socket_:
            (await client.post("/publish/chat", content=MESSAGE)).raise_for_status()
            received = await socket_.recv()
        if received != MESSAGE:
            raise SystemExit(f"published {MESSAGE!r}, received {received!r}")
        print("the page answers", (await client.get("/")).raise_for_status().status_code)
    print("published over HTTP, received over WebSocket")


if __name__ == "__main__":
    asyncio.run(smoke(sys.argv[1] if len(sys.argv) > 1 else "memory://"))
