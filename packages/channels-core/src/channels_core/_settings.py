"""The limits of a plugin, checked once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec

from channels_core.backlog import BacklogStrategy
from channels_core.exceptions import ImproperlyConfigured
from channels_core.publisher import OnPublishError
from channels_core.subscriber import Subscriber

_POSITIVE = ("max_backlog", "max_pending", "call_timeout", "publish_timeout", "probe_interval", "probe_timeout")
_NOT_NEGATIVE = ("startup_timeout", "shutdown_timeout")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `channels_core.ChannelsPlugin` documents under the same names."""

    channels: frozenset[str]
    arbitrary_channels_allowed: bool
    max_backlog: int | None
    backlog_strategy: BacklogStrategy
    subscriber_class: type[Subscriber]
    encoder: Callable[[Any], bytes]
    max_pending: int
    call_timeout: float
    publish_timeout: float
    startup_timeout: float
    shutdown_timeout: float
    probe_interval: float | None
    probe_timeout: float
    on_publish_error: OnPublishError | None

    def check(self, *, keeps_history: bool) -> None:
        """Refuse what contradicts itself.

        Raises:
            ImproperlyConfigured: The message names the option and what is expected.
        """
        if not self.channels and not self.arbitrary_channels_allowed:
            raise ImproperlyConfigured("name the channels, or set arbitrary_channels_allowed=True")
        for name in (*_POSITIVE, *_NOT_NEGATIVE):
            value = getattr(self, name)
            if value is not None and (value < 0 or (value == 0 and name in _POSITIVE)):
                raise ImproperlyConfigured(f"{name}={value!r} is out of range")
        if self.backlog_strategy not in get_args(BacklogStrategy):
            valid = ", ".join(sorted(get_args(BacklogStrategy)))
            raise ImproperlyConfigured(f"unknown backlog_strategy {self.backlog_strategy!r}; valid are {valid}")
        if self.backlog_strategy == "catchup" and not (keeps_history and self.max_backlog):
            raise ImproperlyConfigured('backlog_strategy="catchup" needs max_backlog and a backend that keeps history')
