"""The clients that count frames."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from channels_bench.crowd import Crowd, count_frames

TEXT = b"\x81\x05hello"
LONG = b"\x82\x7e\x01\x00" + b"x" * 256
HUGE = b"\x82\x7f" + (70_000).to_bytes(8) + b"x" * 70_000


def test_frames_of_every_length_are_counted() -> None:
    """Lengths in one, two and eight bytes."""
    assert count_frames(TEXT + LONG + HUGE) == (3, b"")


@pytest.mark.parametrize("frame", [TEXT, LONG, HUGE])
@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_what_is_incomplete_is_kept(frame: bytes, cut: int) -> None:
    """A frame that arrives in two pieces counts once, wherever it was cut."""
    count, rest = count_frames(TEXT + frame[:cut])
    assert (count, rest) == (1, frame[:cut])
    assert count_frames(rest + frame[cut:]) == (1, b"")


def test_control_frames_do_not_count() -> None:
    """A ping and a close are no events."""
    assert count_frames(b"\x89\x00" + TEXT + b"\x88\x02\x03\xe8") == (1, b"")


class Server(asyncio.Protocol):
    """Answers whatever it is asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


@asynccontextmanager
async def crowd_of(answer: bytes) -> AsyncIterator[Crowd]:
    server = await asyncio.get_running_loop().create_server(lambda: Server(answer), "127.0.0.1", 0)
    async with server:
        crowd = Crowd("127.0.0.1", server.sockets[0].getsockname()[1], "/ws")
        yield crowd
        crowd.close()


async def test_a_crowd_waits_until_everybody_has_everything() -> None:
    """Also for frames that came together with the handshake."""
    async with crowd_of(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + TEXT * 3) as crowd:
        await crowd.connect(20)
        await crowd.receive(60)


async def test_a_refused_handshake_is_an_error() -> None:
    """With the server's own words."""
    async with crowd_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as crowd:
        with pytest.raises(ConnectionError, match="503"):
            await crowd.connect(1)
