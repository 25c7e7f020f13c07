"""The broker: tables in one SQLite file, and every step that must be atomic. Synchronous; one thread per store."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from channels_core.backend import History, Key, Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError

__all__ = ("Limits", "Row", "Store")

BUSY_TIMEOUT: Final = 2.0
"""Seconds to wait for another process's transaction; shorter than the plugin's `call_timeout`, which comes again."""

LINGER: Final = 60.0
"""Seconds that an event stays for receivers that have not looked yet, whatever `history` and `max_age` say."""

LANE_TTL: Final = 600.0
"""Seconds that the highest number of a lane is kept: longer than a retry or an abandoned first attempt takes."""

RECORD_TTL: Final = 30 * 24 * 3600.0
"""Seconds that a channel's epoch and offset outlive its events, so that old cursors are still judged rightly."""

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two removals of what has expired."""

FETCH: Final = 1000
"""Rows read at once for live delivery; bounds the memory of a receiver that is far behind."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), incarnation TEXT NOT NULL, file TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS channel (
    id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, incarnation TEXT NOT NULL,
    epoch TEXT NOT NULL, first INTEGER NOT NULL, top INTEGER NOT NULL, used REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL, epoch TEXT NOT NULL, position INTEGER NOT NULL,
    data BLOB NOT NULL, stored REAL NOT NULL, expires REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS event_position ON event (channel, position);
CREATE INDEX IF NOT EXISTS event_expires ON event (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS lane (
    channel INTEGER NOT NULL, lane TEXT NOT NULL, number INTEGER NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (channel, lane)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS removed (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
INSERT OR IGNORE INTO removed VALUES (1, 0);
"""
# AUTOINCREMENT: without it SQLite gives the number of a removed row again, and a receiver would skip the new one.


class Limits(NamedTuple):
    """What stays in history.

    Attributes:
        history: Events per channel, 0 for none.
        max_age: Seconds after which an event is never delivered from history; ``None`` for no limit.
    """

    history: int
    max_age: float | None


class Row(NamedTuple):
    """One event, as live delivery reads it."""

    seq: int
    event: Event


class _Channel(NamedTuple):
    id: int
    incarnation: str
    epoch: str
    first: int
    top: int


class Store:
    """One connection to the file.

    Beside the file lies its mark, ``NAME-mark``: the number of the newest event, written with every publish. A file
    that is behind its mark is an older copy; whoever opens it begins another incarnation.

    Raises:
        BackendConnectionError: The file cannot be opened, or is not what the path names any more.
        BackendError: It is no database of ours.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path: Final = path
        self._mark: Final = path.with_name(f"{path.name}-mark")
        self._limits: Final = limits
        self._swept = 0.0
        self._version: int | None = None
        with errors():
            self._connection: Final = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            with errors():
                self._file: Final = self._identity()
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def publish(self, batch: Sequence[Publication]) -> None:
        """Store all of the batch in one transaction, or nothing."""
        now = time.time()
        with errors(), self._transaction("IMMEDIATE"):
            incarnation = self._incarnation()
            for publication in batch:
                for name in publication.channels:
                    self._append(name, publication, incarnation, now)
            self._sweep(now)
            self._check_in_place()
            # Before the commit: a mark that is ahead costs an epoch, one that is behind hides a restored copy.
            self._mark.write_text(str(self._last_seq()))

    def read(self, name: str, limit: int | None, after: Position | None) -> History:
        """Read history and top from one snapshot."""
        with errors(), self._transaction("DEFERRED"):
            self._check_in_place()
            channel = self._find(name)
            if channel is None:
                return History((), ORIGIN)
            events = self._newest(name, channel, limit) if after is None else self._after(name, channel, limit, after)
            return History(events, Position(channel.epoch, channel.top))

    def tops(self, names: Sequence[str]) -> dict[str, Position]:
        """Read the newest positions of many channels."""
        tops = dict.fromkeys(names, ORIGIN)
        with errors():
            self._check_in_place()
            for start in range(0, len(names), FETCH):
                part = names[start : start + FETCH]
                query = f"SELECT name, epoch, top FROM channel WHERE name IN ({', '.join('?' * len(part))})"
                rows = self._connection.execute(query, [encode(name) for name in part])
                tops.update((decode(name), Position(epoch, top)) for name, epoch, top in rows)
        return tops

    def last_seq(self) -> int:
        """Read the number of the newest event of all channels."""
        with errors():
            self._check_in_place()
            return self._last_seq()

    def rows_after(self, seq: int) -> list[Row]:
        """Read the events behind a number, if the file has changed since the last look; cheap if not.

        Raises:
            BackendConnectionError: Some of them were removed already.
        """
        with errors():
            self._check_in_place()
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return []
            rows = self._fetch(seq)
        if len(rows) < FETCH:
            self._version = version
        return rows

    def _prepare(self) -> None:
        # FULL: what was acknowledged survives a power cut, or the same positions would be given again.
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            self._connection.execute(statement)
        with self._transaction("IMMEDIATE"):
            for statement in SCHEMA.split(";")[:-1]:
                self._connection.execute(statement)
            if not self._is_known():
                new = (1, secrets.token_hex(6), self._file)
                self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", new)
            self._mark.write_text(str(self._last_seq()))

    def _is_known(self) -> bool:
        """Tell whether this is the file that was here before, with all that it had."""
        known = self._connection.execute("SELECT file FROM meta").fetchone()
        mark = self._mark.read_text() if self._mark.exists() else ""
        # The number of a file alone proves nothing: file systems give it again once nobody has the file open.
        return known == (self._file,) and mark.isdigit() and int(mark) <= self._last_seq()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _identity(self) -> str:
        status = os.stat(self._path)
        return f"{status.st_dev:x}-{status.st_ino:x}"

    def _check_in_place(self) -> None:
        """Notice that the file was moved or replaced: this connection would go on with the old one for ever."""
        if self._identity() != self._file:
            raise BackendConnectionError(f"{str(self._path)!r} was replaced by another file")

    def _last_seq(self) -> int:
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        return row[0] if row else 0

    def _incarnation(self) -> str:
        # Read every time: another process may have begun a new one while this one had the file open.
        incarnation: str = self._connection.execute("SELECT incarnation FROM meta").fetchone()[0]
        return incarnation

    def _find(self, name: str) -> _Channel | None:
        query = "SELECT id, incarnation, epoch, first, top FROM channel WHERE name = ?"
        row = self._connection.execute(query, (encode(name),)).fetchone()
        return _Channel(*row) if row else None

    def _append(self, name: str, publication: Publication, incarnation: str, now: float) -> None:
        channel = self._current(name, incarnation, now)
        if publication.key is not None and not self._accepts(channel.id, publication.key, now):
            return
        top = channel.top + 1
        self._connection.execute("UPDATE channel SET top = ?, used = ? WHERE id = ?", (top, now, channel.id))
        self._connection.execute(
            "INSERT INTO event (channel, epoch, position, data, stored, expires) VALUES (?, ?, ?, ?, ?, ?)",
            (channel.id, channel.epoch, top, publication.data, now, self._expiry(now)),
        )
        self._remove(
            "channel = ? AND position <= ? AND stored < ?", channel.id, top - self._limits.history, now - LINGER
        )

    def _current(self, name: str, incarnation: str, now: float) -> _Channel:
        """Give the channel's record; make it, or begin a new epoch when the file is another incarnation."""
        channel = self._find(name)
        if channel is not None and channel.incarnation == incarnation:
            return channel
        top = channel.top if channel is not None else 0
        self._connection.execute(
            "INSERT INTO channel (name, incarnation, epoch, first, top, used) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, epoch = excluded.epoch, "
            "first = excluded.first",
            (encode(name), incarnation, secrets.token_hex(6), top + 1, top, now),
        )
        found = self._find(name)
        assert found is not None, "it was stored in this transaction"
        return found

    def _accepts(self, channel: int, key: Key, now: float) -> bool:
        """Note the lane's number; false for one that is not higher than the last."""
        lane, number = key
        query = "SELECT number FROM lane WHERE channel = ? AND lane = ?"
        known = self._connection.execute(query, (channel, lane)).fetchone()
        if known is not None and number <= known[0]:
            return False
        self._connection.execute("INSERT OR REPLACE INTO lane VALUES (?, ?, ?, ?)", (channel, lane, number, now))
        return True

    def _expiry(self, now: float) -> float | None:
        if not self._limits.history:
            return now + LINGER
        return None if self._limits.max_age is None else now + max(self._limits.max_age, LINGER)

    def _sweep(self, now: float) -> None:
        if now - self._swept < SWEEP_INTERVAL:
            return
        self._swept = now
        self._remove("expires < ?", now)
        self._connection.execute("DELETE FROM lane WHERE used < ?", (now - LANE_TTL,))
        self._connection.execute(
            "DELETE FROM channel WHERE used < ? AND NOT EXISTS (SELECT 1 FROM event WHERE channel = channel.id)",
            (now - RECORD_TTL,),
        )

    def _remove(self, condition: str, *values: object) -> None:
        """Remove events, and note up to which number, for receivers that have not come that far."""
        removed = self._connection.execute(f"DELETE FROM event WHERE {condition} RETURNING seq", values).fetchall()
        if removed:
            self._connection.execute("UPDATE removed SET seq = max(seq, ?)", (max(removed)[0],))

    def _fetch(self, seq: int) -> list[Row]:
        with self._transaction("DEFERRED"):
            removed = self._connection.execute("SELECT seq FROM removed").fetchone()[0]
            if removed > seq:
                raise BackendConnectionError(f"this receiver is more than {LINGER} s behind; events were removed")
            rows = self._connection.execute(
                "SELECT seq, name, data, event.epoch, position FROM event JOIN channel ON channel.id = event.channel "
                "WHERE seq > ? ORDER BY seq LIMIT ?",
                (seq, FETCH),
            ).fetchall()
        return [Row(seq, self._event(decode(name), data, epoch, position)) for seq, name, data, epoch, position in rows]

    def _event(self, name: str, data: bytes, epoch: str, position: int) -> Event:
        return Event(name, data, Position(epoch, position) if self._limits.history else None)

    def _newest(self, name: str, channel: _Channel, limit: int | None) -> list[Event]:
        return self._page(name, channel, limit, start=0, order="DESC")[::-1]

    def _after(self, name: str, channel: _Channel, limit: int | None, after: Position) -> list[Event]:
        return self._page(name, channel, limit, start=self._start(channel, after), order="ASC")

    def _start(self, channel: _Channel, after: Position) -> int:
        """Find the offset behind which everything follows ``after``: offsets go on from epoch to epoch."""
        if after.epoch == channel.epoch:
            return max(after.offset, channel.first - 1)
        query = "SELECT min(position), max(position) FROM event WHERE channel = ? AND epoch = ?"
        first, last = self._connection.execute(query, (channel.id, after.epoch)).fetchone()
        return 0 if first is None else min(max(after.offset, first - 1), last)

    def _page(self, name: str, channel: _Channel, limit: int | None, *, start: int, order: str) -> list[Event]:
        max_age = self._limits.max_age
        oldest = 0.0 if max_age is None else time.time() - max_age
        rows = self._connection.execute(
            "SELECT data, epoch, position FROM event WHERE channel = ? AND position > ? AND stored >= ? "
            f"ORDER BY position {order} LIMIT ?",
            (channel.id, max(start, channel.top - self._limits.history), oldest, -1 if limit is None else limit),
        )
        return [self._event(name, data, epoch, position) for data, epoch, position in rows]


def encode(name: str) -> bytes:
    """Give a channel's name as it is stored: every string has one, lone surrogates included."""
    return name.encode("utf-8", "surrogatepass")


def decode(name: bytes) -> str:
    """Give back what was encoded."""
    return name.decode("utf-8", "surrogatepass")


@contextmanager
def errors() -> Iterator[None]:
    """Map the driver's errors: what another attempt may mend, and what it will not."""
    try:
        yield
    except BackendConnectionError:
        raise
    except (sqlite3.OperationalError, OSError) as exc:
        raise BackendConnectionError(f"the database file cannot be used now: {exc}") from exc
    except sqlite3.Error as exc:
        raise BackendError(f"the database refused: {exc}") from exc
