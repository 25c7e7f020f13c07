from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from channels_core.backlog import BacklogStrategy
from channels_core.publisher import OnPublishError
from channels_core.subscriber import Subscriber

__all__ = ("CoreOptions",)


class CoreOptions(TypedDict, total=False):
    """The options of `channels_core.ChannelsPlugin` that are handed on as they are."""

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
