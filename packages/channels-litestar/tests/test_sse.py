"""The generated handlers for server-sent events, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from litestar.connection import ASGIConnection
from litestar.datastructures import ResponseHeader
from live_site import DEADLINE, HangingBackend, Site, SpiedSubscriber, eventually, feed

from channels_core.events import Cursor, Gap, Position
from channels_core.subscriber import Subscriber
from channels_litestar import ChannelsPlugin

HISTORY = "memory://?history=10"


def make_plugin(backend: Any = HISTORY, **options: Any) -> ChannelsPlugin:
    options.setdefault("channels", ["chat", "news"])
    return ChannelsPlugin(backend, create_sse_route_handlers=True, **options)


class Reader:
    """Reads a response line by line and event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self._events = EventSource(response).aiter_sse()

    async def line(self) -> str:
        async with asyncio.timeout(DEADLINE):
            return await anext(self._lines)

    async def event(self) -> ServerSentEvent:
        """Return the next event; the first frame, which has no data, is none for a browser, but is for this client."""
        async with asyncio.timeout(DEADLINE):
            event = await anext(self._events)
            return event if event.retry is None else await anext(self._events)

    async def end(self) -> None:
        async with asyncio.timeout(DEADLINE):
            async for _ in self._lines:
                pass


@contextlib.asynccontextmanager
async def follow(site: Site, path: str, **headers: str) -> AsyncIterator[Reader]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with site.client() as client, client.stream("GET", path, headers=names) as response:
        assert response.status_code == 200, await response.aread()
        yield Reader(response)


async def status(site: Site, path: str, **headers: str) -> int:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with site.client() as client:
        return (await client.get(path, headers=names)).status_code


async def first_token(reader: Reader) -> str:
    assert (await reader.line()).startswith("retry: ")
    token = (await reader.line()).removeprefix("id: ")
    assert await reader.line() == ""
    return token


async def test_an_event_published_after_connecting_arrives() -> None:
    """Whatever is published after the response began reaches the client, in a stream that nobody stores."""
    async with Site(make_plugin()) as site, follow(site, "/chat") as reader:
        await site.plugin.wait_published("hello", "chat")
        event = await reader.event()
        assert (event.event, event.data) == ("message", "hello")
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.response.headers["cache-control"] == "no-store"


async def test_the_first_frame_carries_the_cursor() -> None:
    """The first frame has an id and no data: a client can resume before it saw any event."""
    async with Site(make_plugin()) as site, follow(site, "/chat") as reader:
        assert Cursor.parse(await first_token(reader)) == Cursor({"chat": Position("", 0)})


@pytest.mark.parametrize("text", ["", "one\ntwo", "\n", "a: b", " leading", "ä€", ":"])
async def test_text_arrives_unchanged(text: str) -> None:
    """Text of any shape arrives as it was published."""
    async with Site(make_plugin()) as site, follow(site, "/chat") as reader:
        await first_token(reader)
        await site.plugin.wait_published(text, "chat")
        lines = []
        while line := await reader.line():
            lines.append(line)
        assert "\n".join(each.removeprefix("data: ") for each in lines if each.startswith("data: ")) == text


async def test_other_line_ends_become_newlines() -> None:
    """CR and CR LF end a line of the format, so they arrive as LF."""
    async with Site(make_plugin()) as site, follow(site, "/chat") as reader:
        await site.plugin.wait_published("a\r\nb\rc", "chat")
        assert (await reader.event()).data == "a\nb\nc"


async def test_binary_data_comes_as_base64() -> None:
    """Data that is not UTF-8 is an event of type binary."""
    async with Site(make_plugin()) as site, follow(site, "/chat") as reader:
        await site.plugin.wait_published(b"\xff\x00", "chat")
        event = await reader.event()
        assert (event.event, event.data) == ("binary", "/wA=")


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_resume(how: str) -> None:
    """Last-Event-ID or ?after= resumes; the header wins, because only it is fresh."""
    async with Site(make_plugin()) as site:
        async with follow(site, "/chat") as reader:
            start = await first_token(reader)
        async with follow(site, "/chat") as reader:
            await site.plugin.wait_published("1", "chat")
            seen = (await reader.event()).id
        await site.plugin.wait_published("2", "chat")
        query = {"header": "", "query": f"?after={seen}", "both": f"?after={start}"}[how]
        headers = {} if how == "query" else {"Last_Event_ID": seen}
        async with follow(site, f"/chat{query}", **headers) as reader:
            await site.plugin.wait_published("3", "chat")
            assert [(await reader.event()).data for _ in range(2)] == ["2", "3"]


async def test_three_reconnects_without_events_replay_nothing() -> None:
    """A token from the first frame resumes exactly there."""
    async with Site(make_plugin()) as site:
        await site.plugin.wait_published("old", "chat")
        headers: dict[str, str] = {}
        for _ in range(3):
            async with follow(site, "/chat", **headers) as reader:
                headers = {"Last_Event_ID": await first_token(reader)}
        async with follow(site, "/chat", **headers) as reader:
            await site.plugin.wait_published("new", "chat")
            assert (await reader.event()).data == "new"


async def test_a_gap_is_an_event_of_its_own(spied: list[Subscriber]) -> None:
    """Where events are missing stands an event of type gap, and the stream goes on."""
    plugin = make_plugin("memory://", subscriber_class=SpiedSubscriber)
    async with Site(plugin) as site, follow(site, "/chat") as reader:
        feed(spied[0], "1", Gap("chat", "backlog", missed=2), "2")
        assert (await reader.event()).data == "1"
        gap = await reader.event()
        assert gap.event == "gap"
        told = json.loads(gap.data)
        assert (told["channel"], told["reason"], told["missed"], told["after"]) == ("chat", "backlog", 2, None)
        assert gap.id == told["cursor"]
        assert (await reader.event()).data == "2"


async def test_comments_keep_the_connection_alive() -> None:
    """While nothing happens, comments come."""
    async with Site(make_plugin(sse_keep_alive=0.02)) as site, follow(site, "/chat") as reader:
        await first_token(reader)
        assert [await reader.line() for _ in range(4)] == [":", "", ":", ""]


async def test_history_on_request() -> None:
    """?history= gives up to handler_max_history events of the past."""
    async with Site(make_plugin(handler_max_history=2)) as site:
        for text in ("1", "2", "3"):
            await site.plugin.wait_published(text, "chat")
        async with follow(site, "/chat?history=2") as reader:
            assert [(await reader.event()).data for _ in range(2)] == ["2", "3"]
        assert await status(site, "/chat?history=3") == 400
        assert await status(site, "/chat?history=x") == 400


async def test_a_damaged_token_is_refused() -> None:
    """A token that cannot be read gets 400, in the header as in the query."""
    async with Site(make_plugin()) as site:
        assert await status(site, "/chat?after=damaged") == 400
        assert await status(site, "/chat", Last_Event_ID="damaged") == 400
        assert await status(site, "/chat", Last_Event_ID="A" * 4097) == 400


async def test_a_token_never_passes_4_kib() -> None:
    """A channel whose token could grow past 4 KiB is refused with 400; a shorter name works."""
    plugin = make_plugin(channels=None, arbitrary_channels_allowed=True, sse_handler_base_path="/sse")
    async with Site(plugin) as site:
        assert await status(site, "/sse/" + "x" * 3000) == 400
        async with follow(site, "/sse/" + "x" * 2500) as reader:
            assert len(await first_token(reader)) < 4096


@pytest.mark.parametrize("path, channel", [("/sse/a/b", "a/b"), ("/sse/a%2Fb", "a/b"), ("/sse/%25%20", "% ")])
async def test_the_path_names_any_channel(path: str, channel: str) -> None:
    """With arbitrary channels one handler serves any name."""
    plugin = make_plugin(channels=None, arbitrary_channels_allowed=True, sse_handler_base_path="/sse")
    async with Site(plugin) as site, follow(site, path) as reader:
        await site.plugin.wait_published("hello", channel)
        assert (await reader.event()).data == "hello"


@pytest.mark.parametrize("path", ["/sse//a", "/sse/a/", "/sse/%FF", "/other"])
async def test_a_path_that_names_no_channel_is_not_found(path: str) -> None:
    """What names no channel exactly gets 404."""
    plugin = make_plugin(channels=None, arbitrary_channels_allowed=True, sse_handler_base_path="/sse")
    async with Site(plugin) as site:
        assert await status(site, path) == 404


async def test_both_kinds_of_handlers_share_a_path() -> None:
    """WebSocket and SSE handlers may have the same base path."""
    plugin = make_plugin(create_ws_route_handlers=True)
    async with Site(plugin) as site, site.connect("/chat") as client, follow(site, "/chat") as reader:
        await site.plugin.wait_published("hello", "chat")
        assert await client.recv() == "hello"
        assert (await reader.event()).data == "hello"


async def test_headers_and_cookies_of_outer_layers_are_kept() -> None:
    """The application's response headers are on the stream as well."""
    site = Site(make_plugin(), response_headers=[ResponseHeader(name="X-Layer", value="app")])
    async with site, follow(site, "/chat") as reader:
        assert reader.response.headers["x-layer"] == "app"


async def test_a_client_that_leaves_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """When clients go, their subscriptions go, and nothing is logged."""
    async with Site(make_plugin()) as site:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(10):
                await stack.enter_async_context(follow(site, "/chat"))
            assert site.subscribers == 10
        await eventually(lambda: site.subscribers == 0)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


async def test_a_client_that_leaves_before_it_was_answered_leaves_nothing() -> None:
    """A client that goes before the broker confirmed its subscription ends the wait."""
    backend = HangingBackend()
    backend.subscribing.clear()
    async with Site(make_plugin(backend)) as site:
        connecting = asyncio.create_task(status(site, "/chat"))
        async with asyncio.timeout(DEADLINE):
            await backend.asked.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        await eventually(lambda: not site.server.server_state.tasks)
        backend.subscribing.set()


async def test_a_client_that_does_not_read_is_given_up() -> None:
    """After send_timeout the subscription of a client that stopped reading goes."""
    async with Site(make_plugin(send_timeout=0.3)) as site:
        reader, writer = await asyncio.open_connection(*site.address, limit=1024)
        writer.write(b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert site.subscribers == 1
        for _ in range(300):
            await site.plugin.wait_published(b"x" * 100_000, "chat")
        await eventually(lambda: site.subscribers == 0)
        writer.transport.abort()


async def test_the_end_of_the_stream_ends_the_response(spied: list[Subscriber]) -> None:
    """A backlog that overflows with the strategy close ends the response properly: the client comes again."""
    plugin = make_plugin(subscriber_class=SpiedSubscriber, max_backlog=1, backlog_strategy="close")
    async with Site(plugin) as site, follow(site, "/chat") as reader:
        feed(spied[0], "1", "2")
        await reader.end()
        await eventually(lambda: site.subscribers == 0)


async def test_authorize() -> None:
    """Who may not subscribe gets 403; who may no more, the end of the stream."""
    allowed = False

    def authorize(connection: ASGIConnection[Any, Any, Any, Any], channel: str, action: str) -> bool:
        assert (channel, action) == ("chat", "subscribe")
        return allowed

    async with Site(make_plugin(authorize=authorize, authorize_interval=0.02)) as site:
        assert await status(site, "/chat") == 403
        allowed = True
        async with follow(site, "/chat") as reader:
            await first_token(reader)
            allowed = False
            await reader.end()
        await eventually(lambda: site.subscribers == 0)


async def test_a_broker_that_is_away_is_503() -> None:
    """A client that cannot be subscribed in time gets 503."""
    backend = HangingBackend()
    backend.subscribing.clear()
    async with Site(make_plugin(backend, publish_timeout=0.1)) as site:
        assert await status(site, "/chat") == 503
        backend.subscribing.set()
