"""Reading the history of a channel: one script call, and which of its entries follow a position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from channels_core.events import ORIGIN, Event, Position
from channels_redis._names import encode_name
from channels_redis._runs import ChannelKeys
from channels_redis._scripts import READ
from channels_redis._wire import pack

__all__ = ("Reading", "follow", "pack_readings", "read_position")


class Reading(NamedTuple):
    """One question about a channel's history."""

    keys: ChannelKeys
    limit: int | None
    after: Position | None


def pack_readings(readings: Sequence[Reading], history: int, max_age_ms: int) -> bytes:
    """Pack calls of the read script."""
    return b"".join([_pack(each, history, max_age_ms) for each in readings])


def read_position(epoch: object, offset: object) -> Position:
    """Return the position that a record's fields give; a channel without a record is at the origin."""
    if not isinstance(epoch, bytes) or not isinstance(offset, bytes) or not offset.isdigit():
        return ORIGIN
    return Position(epoch.decode("utf-8", "backslashreplace"), int(offset))


def follow(events: Sequence[Event], after: Position | None, limit: int | None) -> Sequence[Event]:
    """Return the oldest ``limit`` events that follow ``after``, across an epoch border too.

    Offsets of one stream ascend through all its epochs, but what follows is decided by the epoch: events of `after`'s
    own epoch may have been lost, and then those of the next epoch begin at offsets that `after` already passed.
    """
    if after is None:
        return events
    own = [index for index, event in enumerate(events) if event.position and event.position.epoch == after.epoch]
    if own:
        begin, end = own[0], own[-1] + 1
        events = [*(each for each in events[begin:end] if _offset(each) > after.offset), *events[end:]]
    return events if limit is None else events[:limit]


def _offset(event: Event) -> int:
    return event.position.offset if event.position else 0


def _pack(reading: Reading, history: int, max_age_ms: int) -> bytes:
    keys, limit, after = reading
    words = [b"EVALSHA", READ.sha, b"2", keys.record, keys.stream]
    words += [b"%d" % (-1 if limit is None else limit), b"%d" % history, b"%d" % max_age_ms]
    if after is not None:
        words += [encode_name(after.epoch), b"%d" % after.offset]
    return pack(*words)
