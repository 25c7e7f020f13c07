"""The faults do what they say, to real sockets and real processes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from channels_core.testing import FaultSchedule, Proxy, ServerProcess, Step

DEADLINE = 10.0

ECHO = """
import asyncio, sys

async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", int(sys.argv[1]))
    print("listening", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@asynccontextmanager
async def echo_through(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        async with asyncio.timeout(DEADLINE):
            yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with echo_server(tmp_path, free_port()) as process:
        yield process


def echo_server(folder: Path, port: int) -> ServerProcess:
    log = folder / "log"
    return ServerProcess(
        [sys.executable, "-c", ECHO, str(port)], ready=lambda: b"listening" in log.read_bytes(), log=log
    )


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", int(server.command[-1])) as running:
        yield running


async def test_the_proxy_forwards_both_ways(proxy: Proxy) -> None:
    """What the client sends reaches the server, and the answer comes back, with delay and throttle as well."""
    proxy.delay = 0.001
    proxy.bytes_per_second = 10_000_000
    payload = bytes(range(256)) * 1024
    async with echo_through(proxy) as (reader, writer):
        writer.write(payload)
        assert await reader.readexactly(len(payload)) == payload
        assert (proxy.connections, proxy.accepted) == (1, 1)


async def test_the_end_of_a_connection_is_forwarded(proxy: Proxy) -> None:
    """When the client has said all, the server's answer and its end still come."""
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        assert await reader.read() == b"last words"


async def test_a_cut_resets_every_connection_and_lets_new_ones_in(proxy: Proxy) -> None:
    """Cutting ends all connections with RST; the next client is served."""
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"


async def test_a_cut_with_fin_looks_like_an_orderly_end(proxy: Proxy) -> None:
    """Without a reset the client reads the end of the stream."""
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        proxy.cut(reset=False)
        assert await reader.read() == b""


async def test_nothing_passes_while_stalled_and_all_of_it_after(proxy: Proxy) -> None:
    """A stall holds one direction and closes nothing; what waited arrives when it ends."""
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"1")
        await reader.readexactly(1)
        proxy.stall("down")
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert proxy.connections == 1
        proxy.resume()
        assert await reader.readexactly(1) == b"2"


async def test_a_stalled_proxy_can_be_cut_and_stopped(server: ServerProcess) -> None:
    """Half-open connections do not keep the proxy from ending."""
    with Proxy("127.0.0.1", int(server.command[-1])) as proxy:
        proxy.stall()
        async with echo_through(proxy) as (_, writer):
            writer.write(b"x")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(proxy.host, proxy.port)


async def test_refusing_keeps_old_connections_and_accepting_opens_the_same_port(proxy: Proxy) -> None:
    """A refusing proxy turns new clients away only."""
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"w")
        assert await reader.readexactly(1) == b"w"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.accept()
    async with echo_through(proxy) as (reader, writer):
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"


def test_the_proxy_can_be_started_again(server: ServerProcess) -> None:
    """Stopping twice is harmless, and a stopped proxy serves again on the same port, gates open."""
    proxy = Proxy("127.0.0.1", int(server.command[-1]))
    with proxy:
        proxy.stall()
        port = proxy.port
    proxy.stop()
    with proxy, socket.create_connection((proxy.host, port), DEADLINE) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    with pytest.raises(RuntimeError, match="not started"):
        proxy.cut()


def test_a_process_is_killed_and_restarted(server: ServerProcess) -> None:
    """Killing ends the process, starting makes a new one, both at once is a restart."""
    first = server.pid
    server.kill()
    assert not server.is_running
    server.start()
    second = server.pid
    server.restart(kill=True)
    assert len({first, second, server.pid}) == 3


def test_a_frozen_process_answers_nothing_and_goes_on_later(server: ServerProcess) -> None:
    """A frozen server keeps its connections; after it goes on, the answer comes."""
    with socket.create_connection(("127.0.0.1", int(server.command[-1])), DEADLINE) as client:
        client.sendall(b"1")
        assert client.recv(1) == b"1"
        server.pause()
        client.settimeout(0.05)
        client.sendall(b"2")
        with pytest.raises(TimeoutError):
            client.recv(1)
        server.resume()
        client.settimeout(DEADLINE)
        assert client.recv(1) == b"2"


def test_a_frozen_process_can_be_stopped(server: ServerProcess) -> None:
    """Stopping does not wait for a frozen process for ever, and twice is harmless."""
    server.pause()
    server.stop()
    server.stop()
    assert not server.is_running


def test_a_process_that_ends_at_its_start_says_why(tmp_path: Path) -> None:
    """The error quotes what the server printed."""
    broken = ServerProcess(
        [sys.executable, "-c", "raise SystemExit('no such option')"], ready=lambda: False, log=tmp_path / "log"
    )
    with pytest.raises(RuntimeError, match="no such option"):
        broken.start()
    assert not broken.is_running


def test_a_schedule_is_the_same_for_the_same_seed() -> None:
    """A seed decides a schedule, its text gives it back, and no fault is left out."""
    plan = FaultSchedule.plan(7, ["cut", "stall", "restart"], count=7, within=5.0)
    assert plan == FaultSchedule.plan(7, ["cut", "stall", "restart"], count=7, within=5.0)
    assert plan != FaultSchedule.plan(8, ["cut", "stall", "restart"], count=7, within=5.0)
    assert FaultSchedule.parse(str(plan)) == plan
    assert {step.fault for step in plan.steps[:3]} == {"cut", "stall", "restart"}
    assert [step.at for step in plan.steps] == sorted(step.at for step in plan.steps)


async def test_a_schedule_runs_its_steps_in_order() -> None:
    """Every step calls its action with its duration."""
    done: list[tuple[str, float]] = []

    async def cut(lasts: float) -> None:
        done.append(("cut", lasts))

    async def stall(lasts: float) -> None:
        done.append(("stall", lasts))

    await FaultSchedule((Step(0.0, "stall", 0.5), Step(0.001, "cut", 0.1))).run({"cut": cut, "stall": stall})
    assert done == [("stall", 0.5), ("cut", 0.1)]
