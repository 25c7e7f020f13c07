"""Reading what became visible: the difference of two snapshots, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from channels_postgres import _statements as sql
from channels_postgres._driver import Link, Row
from channels_postgres._filter import ChannelFilter
from channels_postgres._listener import Listener

__all__ = ("ChangeReader", "Snapshot")

PAGE_EVENTS: Final = 4_000
PAGE_BYTES: Final = 8 * 1024 * 1024
"""What one read brings at the most, give or take a row; a process that comes late must not get it all at once."""


class Snapshot(msgspec.Struct, frozen=True):
    """Which transactions had ended at one moment.

    Source: PostgreSQL 18 manual, "Transaction ID and Snapshot Information Functions".
    """

    xmin: int
    xmax: int
    active: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read what the server writes: ``xmin:xmax:active,…``."""
        xmin, xmax, active = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, active.split(",")))))

    def shows(self, xid: int) -> bool:
        """Whether this transaction had ended."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.active)


_EVERYTHING: Final = Snapshot(2**64, 2**64, frozenset())
"""Shows every transaction that there will be."""


class ChangeReader:
    """Reads rows once each, those whose transaction had not ended at the previous pass and has at this one.

    That loses no late commit, and an open transaction holds up nothing but its own rows. A pass that finds more than
    a page goes on with the same two snapshots.

    Args:
        listener: Its connection is read on; one read at a time.
        statement: `_statements.CHANGES` for the schema.
        max_age: Seconds, or `_statements.NO_LIMIT`.
    """

    def __init__(self, listener: Listener, statement: str, max_age: float) -> None:
        self._listener: Final = listener
        self._statement: Final = statement
        self._max_age: Final = max_age
        self._filter: Final = ChannelFilter()
        self._joined: dict[bytes, Snapshot] = {}
        self._settling: dict[bytes, Snapshot] = {}
        self._since = ""
        self._upto = ""
        self._seq = 0

    @property
    def in_a_pass(self) -> bool:
        """Whether the last read did not bring everything."""
        return bool(self._upto)

    async def start(self) -> None:
        """Take the snapshot that everything is compared with; what was committed before is never read."""
        await self._listener.call(lambda link: link.run(sql.SESSION))
        self._since = await self._take_snapshot()

    async def join(self, names: Sequence[bytes]) -> None:
        """Read these channels, too: all that commits after the return, nothing that had committed before the call."""
        self._filter.add(names)
        # A read that is sent from now on brings them already, and a bit of the filter may stand for them since long.
        self._joined.update(dict.fromkeys(names, _EVERYTHING))
        try:
            # This waits for a read that was sent without these channels, which may see what is published from now on
            # and leave it out. No await after it: the next read must find the names in _joined.
            snapshot = Snapshot.parse(await self._take_snapshot())
        except BaseException:
            for name in names:
                self._joined.pop(name, None)
            raise
        self._joined.update(dict.fromkeys(names, snapshot))

    def leave(self, names: Iterable[bytes]) -> None:
        """Stop reading these channels."""
        names = list(names)
        self._filter.remove(names)
        for name in names:
            self._joined.pop(name, None)
            self._settling.pop(name, None)

    async def read(self) -> Iterator[Row]:
        """Read a page: rows of ``_, seq, channel, epoch, first offset, payloads, size, xid``, in order per channel."""
        head, *rows = await self._listener.call(self._read_page)
        if sum(len(row[5]) for row in rows) >= PAGE_EVENTS or sum(row[6] for row in rows) >= PAGE_BYTES:
            self._upto, self._seq = head[0], rows[-1][1]
            return filter(self._is_new, rows)
        self._since, self._upto, self._seq = head[0], "", 0
        settled, self._settling = self._settling, {}
        return (row for row in rows if self._is_new(row, settled))

    async def _read_page(self, link: Link) -> Sequence[Row]:
        if not self.in_a_pass:  # its snapshot will show all that theirs show: they are no newcomers to the next
            self._settling, self._joined = self._joined, {}
        return await link.fetch(
            self._statement,
            self._since,
            self._upto,
            self._seq,
            self._filter.bits,
            self._filter.mask,
            self._max_age,
            PAGE_EVENTS,
            PAGE_BYTES,
        )

    def _is_new(self, row: Row, settling: dict[bytes, Snapshot] | None = None) -> bool:
        """Whether the row was committed after its channel was joined."""
        name = row[2]
        joined = self._joined.get(name) or (self._settling if settling is None else settling).get(name)
        return joined is None or not joined.shows(row[7])

    async def _take_snapshot(self) -> str:
        ((snapshot,),) = await self._listener.call(lambda link: link.fetch(sql.SNAPSHOT))
        return str(snapshot)
