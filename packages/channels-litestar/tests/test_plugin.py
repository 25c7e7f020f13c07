"""The plugin inside an application: dependency, lifespan, options."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from litestar import Litestar, get, post
from litestar.di import NamedDependency
from live_site import Site, receive

from channels_core.exceptions import ImproperlyConfigured, NotStarted
from channels_core.plugin import ChannelsPlugin as CorePlugin
from channels_litestar import ChannelsPlugin
from channels_litestar._core_options import CoreOptions


async def test_the_dependency() -> None:
    """Handlers get the plugin as the dependency channels, plain functions too."""

    @post("/async")
    async def publish(channels: NamedDependency[ChannelsPlugin]) -> None:
        await channels.wait_published("from a coroutine", "chat")

    @post("/sync", sync_to_thread=True)
    def publish_from_thread(channels: NamedDependency[ChannelsPlugin]) -> None:
        channels.publish("from a thread", "chat")

    plugin = ChannelsPlugin("memory://", channels=["chat"], create_ws_route_handlers=True)
    site = Site(plugin, route_handlers=[publish, publish_from_thread])
    async with site, site.client() as client, site.connect("/chat") as socket:
        assert (await client.post("/async")).status_code == 201
        assert await receive(socket) == "from a coroutine"
        assert (await client.post("/sync")).status_code == 201
        assert await receive(socket) == "from a thread"


async def test_the_signature_namespace() -> None:
    """An annotation that only a type checker can resolve is resolved: the name is in the namespace."""

    async def show(channels: Any) -> str:
        return type(channels).__module__

    show.__annotations__ = {"channels": "NamedDependency[ChannelsPlugin]", "return": "str"}
    show.__globals__["NamedDependency"] = NamedDependency
    own = show.__globals__.pop("ChannelsPlugin")
    try:
        site = Site(own("memory://", channels=["chat"]), route_handlers=[get("/")(show)])
    finally:
        show.__globals__["ChannelsPlugin"] = own
    async with site, site.client() as client:
        assert (await client.get("/")).text == "channels_litestar.plugin"


async def test_the_lifespan() -> None:
    """The plugin runs while the application does, and may be used by it again."""
    plugin = ChannelsPlugin("memory://", channels=["chat"], create_ws_route_handlers=True)
    for _ in range(2):
        with pytest.raises(NotStarted):
            plugin.publish("too early", "chat")
        async with Site(plugin) as site, site.connect("/chat") as client:
            await plugin.wait_published("hello", "chat")
            assert await receive(client) == "hello"


def test_no_handlers_unless_asked_for() -> None:
    """By default the plugin adds no route."""
    plugin = ChannelsPlugin("memory://", channels=["chat"])
    assert [route.path for route in Litestar(plugins=[plugin], openapi_config=None).routes] == []


def test_one_channel_may_be_a_string() -> None:
    """channels="chat" is one channel, not four."""
    plugin = ChannelsPlugin("memory://", channels="chat", create_ws_route_handlers=True)
    assert [route.path for route in Litestar(plugins=[plugin], openapi_config=None).routes] == ["/chat"]


def test_neither_channels_nor_arbitrary_ones() -> None:
    """The core's own checks hold here too."""
    with pytest.raises(ImproperlyConfigured):
        ChannelsPlugin("memory://")


def test_the_typed_options_are_those_of_the_core() -> None:
    """No option of the core is missing here, and none is stale."""
    core = set(inspect.signature(CorePlugin).parameters)
    own = {"backend", "channels", "arbitrary_channels_allowed"}
    assert set(CoreOptions.__annotations__) == core - own
