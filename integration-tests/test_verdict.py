"""The judgement of the two-process test finds what it is there for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from channels_core import Event, Gap
from channels_harness.twoprocess import CHANNELS, Setup, Verdict
from channels_harness.twoprocess.wire import QUEUED, Item

COUNT = 6


def test_everything_in_order_is_well() -> None:
    """A complete stream passes."""
    verdict = verdict_of(range(COUNT))
    verdict.verify(history=True)
    verdict.verify_complete()


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([0, 1, 3, 4, 5], id="lost"),
        pytest.param([0, 1, 2, 2, 3, 4, 5], id="doubled"),
        pytest.param([0, 2, 1, 3, 4, 5], id="reordered"),
        pytest.param([0, 1, 2, 3, 4], id="lost at the end"),
    ],
)
def test_what_is_wrong_is_found(numbers: list[int]) -> None:
    """A lost, doubled or reordered event fails, with history."""
    verdict = verdict_of(numbers)
    with pytest.raises(AssertionError):
        verdict.verify(history=True)
    with pytest.raises(AssertionError):
        verdict.verify_complete()


def test_a_retried_event_may_come_twice_without_history() -> None:
    """Twice is a finding only where history is kept."""
    verdict_of([0, 1, 2, 2, 3, 4, 5]).verify(history=False)


def test_a_gap_excuses_what_it_announces() -> None:
    """An event may be missing where the gap stands, and nowhere else."""
    verdict_of([0, 1, None, 3, 4, 5]).verify(history=False)
    with pytest.raises(AssertionError):
        verdict_of([0, None, 1, 3, 4, 5]).verify(history=False)


def test_an_event_that_was_not_accepted_may_be_missing() -> None:
    """What ``wait_published`` raised for appears once or never."""
    numbers = [0, 1, 3, 4, 5]
    items = tuple(item for item in items_of(numbers) if item.event is not None and item.event.channel != QUEUED)
    complete = tuple(item for item in items_of(range(COUNT)) if item.event is not None and item.event.channel == QUEUED)
    Verdict(Setup("", count=COUNT), items + complete, frozenset(numbers), 0).verify(history=False)


def test_an_event_that_was_given_up_is_found() -> None:
    """A publisher that drops an event has failed."""
    with pytest.raises(AssertionError, match="given up"):
        Verdict(Setup("", count=COUNT), items_of(range(COUNT)), frozenset(range(COUNT)), 1).verify(history=False)


def test_recovery_counts_from_the_mending() -> None:
    """The longest silence since the fault counts, from when the broker was back."""
    items = tuple(Item(at, event=Event(QUEUED, b"0")) for at in (0.0, 5.0, 5.1, 7.0, 7.1))
    verdict = Verdict(Setup("", count=COUNT), items, frozenset(), 0)
    assert verdict.recovery(broken=5.05, mended=6.5) == pytest.approx(0.5)


def verdict_of(numbers: Iterable[int | None]) -> Verdict:
    return Verdict(Setup("", count=COUNT), items_of(numbers), frozenset(range(COUNT)), 0)


def items_of(numbers: Iterable[int | None]) -> tuple[Item, ...]:
    """Make the same stream for each channel; ``None`` is a gap."""
    numbers = list(numbers)
    return tuple(item_of(channel, number) for channel in CHANNELS for number in numbers)


def item_of(channel: str, number: int | None) -> Item:
    if number is None:
        return Item(0.0, gap=Gap(channel, "disconnected"))
    return Item(0.0, event=Event(channel, b"%d" % number))
