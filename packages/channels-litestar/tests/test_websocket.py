"""The generated WebSocket handlers, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from live_site import (
    DEADLINE,
    HangingBackend,
    Site,
    SpiedSubscriber,
    close_code,
    eventually,
    feed,
    receive,
    refusal,
    reset,
)

from channels_core.backend import ChannelsBackend
from channels_core.events import Gap
from channels_core.exceptions import ImproperlyConfigured
from channels_core.memory import MemoryChannelsBackend
from channels_core.subscriber import Subscriber
from channels_litestar import ChannelsPlugin

HISTORY = "memory://?history=10"


def make_plugin(backend: str | ChannelsBackend = "memory://", **options: Any) -> ChannelsPlugin:
    options.setdefault("channels", ["chat", "news"])
    return ChannelsPlugin(backend, create_ws_route_handlers=True, **options)


async def test_an_event_published_after_connecting_arrives() -> None:
    """Whatever is published after the handshake was answered reaches the client."""
    async with Site(make_plugin()) as site, site.connect("/chat") as client:
        await site.plugin.wait_published("hello", "chat")
        assert await receive(client) == "hello"


async def test_each_declared_channel_has_its_own_handler() -> None:
    """A client gets the events of the channel in its path, and no others."""
    async with Site(make_plugin()) as site, site.connect("/chat") as chat, site.connect("/news") as news:
        await site.plugin.wait_published("for chat", "chat")
        await site.plugin.wait_published("for news", "news")
        assert await receive(chat) == "for chat"
        assert await receive(news) == "for news"


async def test_an_undeclared_channel_has_no_handler() -> None:
    """Connecting to a channel that was not declared is refused."""
    async with Site(make_plugin()) as site:
        assert await refusal(site, "/other") == 403


@pytest.mark.parametrize("base_path", ["/ws", "ws/", "/ws/"])
async def test_base_path(base_path: str) -> None:
    """Handlers are below the base path, however its slashes are written."""
    async with Site(make_plugin(ws_handler_base_path=base_path)) as site, site.connect("/ws/chat") as client:
        await site.plugin.wait_published("hello", "chat")
        assert await receive(client) == "hello"


@pytest.mark.parametrize(
    "path, channel",
    [
        ("/ws/a", "a"),
        ("/ws/a/b", "a/b"),
        ("/ws/a%2Fb", "a/b"),
        ("/ws/%20x%25%3F%23", " x%?#"),
        ("/ws/%C3%A4%E2%82%AC", "ä€"),
        ("/ws/{a}", "{a}"),
    ],
)
async def test_the_path_names_any_channel(path: str, channel: str) -> None:
    """With arbitrary channels one handler serves any name, percent-encoded, slashes either way."""
    plugin = make_plugin(channels=None, arbitrary_channels_allowed=True, ws_handler_base_path="/ws")
    async with Site(plugin) as site, site.connect(path) as client:
        await site.plugin.wait_published("hello", channel)
        assert await receive(client) == "hello"


@pytest.mark.parametrize("path", ["/ws//a", "/ws/a/", "/ws/a//b", "/ws/%FF"])
async def test_a_path_that_names_no_channel_exactly_is_refused(path: str) -> None:
    """A name with an empty part would be folded into another one, so it is refused."""
    plugin = make_plugin(channels=None, arbitrary_channels_allowed=True, ws_handler_base_path="/ws")
    async with Site(plugin) as site:
        assert await refusal(site, path) == 403


async def test_history_on_connect() -> None:
    """A client gets the newest events first, oldest of them first, then live ones."""
    async with Site(make_plugin(HISTORY, ws_handler_send_history=2)) as site:
        for text in ("1", "2", "3"):
            await site.plugin.wait_published(text, "chat")
        async with site.connect("/chat") as client:
            await site.plugin.wait_published("4", "chat")
            assert [await receive(client) for _ in range(3)] == ["2", "3", "4"]


async def test_no_history_unless_asked_for() -> None:
    """A new client gets no old events by default."""
    async with Site(make_plugin(HISTORY)) as site:
        await site.plugin.wait_published("old", "chat")
        async with site.connect("/chat") as client:
            await site.plugin.wait_published("new", "chat")
            assert await receive(client) == "new"


async def test_the_client_may_ask_for_history() -> None:
    """?history= gives up to handler_max_history events of the past."""
    async with Site(make_plugin(HISTORY, handler_max_history=2)) as site:
        for text in ("1", "2", "3"):
            await site.plugin.wait_published(text, "chat")
        async with site.connect("/chat?history=2") as client:
            assert [await receive(client) for _ in range(2)] == ["2", "3"]
        assert await refusal(site, "/chat?history=3") == 400
        assert await refusal(site, "/chat?history=-1") == 400


async def test_binary_mode() -> None:
    """In binary mode every event is a binary message."""
    async with Site(make_plugin(ws_send_mode="binary")) as site, site.connect("/chat") as client:
        await site.plugin.wait_published("hello", "chat")
        assert await receive(client) == b"hello"


async def test_text_mode_keeps_what_is_no_text() -> None:
    """In text mode data that is not UTF-8 comes unchanged in a binary message."""
    async with Site(make_plugin()) as site, site.connect("/chat") as client:
        await site.plugin.wait_published(b"\xff\x00", "chat")
        assert await receive(client) == b"\xff\x00"


@pytest.mark.parametrize("data", ["text", b"bytes \xff", "", b""])
async def test_publish_mode(data: str | bytes) -> None:
    """With ws_handler_publish what a client sends is published as it is."""
    plugin = make_plugin(ws_handler_publish=True, ws_send_mode="binary")
    async with Site(plugin) as site, site.connect("/chat") as one, site.connect("/chat") as other:
        await one.send(data)
        expected = data.encode() if isinstance(data, str) else data
        assert await receive(other) == expected
        assert await receive(one) == expected


async def test_a_burst_of_messages_is_published_in_order() -> None:
    """More small messages at once than may wait for the broker are all published, in order."""
    plugin = make_plugin(ws_handler_publish=True, max_pending=50)
    async with (
        Site(plugin) as site,
        site.connect("/chat") as reader,
        site.connect("/chat", compression=None, max_queue=None) as writer,
    ):
        numbers = [str(number) for number in range(3000)]
        writer.transport.write(b"".join(masked_frame(number) for number in numbers))
        assert [await receive(reader) for _ in numbers] == numbers


def masked_frame(text: str) -> bytes:
    """Return a client's text frame; written by hand, so that many are in one packet."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode()


async def test_without_publish_mode_messages_are_discarded() -> None:
    """By default what a client sends goes nowhere, and the connection stays."""
    async with Site(make_plugin()) as site, site.connect("/chat") as client:
        await client.send("from the client")
        pong = await client.ping()
        await pong
        await site.plugin.wait_published("from the server", "chat")
        assert await receive(client) == "from the server"


async def test_a_gap_closes_a_raw_connection(spied: list[Subscriber]) -> None:
    """By default a raw connection ends with 1012 where events may be missing, after the events before the gap."""
    plugin = make_plugin(subscriber_class=SpiedSubscriber)
    async with Site(plugin) as site, site.connect("/chat") as client:
        feed(spied[0], "1", "2", Gap("chat", "disconnected"), "3")
        assert [await receive(client) for _ in range(2)] == ["1", "2"]
        assert await close_code(client) == 1012
        await eventually(lambda: site.subscribers == 0)


async def test_a_gap_can_be_ignored(spied: list[Subscriber]) -> None:
    """With ws_on_gap="ignore" a raw connection goes on behind a gap."""
    plugin = make_plugin(subscriber_class=SpiedSubscriber, ws_on_gap="ignore")
    async with Site(plugin) as site, site.connect("/chat") as client:
        feed(spied[0], "1", Gap("chat", "disconnected"), "2")
        assert [await receive(client) for _ in range(2)] == ["1", "2"]


async def test_a_real_overflow_closes_a_raw_connection(spied: list[Subscriber]) -> None:
    """A full backlog is a gap, and closes a raw connection like any other."""
    plugin = make_plugin(subscriber_class=SpiedSubscriber, max_backlog=2)
    async with Site(plugin) as site, site.connect("/chat") as client:
        feed(spied[0], "1", "2", "3")
        assert [await receive(client) for _ in range(2)] == ["1", "2"]
        assert await close_code(client) == 1012


async def test_the_close_strategy_closes_for_later(spied: list[Subscriber]) -> None:
    """With backlog_strategy="close" a client that is too slow is told to come again."""
    plugin = make_plugin(subscriber_class=SpiedSubscriber, max_backlog=2, backlog_strategy="close")
    async with Site(plugin) as site, site.connect("/chat") as client:
        feed(spied[0], "1", "2", "3")
        assert await close_code(client) == 1013
        await eventually(lambda: site.subscribers == 0)


async def test_a_message_that_the_broker_does_not_take_closes() -> None:
    """A client that publishes more bytes than the broker takes is closed with 1009."""
    backend = MemoryChannelsBackend()
    backend.max_payload = 10
    async with Site(make_plugin(backend, ws_handler_publish=True)) as site, site.connect("/chat") as client:
        await client.send("x" * 11)
        assert await close_code(client) == 1009


async def test_a_full_publish_queue_closes_for_later() -> None:
    """A client that publishes faster than the broker accepts is told to come again."""
    backend = HangingBackend()
    plugin = make_plugin(backend, ws_handler_publish=True, max_pending=2, shutdown_timeout=0.1)
    backend.publishing.clear()
    async with Site(plugin) as site:
        async with site.connect("/chat") as client:
            for _ in range(5):
                await client.send("x")
            assert await close_code(client) == 1013
        backend.publishing.set()


async def test_a_close_frame_leaves_nothing() -> None:
    """When a client closes, its subscription goes."""
    async with Site(make_plugin()) as site:
        async with site.connect("/chat"):
            assert site.subscribers == 1
        await eventually(lambda: site.subscribers == 0)


async def test_a_tcp_reset_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """When clients vanish without a word, their subscriptions go, and nothing is logged."""
    async with Site(make_plugin()) as site:
        clients = [await site.connect("/chat") for _ in range(20)]
        assert site.subscribers == 20
        for client in clients:
            reset(client)
        await eventually(lambda: site.subscribers == 0)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


async def test_a_client_that_leaves_before_it_was_answered_leaves_nothing() -> None:
    """A client that goes before the broker confirmed its subscription ends the wait."""
    backend = HangingBackend()
    backend.subscribing.clear()
    async with Site(make_plugin(backend)) as site:
        connecting = asyncio.create_task(site.open("/chat"))
        async with asyncio.timeout(DEADLINE):
            await backend.asked.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        await eventually(lambda: not site.server.server_state.tasks)
        backend.subscribing.set()


async def test_a_client_that_does_not_read_is_given_up() -> None:
    """After send_timeout the subscription of a client that stopped reading goes; others lose nothing."""
    async with Site(make_plugin(send_timeout=0.3)) as site, site.connect("/chat") as good:
        stuck = await site.connect("/chat", compression=None)
        assert site.subscribers == 2
        for number in range(300):
            await site.plugin.wait_published(f"{number:04}" * 25_000, "chat")
            assert await receive(good) == f"{number:04}" * 25_000
        await eventually(lambda: site.subscribers == 1)
        reset(stuck)


async def test_a_client_that_answers_no_ping_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that the server closed on its own, with bytes still to write, ends without an error in the log."""
    async with Site(make_plugin(), ws_ping_interval=0.2, ws_ping_timeout=0.2) as site:
        stuck = await site.connect("/chat", compression=None)
        stuck.transport.pause_reading()
        (served,) = site.server.server_state.connections
        transport = served.transport
        while not transport.get_write_buffer_size():
            await site.plugin.wait_published("x" * 10_000, "chat")
        await eventually(transport.is_closing)
        await site.plugin.wait_published("too late", "chat")
        await eventually(lambda: site.subscribers == 0)
        reset(stuck)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


async def test_authorize_is_asked_before_accepting() -> None:
    """A connection that may not subscribe gets 403, and nobody is subscribed."""
    asked = []

    def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        asked.append((channel, action))
        return connection.query_params.get("token") == "good"

    async with Site(make_plugin(authorize=authorize)) as site:
        assert await refusal(site, "/chat?token=bad") == 403
        assert site.plugin.stats().channels == 0
        async with site.connect("/chat?token=good"):
            assert asked == [("chat", "subscribe")] * 2


async def test_authorize_may_raise() -> None:
    """An HTTP exception of authorize sets the status of the refusal."""

    async def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        raise NotAuthorizedException("who are you?")

    async with Site(make_plugin(authorize=authorize)) as site:
        assert await refusal(site, "/chat") == 401


async def test_authorize_is_asked_again() -> None:
    """When authorize changes its mind, the connection is closed with 1008."""
    allowed = True

    async def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        return allowed

    async with Site(make_plugin(authorize=authorize, authorize_interval=0.02)) as site:
        async with site.connect("/chat") as client:
            await site.plugin.wait_published("still allowed", "chat")
            assert await receive(client) == "still allowed"
            allowed = False
            assert await close_code(client) == 1008
        await eventually(lambda: site.subscribers == 0)


@pytest.mark.parametrize("error", [RuntimeError("the session store is away"), HTTPException(status_code=503)])
async def test_an_error_of_authorize_permits_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """When authorize cannot answer any more, the connection is closed with 1011, and the log says why."""
    calls = 0

    async def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise error
        return True

    async with Site(make_plugin(authorize=authorize, authorize_interval=0.02)) as site:
        async with site.connect("/chat") as client:
            assert await close_code(client) == 1011
        await eventually(lambda: site.subscribers == 0)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


async def test_publishing_is_authorized_on_its_own() -> None:
    """A client that may read and not write is closed with 1008 when it writes, and nothing is published."""

    async def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        return action == "subscribe"

    plugin = make_plugin(authorize=authorize, ws_handler_publish=True)
    async with Site(plugin) as site, site.connect("/chat") as reader, site.connect("/chat") as writer:
        await writer.send("not allowed")
        assert await close_code(writer) == 1008
        await site.plugin.wait_published("sentinel", "chat")
        assert await receive(reader) == "sentinel"


async def test_the_permission_to_publish_expires() -> None:
    """Authorize is asked again for a message that comes authorize_interval after the last answer."""
    asked: list[str] = []

    def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        asked.append(action)
        return asked.count("publish") < 2 or action == "subscribe"

    plugin = make_plugin(authorize=authorize, authorize_interval=0.05, ws_handler_publish=True)
    async with Site(plugin) as site, site.connect("/chat") as client:
        await client.send("allowed")
        assert await receive(client) == "allowed"
        subscribes = asked.count("subscribe")
        await eventually(lambda: asked.count("subscribe") >= subscribes + 2)
        await client.send("too late")
        assert await close_code(client) == 1008


async def test_guards() -> None:
    """Guards run before the connection is accepted."""

    def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if connection.query_params.get("token") != "good":
            raise NotAuthorizedException

    async with Site(make_plugin(guards=[guard])) as site:
        assert await refusal(site, "/chat") == 403
        async with site.connect("/chat?token=good"):
            assert site.subscribers == 1


@pytest.mark.parametrize(
    "allowed, origin, admitted",
    [
        (None, "https://elsewhere.example", True),
        (["https://here.example"], "https://here.example", True),
        (["https://here.example"], "https://elsewhere.example", False),
        (["https://here.example"], None, True),
        ([], "https://here.example", False),
        (["https://here.example"], "http://HOST", False),
        (["same-origin"], "http://HOST", True),
        (["same-origin"], "https://elsewhere.example", False),
        (["same-origin"], "null", False),
        (["same-origin"], "http://[", False),
    ],
)
async def test_allowed_origins(allowed: list[str] | None, origin: str | None, admitted: bool) -> None:
    """Pages from other origins are refused with 403; programs, which send no origin, are admitted."""
    async with Site(make_plugin(ws_allowed_origins=allowed)) as site:
        host = f"{site.address[0]}:{site.address[1]}"
        options = {} if origin is None else {"origin": origin.replace("HOST", host)}
        if admitted:
            async with site.connect("/chat", **options):
                assert site.subscribers == 1
        else:
            assert await refusal(site, "/chat", **options) == 403


async def test_type_encoders() -> None:
    """Types that msgspec does not know are encoded by type_encoders, the plugin's own before the application's."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class Line(Point):
        pass

    plugin = make_plugin(type_encoders={Point: lambda point: {"x": point.x}})
    site = Site(plugin, type_encoders={Point: lambda point: "the application's", Line: lambda line: "line"})
    async with site, site.connect("/chat") as client:
        await site.plugin.wait_published([Point(1), Line(2)], "chat")
        assert json.loads(await receive(client)) == [{"x": 1}, "line"]


@pytest.mark.parametrize(
    "options",
    [
        {"ws_handler_send_history": 5},
        {"handler_max_history": 5},
        {"ws_handler_send_history": -1, "backend": HISTORY},
        {"ws_send_mode": "json"},
        {"ws_on_gap": "explode"},
        {"ws_allowed_origins": "https://one.example"},
        {"send_timeout": 0},
        {"authorize_interval": -1.0},
        {"sse_keep_alive": 0},
        {"channels": ["a//b"]},
        {"channels": ["{a}"]},
        {"channels": ["a/"]},
        {"channels": [""]},
    ],
)
def test_bad_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    """What could only fail once a client connects is refused when the plugin is made."""
    with pytest.raises(ImproperlyConfigured):
        make_plugin(options.pop("backend", "memory://"), **options)
