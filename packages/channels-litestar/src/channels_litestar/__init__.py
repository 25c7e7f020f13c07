"""channels for Litestar: the plugin with its dependency, lifespan and ready-made WebSocket and SSE handlers."""

from channels_litestar._access import Action, Authorize
from channels_litestar.plugin import ChannelsPlugin

__all__ = ("Action", "Authorize", "ChannelsPlugin")
