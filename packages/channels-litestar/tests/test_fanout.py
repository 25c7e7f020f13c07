from __future__ import annotations

from channels_core.events import Event
from channels_litestar._fanout import LARGE_KEPT, SMALL_BYTES, SMALL_KEPT, encode_once


def count_encodings(events: list[Event], connections: int) -> int:
    """Let each connection encode all events, one connection after the other; return how many were really encoded."""
    encoded = []

    @encode_once
    def encode(event: Event) -> bytes:
        encoded.append(event)
        return event.data

    for _ in range(connections):
        assert [encode(event) for event in events] == [event.data for event in events]
    return len(encoded)


def test_a_burst_is_encoded_once_for_all_connections() -> None:
    """A connection sends all that waits for it before the next one begins: a whole backlog must be remembered."""
    assert count_encodings([Event("chat", b"%d" % number) for number in range(SMALL_KEPT)], connections=3) == SMALL_KEPT


def test_of_large_events_few_are_kept() -> None:
    """Memory is bounded: events above the limit do not stay by the thousand."""
    large = [Event("chat", b"%d" % number * SMALL_BYTES) for number in range(10, 10 + LARGE_KEPT)]
    assert count_encodings(large, connections=3) == LARGE_KEPT
    more = [*large, Event("chat", b"z" * (SMALL_BYTES + 1))]
    assert count_encodings(more, connections=3) == 3 * len(more)
