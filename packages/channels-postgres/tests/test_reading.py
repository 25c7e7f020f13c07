"""The parts of reading and publishing that need no server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_core.backend import Publication
from channels_core.exceptions import ImproperlyConfigured
from channels_postgres._filter import ChannelFilter, channel_hash
from channels_postgres._portions import PORTION_BYTES, portions_of
from channels_postgres._reader import Snapshot
from channels_postgres._transactions import fetch_value_in

NAMES = st.sets(st.binary(max_size=8), max_size=400)


def passes(channels: ChannelFilter, name: bytes) -> bool:
    number = channel_hash(name) & channels.mask
    return bool(channels.bits[number >> 3] >> (number & 7) & 1)


@given(NAMES, NAMES, NAMES)
def test_the_filter_lets_every_subscribed_channel_through(
    first: set[bytes], gone: set[bytes], later: set[bytes]
) -> None:
    """Whatever came and went, a subscribed channel passes."""
    channels = ChannelFilter()
    channels.add(first)
    channels.remove(gone & first)
    channels.add(later)
    assert all(passes(channels, name) for name in (first - gone) | later)


def test_a_channel_is_not_left_with_another_of_the_same_hash() -> None:
    """Two channels may have one hash: leaving one of them, and any number of others, leaves the other subscribed."""
    left, kept = b"room-36008", b"room-38138"
    assert channel_hash(left) == channel_hash(kept)
    others = [b"other-%d" % number for number in range(200)]
    channels = ChannelFilter()
    channels.add([left, kept])
    channels.remove([left])
    channels.add(others)
    channels.remove(others)
    assert passes(channels, kept)


def test_the_filter_keeps_most_others_back() -> None:
    """With 10,000 channels it has a few KB and holds back most others, and all when they are gone."""
    channels = ChannelFilter()
    channels.add(b"in%d" % number for number in range(10_000))
    assert len(channels.bits) <= 20_000
    assert sum(passes(channels, b"out%d" % number) for number in range(10_000)) < 1_500
    channels.remove([b"in%d" % number for number in range(10_000)])
    assert not any(channels.bits)


@pytest.mark.parametrize(
    "text, shown, hidden",
    [("10:10:", [1, 9], [10, 11]), ("10:15:10,12", [9, 11, 13, 14], [10, 12, 15, 16])],
)
def test_snapshots_show_what_had_ended(text: str, shown: list[int], hidden: list[int]) -> None:
    """Below xmin all, from xmax on none, between them those that were not active."""
    snapshot = Snapshot.parse(text)
    assert all(snapshot.shows(xid) for xid in shown)
    assert not any(snapshot.shows(xid) for xid in hidden)


def test_portions_keep_order_and_lanes_apart() -> None:
    """One statement has one lane and each channel once; what does not ascend in its channel and lane is left out."""
    batch = [
        Publication(b"1", ("a", "b", "a"), ("x", 1)),
        Publication(b"again", ("a",), ("x", 1)),
        Publication(b"2", ("a",), ("x", 2)),
        Publication(b"3", ("a",), ("y", 1)),
        Publication(b"4", ("a", "a")),
        Publication(b"4", ("a",)),
    ]
    found = [(each.lane, each.names, each.ends, each.numbers, each.payloads) for each in portions_of(batch)]
    assert found == [
        ("x", [b"a", b"b"], [2, 3], [1, 2, 1], [b"1", b"2", b"1"]),
        ("y", [b"a"], [1], [1], [b"3"]),
        ("", [b"a"], [2], [0, 0], [b"4", b"4"]),
    ]


def test_portions_do_not_grow_without_end() -> None:
    """A large event for very many channels is spread over several statements."""
    channels = tuple(f"c{number}" for number in range(100))
    portions = list(portions_of([Publication(bytes(1024 * 1024), channels, ("x", 1))]))
    assert len(portions) > 1
    assert all(sum(map(len, portion.payloads)) <= PORTION_BYTES + 1024 * 1024 for portion in portions)
    assert [name for portion in portions for name in portion.names] == [name.encode() for name in channels]


async def test_unknown_connections_are_refused() -> None:
    """What is no connection is refused with what would be one."""
    with pytest.raises(ImproperlyConfigured, match="AsyncSession"):
        await fetch_value_in(object(), "SELECT 1")
