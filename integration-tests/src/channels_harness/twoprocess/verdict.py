"""What came out of a run with a fault."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import msgspec

from channels_core import Event, Gap
from channels_core.testing import Checker
from channels_harness.twoprocess.wire import CHANNELS, END, QUEUED, Item, Setup

__all__ = ("Verdict",)

_SUBSCRIBER: Final = "subscriber"


class Verdict(msgspec.Struct, frozen=True):
    """What was published and what the subscriber received.

    Attributes:
        setup: How the run was set up.
        items: The subscriber's stream.
        accepted: The numbers for which ``wait_published`` returned.
        failed: How many events the publisher's plugin gave up.
    """

    setup: Setup
    items: tuple[Item, ...]
    accepted: frozenset[int]
    failed: int

    def verify(self, *, history: bool) -> None:
        """Raise `AssertionError` when an event was lost, doubled or reordered outside of announced gaps."""
        assert self.failed == 0, f"{self.failed} events were given up"
        checker = Checker(at_least_once=not history)
        for channel in CHANNELS:
            checker.joined(_SUBSCRIBER, channel)
            for number in range(self.setup.count):
                self._note(checker, channel, number)
        for item in self.items:
            checker.item(_SUBSCRIBER, _content(item))
        checker.verify()

    def verify_complete(self) -> None:
        """Raise `AssertionError` unless every event came once and in order."""
        for channel in CHANNELS:
            numbers = list(self.numbers(channel))
            expected = range(self.setup.count)
            assert sorted(set(expected) - set(numbers)) == [], f"missing in {channel!r}"
            assert numbers == list(expected), f"doubled or reordered in {channel!r}"

    def gaps(self) -> dict[str, list[str]]:
        """Return the reasons of each channel's gaps, in order."""
        reasons: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        for item in self.items:
            if item.gap is not None:
                reasons[item.gap.channel].append(item.gap.reason)
        return reasons

    def numbers(self, channel: str) -> Iterator[int]:
        """Give the numbers that were received of one channel, in order."""
        for item in self.items:
            if item.event is not None and item.event.channel == channel and item.event.data != END:
                yield int(item.event.data)

    def received(self) -> int:
        """Count the different events that came."""
        return sum(len(set(self.numbers(channel))) for channel in CHANNELS)

    def repeated(self) -> int:
        """Count the events that came again."""
        return sum(len(list(self.numbers(channel))) for channel in CHANNELS) - self.received()

    def recovery(self, broken: float, mended: float) -> float:
        """Return how long after the mending the longest silence since the breaking lasted, in seconds."""
        times = [item.at for item in self.items if item.event is not None]
        silences = [(end - start, end) for start, end in pairwise(times) if end > broken]
        return max(0.0, max(silences)[1] - mended) if silences else float("inf")

    def _note(self, checker: Checker, channel: str, number: int) -> None:
        data = b"%d" % number
        checker.publishing(channel, data)
        # What went through the queue and was not given up has been accepted.
        if channel == QUEUED or number in self.accepted:
            checker.accepted(channel, data)


def _content(item: Item) -> Event | Gap:
    content = item.event if item.event is not None else item.gap
    assert content is not None
    return content
