"""Ready-made route handlers: one per channel, or one for any channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from litestar import Request, WebSocket, get, websocket
from litestar.handlers import BaseRouteHandler

from channels_litestar._options import HandlerOptions
from channels_litestar._paths import join_path, read_channel
from channels_litestar.sse import EventStream, SSEStream
from channels_litestar.websocket import WebSocketStream

if TYPE_CHECKING:
    from channels_litestar.plugin import ChannelsPlugin

__all__ = ("make_handlers",)


def make_handlers(
    plugin: ChannelsPlugin, channels: Iterable[str] | None, options: HandlerOptions
) -> list[BaseRouteHandler]:
    """Return the handlers that the options ask for.

    Args:
        plugin: Where the events come from.
        channels: Each gets handlers of its own; ``None`` for one handler that takes the channel from the path.
        options: What to make.

    Raises:
        ImproperlyConfigured: No route can be made for one of the channels.
    """
    names: list[str | None] = [None] if channels is None else [*channels]
    handlers: list[BaseRouteHandler] = []
    if options.create_ws_route_handlers:
        handlers += [_make_websocket_handler(plugin, name, options) for name in names]
    if options.create_sse_route_handlers:
        handlers += [_make_sse_handler(plugin, name, options) for name in names]
    return handlers


def _make_websocket_handler(plugin: ChannelsPlugin, channel: str | None, options: HandlerOptions) -> BaseRouteHandler:
    async def follow(socket: WebSocket[Any, Any, Any]) -> None:
        name = read_channel(socket) if channel is None else channel
        await WebSocketStream(socket, name, plugin, options).serve()

    return websocket(join_path(options.ws_handler_base_path, channel), guards=[*options.guards])(follow)


def _make_sse_handler(plugin: ChannelsPlugin, channel: str | None, options: HandlerOptions) -> BaseRouteHandler:
    async def follow(request: Request[Any, Any, Any]) -> EventStream:
        name = read_channel(request) if channel is None else channel
        return await SSEStream(request, name, plugin, options).admit()

    path = join_path(options.sse_handler_base_path, channel)
    return get(path, guards=[*options.guards], include_in_schema=False)(follow)
