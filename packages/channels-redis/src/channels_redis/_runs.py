"""Publications on their way to the publish script: those of a batch for one channel travel in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from channels_core.backend import Publication
from channels_redis._names import encode_name, stream_tag
from channels_redis._scripts import PUBLISH
from channels_redis._wire import pack_words

__all__ = ("ChannelKeys", "Run", "group_runs", "make_keys", "pack_runs")

MAX_RUN: Final = 200
"""Events in one script call: the server does nothing else while a script runs."""

FIXED_WORDS: Final = 17
"""Words of a call besides numbers and payloads: command, name of the script, count of keys, two keys, 12 arguments."""


class ChannelKeys(NamedTuple):
    """The names of one channel on the server."""

    record: bytes
    stream: bytes
    live: bytes
    packed_keys: bytes
    packed_live: bytes


def make_keys(prefix: str, channel: str, database: int) -> ChannelKeys:
    """Name everything that one channel has; all of it in one hash slot."""
    tag = stream_tag(prefix, channel)
    record, stream = tag + b":meta", tag + b":stream"
    # Redis Pub/Sub knows no databases, but the history that live events belong to does.
    live = tag + (b"@%d" % database if database else b"")
    return ChannelKeys(record, stream, live, pack_words(record, stream), pack_words(live))


class Run:
    """Events of one channel and lane, in order."""

    __slots__ = ("count", "keys", "lane", "last", "packed")

    def __init__(self, keys: ChannelKeys, lane: str | None) -> None:
        self.keys: Final = keys
        self.lane: Final = lane
        self.packed: Final[list[bytes]] = []
        self.count = 0
        self.last = 0

    def add(self, number: int, data: bytes) -> None:
        """Append an event; numbers ascend."""
        digits = b"%d" % number
        self.packed.append(b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(digits), digits, len(data), data))
        self.count += 1
        self.last = number


def group_runs(batch: Iterable[Publication], keys_of: Callable[[str], ChannelKeys]) -> tuple[list[Run], list[int]]:
    """Return the runs, and for each channel of each publication, in order, the index of its run.

    The order within a channel stays. Channels have no order among each other, and one call for all events of a channel
    costs the server a fraction of one call for each.
    """
    runs: list[Run] = []
    indices: list[int] = []
    last: dict[tuple[str, str | None], int] = {}
    for publication in batch:
        lane, number = publication.key or (None, 0)
        for channel in publication.channels:
            index = last.get((channel, lane))
            if index is None or runs[index].count >= MAX_RUN:
                index = last[channel, lane] = len(runs)
                runs.append(Run(keys_of(channel), lane))
            runs[index].add(number, publication.data)
            indices.append(index)
    return runs, indices


def pack_runs(runs: Sequence[Run], fixed: bytes, fresh_epoch: Callable[[], bytes]) -> bytes:
    """Pack calls of the publish script.

    Each call names the number before its own that this batch brings to the same channel and lane: the script stores
    nothing when that one is not there, so that a call that failed alone is never overtaken by the next one.

    Args:
        runs: In order.
        fixed: The packed arguments that are the same for all calls on one connection.
        fresh_epoch: Gives an epoch that nobody used before.
    """
    packed: list[bytes] = []
    previous: dict[tuple[bytes, str], int] = {}
    for run in runs:
        lane, before = b"", 0
        if run.lane is not None:
            place = (run.keys.record, run.lane)
            lane, before, previous[place] = _lane_field(run.lane), previous.get(place, 0), run.last
        packed += (
            b"*%d\r\n" % (FIXED_WORDS + 2 * run.count),
            _CALL,
            run.keys.packed_keys,
            fixed,
            run.keys.packed_live,
            pack_words(fresh_epoch(), lane, b"%d" % before),
            *run.packed,
        )
    return b"".join(packed)


def _lane_field(lane: str) -> bytes:
    return b":" + encode_name(lane)


_CALL: Final = pack_words(b"EVALSHA", PUBLISH.sha, b"2")
