from __future__ import annotations

import pytest
from core_stage import event
from hypothesis import given
from hypothesis import strategies as st

from channels_core import Event, Gap, Position
from channels_core._history import Walk, follows, is_duplicate, is_within, missing_between
from channels_core.backend import History
from channels_core.events import ORIGIN

positions = st.builds(Position, st.sampled_from(["", "e", "f"]), st.integers(0, 5))


def at(offset: int, epoch: str = "e") -> Position:
    return Position(epoch, offset)


@pytest.mark.parametrize(
    "last, position, expected",
    [
        (at(1), at(2), True),
        (at(1), at(1), False),
        (at(1), at(3), False),
        (at(2), at(1), False),
        (at(1), at(2, "f"), False),
        (ORIGIN, at(1), True),
        (ORIGIN, at(2), False),
    ],
)
def test_follows(last: Position, position: Position, expected: bool) -> None:
    """The next offset of the same epoch follows; before anything, offset 1 of any epoch does."""
    assert follows(last, position) is expected


@given(positions, positions)
def test_a_position_is_a_duplicate_follows_or_leaves_a_gap(last: Position, position: Position) -> None:
    """Of three things exactly one holds for a position of the same epoch."""
    missing = missing_between("a", last, position.before())
    if is_duplicate(last, position):
        assert not follows(last, position)
    elif position.epoch == last.epoch:
        assert follows(last, position) == (missing is None)


@given(positions, positions)
def test_nothing_but_equal_positions_leaves_no_gap(last: Position, until: Position) -> None:
    """A gap says from where to where, and how many where that can be known."""
    gap = missing_between("a", last, until)
    if gap is None:
        assert last == until or (last == ORIGIN and until.offset == 0)
        return
    assert (gap.channel, gap.after, gap.until) == ("a", last, until)
    assert (gap.reason == "trimmed") == (gap.missed is not None)
    assert gap.missed is None or gap.missed > 0


def test_is_within() -> None:
    """Before anything lies within everything, another epoch's position within nothing."""
    assert is_within(ORIGIN, at(3))
    assert is_within(ORIGIN, ORIGIN)
    assert is_within(at(3), at(3))
    assert not is_within(at(4), at(3))
    assert not is_within(at(1, "f"), at(3))


def test_gap_of_another_epoch() -> None:
    """Where the broker may have lost memory, nobody knows how much is missing."""
    assert missing_between("a", at(3), at(9, "f")) == Gap("a", "epoch", at(3), at(9, "f"), None)
    assert missing_between("a", at(3), at(2)) == Gap("a", "epoch", at(3), at(2), None)


def stored(first: int, last: int) -> list[Event]:
    return [event(offset) for offset in range(first, last + 1)]


def walk_all(start: Position | None, cut: Position | None, events: list[Event], top: Position, page: int) -> Walk:
    """Walk as the core does, page by page over a history that does not change."""
    walk = Walk("a", start, cut)
    while True:
        rest = [e for e in events if walk.last is None or e.position is None or not is_duplicate(walk.last, e.position)]
        if not walk.take(History(rest[:page], top)):
            break
    walk.finish(cut or top)
    return walk


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 20), st.integers(0, 20), st.integers(1, 7))
def test_a_walk_accounts_for_every_offset_once(start: int, oldest: int, stored_count: int, cut: int, page: int) -> None:
    """From the start to the cut each offset is an event or counted in a gap, whatever was trimmed and however paged."""
    top = oldest + stored_count - 1
    start, cut = min(start, top), min(cut, top)
    start = min(start, cut)
    walk = walk_all(at(start), at(cut), stored(oldest, top), at(top), page)

    offset = start
    for item in walk.items:
        if isinstance(item, Event):
            assert item.position == at(offset + 1)
            offset += 1
        else:
            assert (item.reason, item.after) == ("trimmed", at(offset))
            assert item.missed is not None
            offset += item.missed
            assert item.until == at(offset)
    assert offset == cut
    assert walk.last == at(cut)


def test_walk_over_an_epoch_border() -> None:
    """Events on both sides of a border are given, with a gap between."""
    old, new = event(3), event(4, epoch="f")
    walk = Walk("a", at(2), None)

    assert not walk.take(History([old, new], at(4, "f")))
    assert walk.items == [old, Gap("a", "epoch", at(3), at(3, "f"), None), new]


def test_walk_keeps_older_epochs_before_the_cut() -> None:
    """What an older epoch left lies before the cut as long as the cut's epoch is the newest."""
    old = event(3)
    walk = Walk("a", at(2), at(3, "f"))

    assert walk.take(History([old], at(3, "f")))
    walk.finish(at(3, "f"))
    assert walk.items == [old, Gap("a", "epoch", at(3), at(3, "f"), None)]


def test_walk_stops_where_a_newer_epoch_begins() -> None:
    """Where the cut's epoch is not the newest any more, a gap up to the cut takes the place of the read."""
    walk = Walk("a", at(2), at(5))

    assert not walk.take(History([event(1, epoch="f")], at(1, "f")))
    walk.finish(at(5))
    assert walk.items == [Gap("a", "trimmed", at(2), at(5), 3)]


def test_walk_without_a_start_begins_with_what_comes() -> None:
    """A walk that begins anywhere has no gap in front, and none when nothing came."""
    walk = Walk("a", None, at(9))
    assert walk.take(History(stored(7, 8), at(9)))
    assert walk.items == stored(7, 8)

    empty = Walk("a", None, at(9))
    empty.finish(at(9))
    assert empty.items == []
    assert empty.last == at(9)


def test_walk_ignores_what_it_has() -> None:
    """Events at or before the position reached are left out."""
    walk = Walk("a", at(5), None)
    assert not walk.take(History(stored(4, 6), at(6)))
    assert walk.items == stored(6, 6)
