"""What the processes of a pair tell each other, one JSON document per line."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from channels_core import ChannelsPlugin, Event, Gap

__all__ = ("CHANNELS", "END", "QUEUED", "WAITED", "Item", "Published", "Ready", "Setup", "say", "setup_from_argv")

QUEUED: Final = "queued"
"""The channel that is fed through ``publish``."""

WAITED: Final = "waited"
"""The channel that is fed through ``wait_published``."""

CHANNELS: Final = (QUEUED, WAITED)

END: Final = b"end"
"""Published again and again after the last event, so that the subscriber knows that nothing comes behind."""


class Setup(msgspec.Struct, frozen=True):
    """How both processes run.

    Attributes:
        url: The backend's.
        count: Events per channel.
        rate: Events per second and channel.
        probe: Seconds between probes, and seconds that one may take.
    """

    url: str
    count: int = 2_000
    rate: float = 400.0
    probe: float = 0.5

    def plugin(self) -> ChannelsPlugin:
        """Return a plugin that is not started."""
        return ChannelsPlugin(
            self.url,
            channels=CHANNELS,
            startup_timeout=10.0,
            publish_timeout=60.0,
            probe_interval=self.probe,
            probe_timeout=self.probe,
        )


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process has started; the subscriber also has the broker's confirmation."""


class Item(msgspec.Struct, frozen=True, tag=True):
    """The subscriber's stream gave this.

    Attributes:
        at: When, by the clock that all processes of the machine share.
        item: The event or gap.
    """

    at: float
    event: Event | None = None
    gap: Gap | None = None


class Published(msgspec.Struct, frozen=True, tag=True):
    """The publisher is done.

    Attributes:
        accepted: The numbers that ``wait_published`` returned for.
        failed: How many events the plugin gave up.
    """

    accepted: list[int]
    failed: int


def setup_from_argv() -> Setup:
    """Read what the parent passed on the command line."""
    return msgspec.json.decode(sys.argv[1], type=Setup)


def say(message: Any) -> None:
    """Tell the parent."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()
