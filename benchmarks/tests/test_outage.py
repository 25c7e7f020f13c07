"""What counts as lost, and as announced."""

import pytest

from channels_bench.outage import tally


def test_nothing_lost() -> None:
    """Every accepted event came."""
    found = tally([0, 1, 2], [0, 1, 2])
    assert (found.accepted, found.received, found.lost, found.lost_silently) == (3, 3, 0, 0)


def test_lost_without_a_word() -> None:
    """Events that just do not come are lost silently."""
    found = tally([0, 1, 2, 3], [0, 3])
    assert (found.lost, found.announced, found.lost_silently) == (2, 0, 2)


def test_lost_inside_a_gap() -> None:
    """A gap announces what is missing between its neighbours, and nothing beyond them."""
    found = tally([0, 1, 2, 3, 4, 5], [0, None, 3, 5])
    assert (found.lost, found.announced, found.lost_silently) == (3, 2, 1)


def test_a_gap_at_the_very_start_covers_what_came_before_the_first_event() -> None:
    """Nothing had come yet."""
    assert tally([0, 1, 2], [None, 2]).announced == 2


def test_a_gap_that_nothing_follows_announces_nothing() -> None:
    """A stream that says that something may be missing and then stays silent is silent."""
    found = tally([0, 1, 2], [0, None])
    assert (found.announced, found.lost_silently) == (0, 2)


def test_a_late_event_does_not_end_a_gap() -> None:
    """An older event behind a gap is one that was retried; the gap reaches to the first newer one."""
    found = tally([0, 1, 2, 3, 4], [0, 1, None, 0, 4])
    assert (found.lost, found.announced, found.twice) == (2, 2, 1)


@pytest.mark.parametrize("items", [[0, 1, 1, 2], [0, 1, 2, 1]])
def test_twice(items: list[int]) -> None:
    """A second copy counts as such, wherever it comes."""
    assert tally([0, 1, 2], items).twice == 1


def test_what_was_never_accepted_is_not_lost() -> None:
    """A publisher that was told of the failure knows; an event that came all the same is not counted."""
    found = tally([0, 2], [0, 1, 2])
    assert (found.accepted, found.received, found.lost, found.twice) == (2, 2, 0, 0)
