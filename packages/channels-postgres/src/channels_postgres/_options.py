"""What both backends can be told, from a constructor or from a URL."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

from channels_core.exceptions import ImproperlyConfigured
from channels_core.urls import Count, Seconds

__all__ = ("DAY", "MIB", "MIN_HISTORY_AGE", "Options")

DAY: Final = 24 * 3600.0
MIB: Final = 1024 * 1024

MIN_HISTORY_AGE: Final = 60.0
"""Seconds that a stored event stays at least: whoever is about to read it live, or to repair, must still find it."""

_PREFIX: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
"""A plain identifier of SQL, short enough for the server's 63 bytes with our endings, so it needs no quoting."""


class Options(msgspec.Struct, frozen=True):
    """Options in the order of `AsyncPgChannelsBackend`, which describes them; all are checked here."""

    history: Count = 0
    max_age: Seconds | None = None
    listen_dsn: str | None = None
    max_payload: Annotated[int, msgspec.Meta(ge=1)] = MIB
    unlogged: bool = False
    prefix: str = "channels"
    record_ttl: Seconds = 30 * DAY

    def __post_init__(self) -> None:
        if self.history < 0:
            raise ImproperlyConfigured(f"history={self.history} is negative; 0 keeps none")
        if self.max_age is not None and self.max_age <= 0:
            raise ImproperlyConfigured(f"max_age={self.max_age} is not positive; None sets no limit")
        if self.max_payload < 1:
            raise ImproperlyConfigured(f"max_payload={self.max_payload} is not positive")
        if self.record_ttl <= 0:
            raise ImproperlyConfigured(f"record_ttl={self.record_ttl} is not positive")
        if not _PREFIX.fullmatch(self.prefix):
            raise ImproperlyConfigured(f"prefix={self.prefix!r}: expected at most 40 of a-z, 0-9 and _, no digit first")
        if self.unlogged and not self.keeps_history:
            raise ImproperlyConfigured("unlogged without history has no table to be about; set history or max_age")

    @property
    def keeps_history(self) -> bool:
        """Whether events are stored: any limit asks for it."""
        return self.history > 0 or self.max_age is not None

    def keywords(self) -> dict[str, Any]:
        """Return the options as a constructor takes them."""
        return msgspec.structs.asdict(self)
