"""What the kit cannot see: ages, lingering rows, and receivers that are too late."""

import time
from pathlib import Path

import pytest
from channels_sqlite import SQLiteChannelsBackend
from channels_sqlite.store import LINGER, Limits, Store

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

    assert store.time is time
