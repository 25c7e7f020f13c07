"""What the kit cannot see: restored copies, ages, lingering rows, and receivers that are too late."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from channels_sqlite import SQLiteChannelsBackend
from channels_sqlite.store import LINGER, Limits, Store

from channels_core import ChannelsPlugin, Event
from channels_core.backend import Publication
from channels_core.exceptions import BackendConnectionError, BackendError, InvalidURL
from channels_core.registry import create_backend


class Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("channels_sqlite.store.time", clock)
    return clock


def publish(store: Store, *payloads: bytes) -> None:
    store.publish([Publication(data, ("c",)) for data in payloads])


def stored(store: Store) -> list[bytes]:
    return [event.data for event in store.read("c", None, None).events]


def opened(path: Path) -> Store:
    return Store(path, Limits(100, None))


def epochs(store: Store) -> list[str]:
    return [event.position.epoch for event in store.read("c", None, None).events if event.position]


def published(path: Path, *payloads: bytes) -> str:
    """Publish with a store of its own; give the epoch of the last event."""
    store = opened(path)
    publish(store, *payloads)
    store.close()
    return epoch_in(path)


def epoch_in(path: Path) -> str:
    store = opened(path)
    epoch = epochs(store)[-1]
    store.close()
    return epoch


def copied_over(copy: Path, path: Path) -> None:
    """Give the restored file the number of the one that was there, as file systems do now and then."""
    shutil.copyfile(copy, path)


def moved_over(copy: Path, path: Path) -> None:
    copy.rename(path)


@pytest.mark.parametrize("restore", [copied_over, moved_over])
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_an_older_copy_begins_a_new_epoch(tmp_path: Path, restore: Callable[[Path, Path], None], is_open: bool) -> None:
    """Positions behind the copy were given to other events; it makes no difference who had the file open meanwhile."""
    path, copy = tmp_path / "db", tmp_path / "copy"
    store = opened(path)
    publish(store, b"1", b"2", b"3")
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if not is_open:
        store.close()
    shutil.copyfile(path, copy)
    if not is_open:
        store = opened(path)
    publish(store, b"4", b"5")
    old = epochs(store)[-1]
    store.close()
    restore(copy, path)
    assert published(path, b"other") != old
    store = opened(path)
    assert stored(store) == [b"1", b"2", b"3", b"other"]
    store.close()


def test_opening_again_goes_on_in_the_same_epoch(tmp_path: Path) -> None:
    """Nothing was lost, also when another process has the file open meanwhile."""
    path = tmp_path / "db"
    other = opened(path)
    first = published(path, b"1")
    publish(other, b"2")
    assert published(path, b"3") == first
    other.close()
    assert published(path, b"4") == first


def test_a_file_without_its_mark_begins_a_new_epoch(tmp_path: Path) -> None:
    """Nobody knows how far it was; who has the file open goes over to the new epoch as well, and not back."""
    path = tmp_path / "db"
    other = opened(path)
    first = published(path, b"1")
    (tmp_path / "db-mark").unlink()
    second = published(path, b"2")
    publish(other, b"3")
    assert second != first
    assert epochs(other) == [first, second, second]
    other.close()


def test_a_name_that_is_no_unicode_harms_nobody(tmp_path: Path) -> None:
    """A lone surrogate is a name like any other, in every verb, and its neighbours go on."""

    async def main() -> None:
        names = ["good", "a\udc80"]
        backend = SQLiteChannelsBackend(tmp_path / "db", history=10)
        async with ChannelsPlugin(backend, channels=names) as channels, channels.subscribe(names) as subscriber:
            for name in names:
                await channels.wait_published(b"1", name)
            items = [await asyncio.wait_for(anext(subscriber), 15) for _ in names]
            assert [item.channel for item in items if isinstance(item, Event)] == names
            assert [await channels.get_history(item.channel) for item in items] == [[item] for item in items]
            assert channels.health().ok
            assert channels.stats().reconnects == 0

    asyncio.run(main())


def test_a_stream_that_was_left_unread_ends_with_the_backend(tmp_path: Path) -> None:
    """Whoever reads on after on_shutdown is told that the connection is gone."""

    async def main() -> None:
        backend = SQLiteChannelsBackend(tmp_path / "db")
        await backend.on_startup()
        events = aiter(backend.stream_events())
        await backend.subscribe(["c"])
        await backend.publish_batch([Publication(b"1", ("c",)), Publication(b"2", ("c",))])
        assert (await anext(events)).data == b"1"
        await backend.on_shutdown()
        with pytest.raises(BackendConnectionError):
            assert [event.data async for event in events] == [b"2"]

    asyncio.run(main())


def test_history_has_at_most_so_many_events(tmp_path: Path) -> None:
    """Rows that linger for late receivers are not history."""
    store = Store(tmp_path / "db", Limits(2, None))
    publish(store, b"1", b"2", b"3")
    assert stored(store) == [b"2", b"3"]
    assert len(store.rows_after(0)) == 3
    store.close()


def test_an_old_event_is_never_in_history(tmp_path: Path, clock: Clock) -> None:
    """Age counts per event, on a busy channel too."""
    store = Store(tmp_path / "db", Limits(10, 5.0))
    publish(store, b"old")
    clock.now += 4
    publish(store, b"young")
    assert stored(store) == [b"old", b"young"]
    clock.now += 2
    assert stored(store) == [b"young"]
    store.close()


def test_a_receiver_that_is_too_late_is_told(tmp_path: Path, clock: Clock) -> None:
    """Rows are removed after a while; who has not read them does not go on as if nothing were missing."""
    store, late = Store(tmp_path / "db", Limits(0, None)), Store(tmp_path / "db", Limits(0, None))
    publish(store, b"missed")
    clock.now += LINGER + 1
    publish(store, b"next")
    with pytest.raises(BackendConnectionError, match="behind"):
        late.rows_after(0)
    store.close()
    late.close()


def test_idle_channels_leave_nothing_behind(tmp_path: Path, clock: Clock) -> None:
    """Expired events, lanes and channels are removed by whoever publishes next."""
    store = Store(tmp_path / "db", Limits(10, 5.0))
    store.publish([Publication(b"x", ("idle",), ("lane", 1))])
    clock.now += 31 * 24 * 3600
    publish(store, b"y")
    tables = {name: store._connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES}
    assert tables == {"event": 1, "lane": 0, "channel": 1}
    store.close()


TABLES = ("event", "lane", "channel")


def test_another_file_is_refused(tmp_path: Path) -> None:
    """What is no database is refused for good, what cannot be opened now is tried again."""
    (tmp_path / "text").write_text("no database, but long enough to be taken for one " * 100)
    with pytest.raises(BackendError):
        Store(tmp_path / "text", Limits(0, None))
    with pytest.raises(BackendConnectionError):
        Store(tmp_path / "missing" / "db", Limits(0, None))


def test_the_url_finds_the_backend(tmp_path: Path) -> None:
    """The entry point gives the scheme, and options are read from the URL."""
    backend = create_backend(f"sqlite:///{tmp_path / 'db'}?history=7&max_age=60&poll=0.5")
    assert isinstance(backend, SQLiteChannelsBackend)
    assert backend.keeps_history


@pytest.mark.parametrize("url", ["sqlite://", "sqlite://host/db", "sqlite:///db?hystory=1", "sqlite:///db?history=-1"])
def test_a_bad_url_is_refused(url: str) -> None:
    """A missing path, a host, an unknown parameter and a wrong value are all said at once."""
    with pytest.raises(InvalidURL):
        SQLiteChannelsBackend.from_url(url)


def test_time_is_the_real_one() -> None:
    """The clock of the other tests is gone: ages are compared between processes, so they are wall-clock times."""
    from channels_sqlite import store

    assert vars(store)["time"] is time
