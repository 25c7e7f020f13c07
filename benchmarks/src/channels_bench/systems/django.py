"""Django channels' layers on Redis. Runs in an environment of its own: its distribution is called as ours is."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from channels_bench.systems.base import Stream, System


class LayerStream(Stream):
    def __init__(self, layer: Any, group: str, name: str) -> None:
        self._layer = layer
        self._group = group
        self._name = name

    async def take(self, count: int) -> bytes:
        message: dict[str, Any] = {}
        for _ in range(count):
            message = await self._layer.receive(self._name)
        return bytes(message["data"])

    async def close(self) -> None:
        await self._layer.group_discard(self._group, self._name)


class Layer(System):
    """A channel layer; a subscriber is a channel of its own in a group."""

    module: ClassVar = "channels_redis.core"
    name: ClassVar = "RedisChannelLayer"
    options: ClassVar[dict[str, Any]] = {"capacity": 10_000_000}

    async def start(self) -> None:
        layer = getattr(importlib.import_module(self.module), self.name)
        self._layer: Any = layer(hosts=[self.url], **self.options)

    async def stop(self) -> None:
        await self._layer.flush()
        close = getattr(self._layer, "close_pools", None)
        if close is not None:
            await close()

    async def subscribe(self, channel: str) -> Stream:
        name = await self._layer.new_channel()
        await self._layer.group_add(channel, name)
        return LayerStream(self._layer, channel, name)

    async def publish(self, data: bytes, channel: str) -> None:
        await self._layer.group_send(channel, {"type": "event", "data": data})


class PubSubLayer(Layer):
    module = "channels_redis.pubsub"
    name = "RedisPubSubChannelLayer"
    options: ClassVar[dict[str, Any]] = {}
