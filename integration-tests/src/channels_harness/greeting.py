"""What a server says to whom it does not let in, where no real one says so on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from channels_harness.binaries import RedisFlavour, redis_program

__all__ = ("greeting", "protected_mode_words")


@asynccontextmanager
async def greeting(words: bytes) -> AsyncIterator[str]:
    """Serve these words to whoever connects, and hang up; give the URL."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1") as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def protected_mode_words(flavour: RedisFlavour) -> bytes:
    """Return what this program sends to clients from elsewhere in protected mode, read from the program itself."""
    program = Path(redis_program(flavour)).read_bytes()
    begin = program.index(b"-DENIED")
    return program[begin : program.index(b"\r\n", begin) + 2]
