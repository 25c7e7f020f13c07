"""The kit passes on the memory backend, with history and without."""

from __future__ import annotations

from memory_subject import MemorySubject

from channels_core.testing.suite import ChannelsBackendSuite


class TestMemory(MemorySubject, ChannelsBackendSuite):
    """Without history."""


class TestMemoryWithHistory(MemorySubject, ChannelsBackendSuite):
    """With history."""

    keeps_history = True
