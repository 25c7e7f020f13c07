"""Judge what subscribers received: nothing lost, duplicated or reordered, and every gap announced and exact."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import msgspec

from channels_core.events import ORIGIN, Event, Gap, Position

__all__ = ("Checker", "Finding", "FindingKind")

FindingKind = Literal["lost", "duplicated", "reordered", "unannounced gap", "wrong gap"]
"""Lost: accepted by the broker and neither received nor behind a gap. Duplicated: received twice. Reordered: received
behind a newer one. Unannounced gap: positions are not consecutive and no gap stands there. Wrong gap: a gap's
``after``, ``until`` or ``missed`` contradict the events around it."""


class Finding(msgspec.Struct, frozen=True):
    """One broken promise."""

    kind: FindingKind
    subscriber: str
    channel: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: subscriber {self.subscriber!r}, channel {self.channel!r}: {self.detail}"


class Checker:
    """Collects what was published and received, and reports what does not fit.

    Every payload must be unique within its channel. Tell it about each publication *before* the call
    (`publishing`) and once the broker has accepted it (`accepted`); an attempt that was never accepted may appear
    once or never. Tell it when a subscriber has joined, and hand it every item in stream order.

    Without the first two it still judges positions, which is all that another process can do. So is a payload that it
    was not told of, such as a sentinel, judged by its position alone; where one came instead of a published payload,
    the published one is lost.

    Args:
        at_least_once: Without history a retried event may arrive twice, and that is no finding then.
    """

    def __init__(self, *, at_least_once: bool = False) -> None:
        self._at_least_once = at_least_once
        self._sent: dict[str, _Sent] = defaultdict(_Sent)
        self._streams: dict[tuple[str, str], _Stream] = {}

    def publishing(self, channel: str, data: bytes, *, publisher: str = "") -> None:
        """Note an attempt; the attempts of one publisher must reach its channel in this order."""
        self._sent[channel].attempt(publisher, data)

    def accepted(self, channel: str, data: bytes) -> None:
        """Note that the broker has accepted it: from now on it must arrive."""
        self._sent[channel].accepted.add(data)

    def published(self, channel: str, data: bytes, *, publisher: str = "") -> None:
        """Note an attempt that was accepted."""
        self.publishing(channel, data, publisher=publisher)
        self.accepted(channel, data)

    def joined(self, subscriber: str, channel: str, *, after: Position | None = None) -> None:
        """Note that what is published from now on must reach this subscriber, once, before its first item.

        Of what was published before, a publisher's first payload that comes is where the rest of its payloads must
        go on. With ``after``, the first position must follow it; after `ORIGIN`, everything published must come.

        Raises:
            ValueError: The subscriber's stream of this channel is known already.
        """
        if (subscriber, channel) in self._streams:
            raise ValueError(
                f"subscriber {subscriber!r} has joined channel {channel!r} already; a stream that is resumed goes on "
                "without joining again, another stream needs another name"
            )
        skipped = 0 if after == ORIGIN else len(self._sent[channel].places)
        self._streams[subscriber, channel] = _Stream(after, skipped)

    def item(self, subscriber: str, item: Event | Gap) -> None:
        """Take an item of the subscriber's stream."""
        if isinstance(item, Gap):
            self.gap(subscriber, item)
        else:
            self.received(subscriber, item.channel, item.position, item.data)

    def received(self, subscriber: str, channel: str, position: Position | None, data: bytes) -> None:
        """Take an event of the subscriber's stream."""
        self._stream(subscriber, channel).event(position, data)

    def gap(self, subscriber: str, gap: Gap) -> None:
        """Take a gap of the subscriber's stream."""
        self._stream(subscriber, gap.channel).gap(gap)

    def findings(self) -> list[Finding]:
        """List every broken promise; empty when all is well."""
        found: list[Finding] = []
        for (subscriber, channel), stream in self._streams.items():
            complaints = stream.complaints + stream.judge(self._sent[channel], self._at_least_once)
            found += [Finding(kind, subscriber, channel, detail) for kind, detail in complaints]
        return found

    def verify(self) -> None:
        """Raise `AssertionError` with the first findings, if there are any."""
        found = self.findings()
        if found:
            raise AssertionError("\n".join([f"{len(found)} findings:", *map(str, found[:20])]))

    def _stream(self, subscriber: str, channel: str) -> _Stream:
        return self._streams.setdefault((subscriber, channel), _Stream(None, 0))


_Complaint = tuple[FindingKind, str]


class _Sent:
    """What was published to one channel."""

    def __init__(self) -> None:
        self.places: dict[bytes, tuple[str, int, int]] = {}
        self.accepted: set[bytes] = set()
        self.by_publisher: dict[str, list[bytes]] = defaultdict(list)

    def attempt(self, publisher: str, data: bytes) -> None:
        if data in self.places:
            raise ValueError(f"{data[:80]!r} was published before; the checker needs unique payloads")
        mine = self.by_publisher[publisher]
        self.places[data] = (publisher, len(mine), len(self.places))
        mine.append(data)


class _Stream:
    """What one subscriber received of one channel."""

    def __init__(self, after: Position | None, skipped: int) -> None:
        self.complaints: list[_Complaint] = []
        self._skipped = skipped
        self._items: list[bytes | Gap] = []
        self._last = after
        self._seen: set[Position] = set()
        self._epochs: set[str] = set()
        self._gap: Gap | None = None

    def event(self, position: Position | None, data: bytes) -> None:
        self._items.append(data)
        if position is not None:
            complaint = self._judge_position(position)
            if complaint is not None:
                self.complaints.append(complaint)
            self._seen.add(position)
            self._epochs.add(position.epoch)
            self._last = position
        self._gap = None

    def gap(self, gap: Gap) -> None:
        self._items.append(gap)
        self.complaints += [("wrong gap", detail) for detail in _contradictions(gap, self._last, self._gap)]
        self._gap = gap

    def judge(self, sent: _Sent, at_least_once: bool) -> list[_Complaint]:
        """Compare the payloads with what was published."""
        return _PayloadJudge(sent, self._skipped, at_least_once).judge(self._items)

    def _judge_position(self, position: Position) -> _Complaint | None:
        last, gap = self._last, self._gap
        if position in self._seen:
            return "duplicated", f"position {position} again"
        if last is not None and _is_older(last, position, self._epochs):
            return "reordered", f"position {position} behind {last}"
        if gap is not None:
            fits = _ends_before(gap, position) and not (gap.missed and _is_next(last, position))
            return None if fits else ("wrong gap", f"{gap} stands between positions {last} and {position}")
        if last is not None and not _follows(last, position):
            return "unannounced gap", f"position {position} behind {last}"
        return None


class _PayloadJudge:
    """Finds lost, duplicated and reordered payloads in one subscriber's items of one channel."""

    def __init__(self, sent: _Sent, skipped: int, at_least_once: bool) -> None:
        self._sent = sent
        self._at_least_once = at_least_once
        self._skipped = skipped
        self._seen: set[bytes] = set()
        self._next = {name: self._first(payloads) for name, payloads in sent.by_publisher.items()}
        self._begun: set[str] = set()
        self._excused: set[str] = set()
        self._found: list[_Complaint] = []
        self._missing: list[bytes] = []

    def judge(self, items: list[bytes | Gap]) -> list[_Complaint]:
        for item in items:
            if isinstance(item, Gap):
                self._excused.update(self._next)
            elif item in self._sent.places:
                self._take(item)
        for publisher, payloads in self._sent.by_publisher.items():
            self._miss(publisher, len(payloads))
        return self._found + [
            ("lost", f"{data[:80]!r} was accepted, and no gap stands there")
            for data in self._missing
            if data not in self._seen
        ]

    def _first(self, payloads: list[bytes]) -> int:
        places = self._sent.places
        return sum(places[data][2] < self._skipped for data in payloads)

    def _take(self, data: bytes) -> None:
        publisher, index, _ = self._sent.places[data]
        if data in self._seen:
            if not self._at_least_once:
                self._found.append(("duplicated", f"{data[:80]!r} again"))
            return
        self._seen.add(data)
        if publisher not in self._begun:
            self._begun.add(publisher)
            self._next[publisher] = min(self._next[publisher], index)
        if index < self._next[publisher]:
            self._late(data, publisher, index)
            return
        self._miss(publisher, index)
        self._next[publisher] = index + 1
        self._excused.discard(publisher)

    def _late(self, data: bytes, publisher: str, index: int) -> None:
        # What is older than the join may come behind: a retry where no history is kept.
        if self._sent.places[data][2] >= self._skipped:
            newer = self._sent.by_publisher[publisher][self._next[publisher] - 1]
            self._found.append(("reordered", f"{data[:80]!r} behind {newer[:80]!r} of the same publisher"))

    def _miss(self, publisher: str, until: int) -> None:
        """Judge the payloads from the next expected one to ``until``, which did not come here."""
        if publisher in self._excused:
            return
        payloads = self._sent.by_publisher[publisher][self._next[publisher] : until]
        self._missing += [data for data in payloads if data in self._sent.accepted]


def _follows(last: Position, position: Position) -> bool:
    return position.offset == 1 if last == ORIGIN else _is_next(last, position)


def _is_next(last: Position | None, position: Position) -> bool:
    return last is not None and position.epoch == last.epoch and position.offset == last.offset + 1


def _is_older(last: Position, position: Position, epochs: set[str]) -> bool:
    if position.epoch == last.epoch:
        return position.offset <= last.offset
    return position.epoch in epochs


def _ends_before(gap: Gap, position: Position) -> bool:
    """Tell whether the gap ends right before the position, as far as it says where it ends."""
    until = gap.until
    return until is None or until.epoch != position.epoch or until.offset + 1 == position.offset


def _contradictions(gap: Gap, last: Position | None, previous: Gap | None) -> list[str]:
    found: list[str] = []
    after, until = gap.after, gap.until
    if after is not None and last is not None and previous is None and after != last:
        found.append(f"{gap} stands behind position {last}")
    if after is None or until is None or gap.missed is None or after.epoch != until.epoch:
        return found
    if until.offset - after.offset != gap.missed:
        found.append(f"{gap} covers {until.offset - after.offset} positions")
    return found
