"""An application as a user writes it, for servers that are started from outside."""

from __future__ import annotations

from litestar import Litestar, get
from litestar.di import NamedDependency
from litestar.response import ServerSentEvent

from channels_litestar import ChannelsPlugin


@get("/own")
async def follow(channels: NamedDependency[ChannelsPlugin]) -> ServerSentEvent:
    """Stream the events of a channel in the user's own way."""
    subscriber = await channels.subscribe("chat")
    return ServerSentEvent(subscriber.iter_events())


app = Litestar(
    [follow],
    plugins=[
        ChannelsPlugin(
            "memory://",
            channels=["chat"],
            create_ws_route_handlers=True,
            ws_handler_base_path="/ws",
            create_sse_route_handlers=True,
            sse_handler_base_path="/sse",
        )
    ],
)
