"""``channels serve`` in a process of its own, as a person runs it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import websockets

__all__ = ("STOP_DEADLINE", "Served", "run_serve", "serving", "serving_with_uvicorn")

STOP_DEADLINE: Final = 15.0
"""Seconds for a stop that takes less than two; a server that hangs is found all the same."""

_START_DEADLINE: Final = 45.0
"""Seconds until the server says where it is; imports are slow on a busy machine."""


class Served:
    """A running server."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process: Final = process
        self.base_url: Final = url

    def url(self, path: str, scheme: str = "http") -> str:
        """Return the address of a path."""
        return self.base_url.replace("http", scheme, 1) + path

    def connect(self, path: str) -> websockets.connect:
        """Open a WebSocket."""
        return websockets.connect(self.url(path, "ws"), proxy=None)

    def client(self) -> httpx.AsyncClient:
        """Open an HTTP client."""
        return httpx.AsyncClient(base_url=self.base_url, trust_env=False, timeout=30)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and return exit code and what was written to standard error."""
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_DEADLINE):
            _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "channels_core.cli",
        "serve",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run_serve(*arguments: str) -> tuple[int, str]:
    """Run the command to its end, and return exit code and what was written to standard error."""
    process = await start(*arguments)
    async with asyncio.timeout(_START_DEADLINE):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


@contextlib.asynccontextmanager
async def serving_with_uvicorn(app: str) -> AsyncIterator[Served]:
    """Run the ``uvicorn`` command on an application of this folder, with nothing but its defaults."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", app, "--app-dir", str(Path(__file__).parent), "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(_START_DEADLINE):
            while "running on" not in (line := (await process.stderr.readline()).decode()):
                assert line, "uvicorn ended before it was running"
        yield Served(process, next(word for word in line.split() if word.startswith("http://")))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@contextlib.asynccontextmanager
async def serving(*arguments: str, port: str = "0") -> AsyncIterator[Served]:
    """Run the command on a free port, unless one is named, until the block ends."""
    process = await start("--port", port, *arguments)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_DEADLINE):
            words = (await process.stdout.readline()).decode().split()
        yield Served(process, words[-1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
