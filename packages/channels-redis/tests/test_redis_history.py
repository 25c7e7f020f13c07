"""What follows a position: decided by the epoch first."""

from __future__ import annotations

import pytest

from channels_core.events import ORIGIN, Event, Position
from channels_redis._history import follow, read_position

EVENTS = [Event("c", b"%d" % n, Position("old" if n <= 5 else "new", n)) for n in range(3, 9)]


def offsets(after: Position | None, limit: int | None = None) -> list[int]:
    return [event.position.offset for event in follow(EVENTS, after, limit) if event.position]


@pytest.mark.parametrize(
    "after, expected",
    [
        (None, [3, 4, 5, 6, 7, 8]),
        (ORIGIN, [3, 4, 5, 6, 7, 8]),
        (Position("old", 1), [3, 4, 5, 6, 7, 8]),
        (Position("old", 4), [5, 6, 7, 8]),
        (Position("old", 5), [6, 7, 8]),
        (Position("old", 7), [6, 7, 8]),
        (Position("new", 6), [7, 8]),
        (Position("new", 8), []),
        (Position("new", 99), []),
        (Position("unknown", 7), [3, 4, 5, 6, 7, 8]),
    ],
)
def test_what_follows_a_position(after: Position | None, expected: list[int]) -> None:
    """Of the own epoch what is higher, and everything of later ones, also at offsets already passed."""
    assert offsets(after) == expected


def test_the_oldest_come_first() -> None:
    """A limit takes the oldest that follow, so that pages join up."""
    assert offsets(Position("old", 4), 2) == [5, 6]


def test_a_channel_without_a_record_is_at_the_origin() -> None:
    """Absent and unreadable records mean "before anything"."""
    assert read_position(None, None) == ORIGIN
    assert read_position(b"e", b"nonsense") == ORIGIN
    assert read_position(b"e", b"7") == Position("e", 7)
