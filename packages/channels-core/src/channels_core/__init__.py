"""Event broadcast for Python web applications, in which nothing is lost silently."""

from channels_core.backend import ChannelsBackend, History, Publication
from channels_core.events import Cursor, Event, Gap, Position
from channels_core.exceptions import ChannelsException
from channels_core.plugin import ChannelsPlugin
from channels_core.registry import create_backend
from channels_core.stats import Health, Stats
from channels_core.subscriber import Subscriber

__all__ = (
    "ChannelsBackend",
    "ChannelsException",
    "ChannelsPlugin",
    "Cursor",
    "Event",
    "Gap",
    "Health",
    "History",
    "Position",
    "Publication",
    "Stats",
    "Subscriber",
    "create_backend",
)
