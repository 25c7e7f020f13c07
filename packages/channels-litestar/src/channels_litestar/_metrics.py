"""Counters and gauges in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from channels_core.stats import Health, Stats

__all__ = ("MEDIA_TYPE", "write_metrics")

MEDIA_TYPE: Final = "text/plain; version=0.0.4"
"""Litestar adds the character set."""

_COUNTERS: Final = {
    "published": "Publish calls that the broker accepted.",
    "failed": "Publish calls that the broker refused or did not accept in time.",
    "delivered": "Events handed into event streams.",
    "dropped": "Events dropped because the backlog of a slow subscriber was full.",
    "gaps": "Gaps put into event streams.",
    "reconnects": "Successful restarts of the backend.",
}

_GAUGES: Final = {
    "pending": "Publish calls that wait for the broker.",
    "subscribers": "Subscribers with at least one channel.",
    "channels": "Channels with at least one subscriber.",
}


def write_metrics(stats: Stats, health: Health) -> str:
    """Return the text that a scraper reads."""
    rows = [
        *(_lines(f"channels_{name}_total", "counter", text, getattr(stats, name)) for name, text in _COUNTERS.items()),
        *(_lines(f"channels_{name}", "gauge", text, getattr(stats, name)) for name, text in _GAUGES.items()),
        _lines("channels_healthy", "gauge", "1 while the broker is heard, else 0.", int(health.ok)),
    ]
    return "".join(line for lines in rows for line in lines)


def _lines(name: str, kind: str, text: str, value: int) -> Iterator[str]:
    yield f"# HELP {name} {text}\n"
    yield f"# TYPE {name} {kind}\n"
    yield f"{name} {value}\n"
