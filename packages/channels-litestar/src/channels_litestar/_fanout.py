"""Encoding an event once for the many connections that it goes to."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from channels_core.events import Event

__all__ = ("LARGE_KEPT", "SMALL_BYTES", "SMALL_KEPT", "encode_once")

T = TypeVar("T")

SMALL_BYTES: Final = 4096
"""Of events up to this size so many are kept as the default backlog holds: a connection sends all that waits for it
before the next one begins."""

SMALL_KEPT: Final = 1024
"""So 4 MiB of data, and about as much encoded, at most."""

LARGE_KEPT: Final = 32
"""Of larger events only the newest, because of their size."""


def encode_once(encode: Callable[[Event], T]) -> Callable[[Event], T]:
    """Decorate what encodes an event, so that it remembers what it returned for those that fan out now."""
    encode_small = lru_cache(maxsize=SMALL_KEPT)(encode)
    encode_large = lru_cache(maxsize=LARGE_KEPT)(encode)

    def encode_remembered(event: Event) -> T:
        return encode_small(event) if len(event.data) <= SMALL_BYTES else encode_large(event)

    return encode_remembered
