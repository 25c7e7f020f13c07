"""The conformance kit on an SQLite file, with history and without."""

import asyncio
import shutil
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from channels_sqlite import SQLiteChannelsBackend
from channels_sqlite.store import Limits, Store, encode
from channels_sqlite.worker import THREAD_NAME

from channels_core.backend import Publication
from channels_core.testing.suite import ChannelsBackendSuite


class TestSQLite(ChannelsBackendSuite):
    """Without history."""

    max_payload = 8 * 1024 * 1024
    idle_seconds = 1.0
    history = 0

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path / "broker"
        self.folder.mkdir()
        self.path = self.folder / "events.db"
        self.made: weakref.WeakSet[SQLiteChannelsBackend] = weakref.WeakSet()
        yield
        shutil.rmtree(tmp_path)

    def make_backend(self) -> SQLiteChannelsBackend:
        backend = SQLiteChannelsBackend.from_url(f"sqlite:///{self.path}?history={self.history}")
        self.made.add(backend)
        return backend

    async def stop_broker(self) -> None:
        """A folder that is gone is a broker that is away; watchers see it with their next look."""
        self.folder.rename(self.folder.with_name("away"))
        while any(backend.is_receiving for backend in self.made):  # noqa: ASYNC110 - other threads decide
            await asyncio.sleep(0.01)

    async def start_broker(self) -> None:
        self.folder.with_name("away").rename(self.folder)

    async def cut_connections(self) -> None:
        await self.stop_broker()
        await self.start_broker()

    async def connection_count(self) -> int:
        """Every connection has a thread of its own."""
        return sum(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


class TestSQLiteWithHistory(TestSQLite):
    """With history."""

    keeps_history = True
    history = 100

    async def lose_memory(self) -> None:
        self.execute("DELETE FROM event", "DELETE FROM lane", "DELETE FROM channel")

    async def trim(self, channel: str, keep: int) -> None:
        newest = "SELECT id, top FROM channel WHERE name = ?"
        connection = sqlite3.connect(self.path)
        identity, top = connection.execute(newest, (encode(channel),)).fetchone()
        connection.execute("DELETE FROM event WHERE channel = ? AND position <= ?", (identity, top - keep))
        connection.commit()
        connection.close()

    async def change_incarnation(self) -> None:
        """Restore a copy that lacks what was published last, to a channel that no rule looks at."""
        copy = self.folder / "copy.db"
        source, target = sqlite3.connect(self.path), sqlite3.connect(copy)
        source.backup(target)
        source.close()
        target.close()
        store = Store(self.path, Limits(self.history, None))
        store.publish([Publication(b"", ("not in the copy",))])
        store.close()
        for name in ("events.db-wal", "events.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
        copy.rename(self.path)

    def execute(self, *statements: str) -> None:
        connection = sqlite3.connect(self.path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
