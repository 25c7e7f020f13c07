"""``channels serve`` as a process, over real sockets."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest
from live_site import close_code, eventually, receive
from served import run_serve, serving, serving_with_uvicorn


async def test_published_over_http_received_over_websocket_and_sse() -> None:
    """What POST publishes reaches WebSocket and SSE clients byte for byte, and the counters show it."""
    async with serving() as server, server.client() as client, server.connect("/ws/a/b") as socket_:
        async with client.stream("GET", "/sse/a/b") as response:
            for path in ("/publish/a/b", "/publish/a%2Fb"):
                answer = await client.post(path, content=' {"raw": "bytes"}\n', headers={"content-type": "text/x"})
                assert answer.status_code == 204
                assert await receive(socket_) == ' {"raw": "bytes"}\n'
            lines = response.aiter_lines()
            while (line := await anext(lines)) != 'data:  {"raw": "bytes"}':
                assert line.split(":")[0] in ("retry", "id", "")
            metrics = (await client.get("/metrics")).text
        assert "channels_published_total 2\n" in metrics
        assert "channels_subscribers 2\n" in metrics
        assert "channels_healthy 1\n" in metrics
        assert (await client.post("/publish/a/b", content=b"\x00\xff")).status_code == 204
        assert await receive(socket_) == b"\x00\xff"


async def test_websocket_clients_publish() -> None:
    """What a WebSocket client sends reaches the others."""
    async with serving() as server, server.connect("/ws/chat") as one, server.connect("/ws/chat") as other:
        await one.send("hello")
        assert await receive(other) == "hello"


async def test_history_of_the_default_broker() -> None:
    """Without URL the broker keeps history, which a client may ask for."""
    async with serving() as server, server.client() as client:
        await client.post("/publish/chat", content="old")
        async with server.connect("/ws/chat?history=5") as asking, server.connect("/ws/chat") as plain:
            await client.post("/publish/chat", content="new")
            assert [await receive(asking) for _ in range(2)] == ["old", "new"]
            assert await receive(plain) == "new"


async def test_views() -> None:
    """Health, the page and what it needs to know are served, with headers that keep the page to itself."""
    async with serving() as server, server.client() as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["ok"]) == (200, True)
        assert (await client.get("/channels")).json() == {"channels": None, "history": 1000, "max_bytes": 1024 * 1024}
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<title>channels</title>" in page.text
        assert (await client.get("/metrics")).headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await client.get("/other")).status_code == 404
        _, errors = await server.stop()
        assert errors == ""


async def test_only_the_named_channels() -> None:
    """With --channel others are neither published to nor followed."""
    async with serving("memory://", "--channel", "chat", "--channel", "a/b") as server, server.client() as client:
        assert (await client.get("/channels")).json()["channels"] == ["chat", "a/b"]
        assert (await client.get("/channels")).json()["history"] == 0
        assert (await client.post("/publish/other", content="x")).status_code == 404
        assert (await client.get("/sse/other")).status_code == 404
        async with server.connect("/ws/a/b") as socket_:
            assert (await client.post("/publish/a/b", content="x")).status_code == 204
            assert await receive(socket_) == "x"


async def test_limits_and_origins() -> None:
    """A body that is too large gets 413, a page from elsewhere 403 unless it was named."""
    async with serving("--origin", "https://friend.example") as server, server.client() as client:
        assert (await client.post("/publish/chat", content=b"x" * (1024 * 1024))).status_code == 204
        assert (await client.post("/publish/chat", content=b"x" * (1024 * 1024 + 1))).status_code == 413
        for origin, status in [
            ("https://elsewhere.example", 403),
            ("https://friend.example", 204),
            (server.base_url, 204),
        ]:
            answer = await client.post("/publish/chat", content="x", headers={"origin": origin})
            assert answer.status_code == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_with_many_open_streams(number: signal.Signals) -> None:
    """A stop signal closes 100 WebSockets with 1012 and ends an event stream; the process exits cleanly and quietly."""
    async with serving() as server, server.client() as client, client.stream("GET", "/sse/chat") as response:
        sockets = await asyncio.gather(*(server.connect("/ws/chat") for _ in range(100)))
        code, errors = await server.stop(number)
        assert (code, errors) == (0, "")
        assert {await close_code(each) for each in sockets} == {1012}
        assert (await response.aread()).startswith(b"retry:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_knows_nothing_of_us_does_not_wait(number: signal.Signals) -> None:
    """Under the plain uvicorn command a stop signal ends all streams, a user's own too; otherwise it would wait."""
    async with (
        serving_with_uvicorn("plain_app:app") as server,
        server.client() as client,
        client.stream("GET", "/sse/chat") as generated,
        client.stream("GET", "/own") as own,
        server.connect("/ws/chat") as socket_,
    ):
        code, _ = await server.stop(number)
        assert code == {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}[number]  # as without us
        assert await close_code(socket_) == 1012
        assert (await generated.aread()).startswith(b"retry:")
        assert await own.aread() == b""


async def test_a_stop_does_not_wait_for_a_client_that_reads_nothing() -> None:
    """A client that takes nothing any more does not hold up the end."""
    async with serving() as server, server.client() as client:
        deaf = socket.create_connection(("127.0.0.1", int(server.base_url.rpartition(":")[2])))
        deaf.sendall(b"GET /sse/chat HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await asyncio.to_thread(deaf.recv, 15) == b"HTTP/1.1 200 OK"
        for _ in range(20):
            await client.post("/publish/chat", content=b"x" * 1_000_000)
        code, _ = await server.stop()
        assert code == 0
        deaf.close()


async def test_a_client_that_does_not_read_loses_its_connection() -> None:
    """After --send-timeout even the socket is gone, not only the subscription."""
    async with serving("--send-timeout", "0.5") as server, server.client() as client:
        deaf = socket.create_connection(("127.0.0.1", int(server.base_url.rpartition(":")[2])))
        deaf.sendall(b"GET /sse/chat HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await asyncio.to_thread(deaf.recv, 15) == b"HTTP/1.1 200 OK"
        for _ in range(20):
            await client.post("/publish/chat", content=b"x" * 1_000_000)
        async with asyncio.timeout(30):
            while "channels_subscribers 0\n" not in (await client.get("/metrics")).text:
                pass
        await eventually(lambda: not _is_established(deaf))
        deaf.close()


def _is_established(client: socket.socket) -> bool:
    """Return whether the server's end of the connection still exists."""
    port = f":{client.getsockname()[1]:04X}"
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(remote.endswith(port) for _, _, remote, *_ in rows)


async def test_a_taken_port_is_said_in_one_line() -> None:
    """A port in use ends the command at once, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, errors = await run_serve("--port", port)
    assert code == 1
    assert (
        errors == f"Error: port {port} on 127.0.0.1 is taken; choose another with --port, or --port 0 for a free one\n"
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nosuch://broker"], "nosuch"),
        (["memory://?histori=3"], "histori"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
        (["--host", "no such host"], "no such host"),
        (["memory://", "--channel", "a//b"], "a//b"),
    ],
)
async def test_what_cannot_be_served_is_said_in_one_line(arguments: list[str], words: str) -> None:
    """Bad arguments end the command with one line that names them, and no traceback."""
    code, errors = await run_serve("--port", "0", *arguments)
    assert code == 1
    assert errors.startswith("Error: ")
    assert words in errors
    assert errors.count("\n") == 1


async def test_a_broker_that_is_away_is_said_in_one_line() -> None:
    """A broker that does not answer ends the command with one line, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code, errors = await run_serve("--port", "0", f"redis://:hush@127.0.0.1:{port}")
    assert code == 1
    assert errors.startswith("Error: ")
    assert str(port) in errors
    assert "hush" not in errors
    assert "Traceback" not in errors
