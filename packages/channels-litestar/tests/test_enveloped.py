"""The enveloped WebSocket mode: positions, gaps and resume in JSON frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live_site import Site, SpiedSubscriber, close_code, feed, receive, refusal
from websockets.asyncio.client import ClientConnection

from channels_core.events import Cursor, Gap, Position
from channels_core.subscriber import Subscriber
from channels_litestar import ChannelsPlugin

HISTORY = "memory://?history=10"
V1 = {"subprotocols": ["channels.v1"]}


def make_plugin(url: str = HISTORY, **options: Any) -> ChannelsPlugin:
    return ChannelsPlugin(url, channels=["chat", "news"], create_ws_route_handlers=True, **options)


async def frame(client: ClientConnection) -> dict[str, Any]:
    message = await receive(client)
    assert isinstance(message, str)
    decoded: dict[str, Any] = json.loads(message)
    return decoded


async def test_the_subprotocol_is_negotiated() -> None:
    """A client that offers channels.v1 gets it; one that does not gets raw frames."""
    async with Site(make_plugin()) as site:
        async with site.connect("/chat", **V1) as enveloped, site.connect("/chat") as raw:
            assert enveloped.subprotocol == "channels.v1"
            assert raw.subprotocol is None
        async with site.connect("/chat", subprotocols=["other", "channels.v1"]) as client:
            assert client.subprotocol == "channels.v1"


async def test_a_cursor_comes_before_the_first_event() -> None:
    """The first frame says where the stream begins, before any event, and on an empty channel too."""
    async with Site(make_plugin()) as site, site.connect("/chat", **V1) as client:
        joined = await frame(client)
        assert joined["type"] == "joined"
        assert joined["channel"] == "chat"
        assert Cursor.parse(joined["cursor"]) == Cursor({"chat": Position("", 0)})


async def test_events_carry_data_and_cursor() -> None:
    """An event's frame has its channel, its text and the cursor to resume after it."""
    async with Site(make_plugin()) as site, site.connect("/chat", **V1) as client:
        await frame(client)
        await site.plugin.wait_published('{"a": "ä"}', "chat")
        event = await frame(client)
        [stored] = await site.plugin.get_history("chat")
        assert event == {
            "type": "event",
            "channel": "chat",
            "data": '{"a": "ä"}',
            "cursor": str(Cursor({"chat": stored.position or Position("", 0)})),
        }


async def test_binary_data_comes_as_base64() -> None:
    """Data that is not UTF-8 comes in the field base64."""
    async with Site(make_plugin()) as site, site.connect("/chat", **V1) as client:
        await frame(client)
        await site.plugin.wait_published(b"\xff\x00", "chat")
        event = await frame(client)
        assert event["base64"] == "/wA="
        assert "data" not in event


@pytest.mark.parametrize("seen", [0, 1, 3])
async def test_resume(seen: int) -> None:
    """A client that comes back with its last cursor gets what it missed, once, and nothing that it has."""
    async with Site(make_plugin()) as site:
        async with site.connect("/chat", **V1) as client:
            cursor = (await frame(client))["cursor"]
            for text in ("1", "2", "3"):
                await site.plugin.wait_published(text, "chat")
            for _ in range(seen):
                cursor = (await frame(client))["cursor"]
        await site.plugin.wait_published("4", "chat")
        async with site.connect(f"/chat?after={cursor}", **V1) as client:
            assert (await frame(client))["cursor"] == cursor
            await site.plugin.wait_published("5", "chat")
            assert [(await frame(client))["data"] for _ in range(5 - seen)] == ["1", "2", "3", "4", "5"][seen:]


async def test_resume_wins_over_history() -> None:
    """A client that resumes gets no history on top."""
    async with Site(make_plugin(ws_handler_send_history=5)) as site:
        await site.plugin.wait_published("1", "chat")
        async with site.connect("/chat", **V1) as client:
            await frame(client)
            cursor = (await frame(client))["cursor"]
        async with site.connect(f"/chat?after={cursor}", **V1) as client:
            await frame(client)
            await site.plugin.wait_published("2", "chat")
            assert (await frame(client))["data"] == "2"


async def test_a_gap_is_a_frame(spied: list[Subscriber]) -> None:
    """Where events are missing the client is told, and the connection goes on."""
    async with Site(make_plugin("memory://?history=2")) as site:
        async with site.connect("/chat", **V1) as client:
            cursor = (await frame(client))["cursor"]
        for text in ("1", "2", "3", "4"):
            await site.plugin.wait_published(text, "chat")
        async with site.connect(f"/chat?after={cursor}", **V1) as client:
            await frame(client)
            gap = await frame(client)
            assert (gap["type"], gap["reason"], gap["missed"]) == ("gap", "trimmed", 2)
            assert Position.parse(gap["until"]).offset == 2
            assert Cursor.parse(gap["cursor"])["chat"].offset == 2
            assert [(await frame(client))["data"] for _ in range(2)] == ["3", "4"]


async def test_resume_without_history_says_that_events_may_be_missing() -> None:
    """On a backend without history a client that comes back is told of a gap."""
    async with Site(make_plugin("memory://")) as site:
        async with site.connect("/chat", **V1) as client:
            cursor = (await frame(client))["cursor"]
        async with site.connect(f"/chat?after={cursor}", **V1) as client:
            await frame(client)
            assert (await frame(client))["reason"] == "disconnected"


async def test_a_gap_of_unknown_extent(spied: list[Subscriber]) -> None:
    """What is not known of a gap is null."""
    plugin = make_plugin("memory://", subscriber_class=SpiedSubscriber)
    async with Site(plugin) as site, site.connect("/chat", **V1) as client:
        cursor = (await frame(client))["cursor"]
        feed(spied[0], Gap("chat", "disconnected"))
        assert await frame(client) == {
            "type": "gap",
            "channel": "chat",
            "reason": "disconnected",
            "after": None,
            "until": None,
            "missed": None,
            "cursor": cursor,
        }


@pytest.mark.parametrize(
    "message, published",
    [
        ('{"type": "publish", "data": "text"}', b"text"),
        ('{"type": "publish", "data": ""}', b""),
        ('{"type": "publish", "base64": "/wA="}', b"\xff\x00"),
        (b'{"type": "publish", "data": "in a binary message"}', b"in a binary message"),
    ],
)
async def test_publish(message: str | bytes, published: bytes) -> None:
    """Clients publish in frames of type publish."""
    plugin = make_plugin(ws_handler_publish=True, ws_send_mode="binary")
    async with Site(plugin) as site, site.connect("/chat", **V1) as client, site.connect("/chat") as raw:
        await client.send(message)
        assert await receive(raw) == published


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "{}",
        '{"type": "publish"}',
        '{"type": "publish", "data": "a", "base64": "YQ=="}',
        '{"type": "publish", "data": 1}',
        '{"type": "publish", "data": "a", "channel": "other"}',
        '{"type": "event", "data": "a"}',
        b"\xff",
        "",
    ],
)
async def test_a_malformed_frame_closes(message: str | bytes) -> None:
    """What is no frame of type publish ends the connection with 1007."""
    async with Site(make_plugin(ws_handler_publish=True)) as site, site.connect("/chat", **V1) as client:
        await client.send(message)
        assert await close_code(client) == 1007


@pytest.mark.parametrize("token", ["damaged", "A" * 5000, "%FF"])
async def test_a_damaged_token_is_refused(token: str) -> None:
    """A cursor token that cannot be read is refused with 400 before the connection is accepted."""
    async with Site(make_plugin()) as site:
        assert await refusal(site, f"/chat?after={token}", **V1) == 400


async def test_a_token_of_another_channel_is_ignored() -> None:
    """A token gives no access to the channels that it names, and does not harm."""
    token = str(Cursor({"news": Position("", 0)}))
    async with Site(make_plugin()) as site:
        await site.plugin.wait_published("secret", "news")
        async with site.connect(f"/chat?after={token}", **V1) as client:
            assert list(Cursor.parse((await frame(client))["cursor"])) == ["chat"]
            await site.plugin.wait_published("sentinel", "chat")
            assert (await frame(client))["data"] == "sentinel"
