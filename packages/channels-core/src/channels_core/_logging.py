"""Logging that cannot flood."""

from __future__ import annotations

import logging
import time
from typing import Final

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of the same kind: a counter tells how many, a line only tells that."""

MAX_KEYS: Final = 1_000
"""Kinds remembered at once; channel names come from clients and must not fill memory."""

logger: Final = logging.getLogger("channels_core")


class RateLimitedLogger:
    """Log at most one line per key and interval."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: Final[dict[object, float]] = {}

    def warning(self, key: object, message: str, *args: object, exc: BaseException | None = None) -> None:
        """Log a warning unless a line with this key was logged within the interval."""
        now = time.monotonic()
        if now - self._last.get(key, -LOG_INTERVAL) < LOG_INTERVAL:
            return
        if len(self._last) >= MAX_KEYS:
            self._last.clear()
        self._last[key] = now
        logger.warning(message, *args, exc_info=exc)
