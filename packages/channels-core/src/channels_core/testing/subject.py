"""What the kit proves: how to make backends, what they promise, and how to break their broker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

from channels_core.backend import ChannelsBackend

__all__ = ("HOOKS", "MANDATORY_WITH_HISTORY", "Hook", "Subject", "TrimHook")

Hook = Callable[[], Awaitable[None]]
"""Breaks or mends the broker; returns when that is done."""

TrimHook = Callable[[str, int], Awaitable[None]]
"""Gets a channel's name and how many of its newest events stay."""

HOOKS: Final = (
    "change_incarnation",
    "connection_count",
    "cut_connections",
    "lose_memory",
    "start_broker",
    "stop_broker",
    "trim",
)
"""All optional methods of a `Subject`."""

MANDATORY_WITH_HISTORY: Final = ("lose_memory", "trim")
"""A history that was never lost and never trimmed has not been tried."""


class Subject(ABC):
    """A backend to prove, together with its broker.

    Subclass it (with pytest: subclass `channels_core.testing.suite.ChannelsBackendSuite`), give `make_backend`,
    declare what the backend promises, and define the hooks that the broker allows. A rule whose hook is missing is
    *not proved*. Hooks are ``async def`` methods that take nothing, apart from ``trim(channel, keep)``.

    Attributes:
        keeps_history: What the backends declare; at least 100 events per channel must be kept.
        max_payload: What the backends declare.
        call_timeout: Seconds that any single call or event may take; generous, because a pass must not depend on it.
        idle_seconds: How long the rule of idleness waits; ``None`` leaves it not proved.
        lose_memory: The broker forgets every channel (``FLUSHALL``).
        trim: Only the newest ``keep`` events of a channel stay in its history.
        cut_connections: Every connection of every backend breaks; the broker goes on.
        stop_broker: The broker is unreachable until `start_broker`.
        start_broker: The broker is reachable again, and answers when this returns.
        change_incarnation: The broker returns as another one that has the events (a restart, a failover).
        connection_count: Tells how many connections the broker has; those of the hooks themselves do not count.
    """

    keeps_history: bool = False
    max_payload: int | None = None
    call_timeout: float = 15.0
    idle_seconds: float | None = None

    lose_memory: Hook | None = None
    trim: TrimHook | None = None
    cut_connections: Hook | None = None
    stop_broker: Hook | None = None
    start_broker: Hook | None = None
    change_incarnation: Hook | None = None
    connection_count: Callable[[], Awaitable[int]] | None = None

    @abstractmethod
    def make_backend(self) -> ChannelsBackend:
        """Make a fresh backend, not started; all of them share one broker."""

    def missing_hooks(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Give those of the named hooks that are not defined."""
        return tuple(name for name in names if getattr(self, name) is None)
