"""The arithmetic of positions: what follows what, and which gap stands between.

Everything that reads history walks it with `Walk`: a join, a repair, a subscriber that catches up. No I/O.
"""

from __future__ import annotations

from typing import Final

from channels_core.backend import History
from channels_core.events import ORIGIN, Event, Gap, Position

__all__ = ("Walk", "follows", "is_within", "missing_between")


def follows(last: Position, position: Position) -> bool:
    """Tell whether nothing is missing between two positions."""
    if position.epoch == last.epoch:
        return position.offset == last.offset + 1
    return last == ORIGIN and position.offset == 1


def is_duplicate(last: Position, position: Position) -> bool:
    """Tell whether a position lies at or before another of its epoch."""
    return position.epoch == last.epoch and position.offset <= last.offset


def is_within(position: Position, head: Position) -> bool:
    """Tell whether everything up to a position certainly lies at or before ``head``."""
    return position == ORIGIN or is_duplicate(head, position)


def missing_between(channel: str, last: Position, until: Position) -> Gap | None:
    """Return the gap for what is missing after ``last`` up to and including ``until``.

    Positions of one epoch tell how many are missing; history no longer reaches back that far. Another epoch, or
    ``until`` before ``last``, means that the broker may have lost memory.
    """
    if until == last or (last == ORIGIN and until.offset == 0):
        return None
    if last == ORIGIN:
        return Gap(channel, "trimmed", last, until, until.offset)
    if until.epoch == last.epoch and until.offset > last.offset:
        return Gap(channel, "trimmed", last, until, until.offset - last.offset)
    return Gap(channel, "epoch", last, until, None)


class Walk:
    """Walk pages of history from a position, up to ``cut`` where one is given, and note every gap.

    Args:
        channel: The channel's name.
        last: The position to go on from; ``None`` to begin with whatever event comes first.
        cut: What lies above comes live and is left alone; ``None`` to go as far as history goes.

    Attributes:
        items: Events and gaps so far.
        last: The position reached.
    """

    __slots__ = ("_channel", "_cut", "items", "last")

    def __init__(self, channel: str, last: Position | None, cut: Position | None) -> None:
        self._channel: Final = channel
        self._cut: Final = cut
        self.items: list[Event | Gap] = []
        self.last = last

    def take(self, page: History) -> bool:
        """Take a page; false when the next one can bring nothing."""
        for event in page.events:
            position = event.position
            assert position is not None, "history without positions breaks the backend contract"
            if self._is_beyond(position, page.top):
                return False
            self._step(event, position)
        return bool(page.events) and self.last != (self._cut or page.top)

    def finish(self, end: Position) -> None:
        """Note a gap for what history did not bring up to ``end``."""
        if self.last is not None:
            self._note(missing_between(self._channel, self.last, end))
        self.last = end

    def _step(self, event: Event, position: Position) -> None:
        if self.last is not None:
            if is_duplicate(self.last, position):
                return
            if not follows(self.last, position):
                self._note(missing_between(self._channel, self.last, position.before()))
        self.items.append(event)
        self.last = position

    def _note(self, gap: Gap | None) -> None:
        if gap is not None:
            self.items.append(gap)

    def _is_beyond(self, position: Position, top: Position) -> bool:
        """Tell whether an event comes live anyway.

        Events of another epoch than the cut's lie before it only if the cut's epoch is still the newest one.
        """
        cut = self._cut
        if cut is None:
            return False
        if position.epoch == cut.epoch:
            return position.offset > cut.offset
        return top.epoch != cut.epoch
