"""URLs and constructors."""

from __future__ import annotations

import sys

import pytest

from channels_core.exceptions import BackendLoadError, ImproperlyConfigured, InvalidURL
from channels_core.registry import backend_class, create_backend, installed_backends, load_backend
from channels_postgres import AsyncPgChannelsBackend, PsycoPgChannelsBackend
from channels_postgres._backend import PostgresChannelsBackend

SCHEMES = {
    "postgres": AsyncPgChannelsBackend,
    "postgresql": AsyncPgChannelsBackend,
    "postgresql+asyncpg": AsyncPgChannelsBackend,
    "postgresql+psycopg": PsycoPgChannelsBackend,
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_find_their_class(scheme: str) -> None:
    """Each scheme is registered."""
    assert backend_class(f"{scheme}://h/db") is SCHEMES[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_options_come_from_the_url(scheme: str) -> None:
    """Our parameters are read, and the driver's may stand beside them."""
    backend = create_backend(f"{scheme}://u@h/db?history=100&sslmode=disable&max_age=60&max_payload=5")
    assert isinstance(backend, PostgresChannelsBackend)
    assert backend.keeps_history
    assert backend.max_payload == 5


@pytest.mark.parametrize(
    "query, keeps", [("", False), ("?history=0", False), ("?history=1", True), ("?max_age=5", True)]
)
def test_any_limit_asks_for_history(query: str, keeps: bool) -> None:
    """A number of events or an age, either or both."""
    assert create_backend(f"postgresql://h/db{query}").keeps_history is keeps


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("parameter", ["histroy=3", "connect_timeout=3", "keepalives=1", "tcp_user_timeout=1"])
def test_unknown_parameters_are_refused(scheme: str, parameter: str) -> None:
    """The message lists the valid ones, the driver's too; timeouts are ours and no parameter."""
    with pytest.raises(InvalidURL, match=r"valid are .*\bhistory\b.*\bsslmode\b") as caught:
        create_backend(f"{scheme}://u:secret@h/db?{parameter}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "history=-1", "history=x", "max_age=0", "max_payload=0", "unlogged=yes-please", "unlogged=true",
        "prefix=Upper", "prefix=a-b", "prefix=" + 41 * "a", "record_ttl=0",
    ],
)  # fmt: skip
def test_bad_values_are_refused(query: str) -> None:
    """Values out of range, and what contradicts, are told at once."""
    with pytest.raises(InvalidURL):
        create_backend(f"postgresql://h/db?{query}")


def test_constructors_check_too() -> None:
    """A constructor refuses what a URL may not say."""
    with pytest.raises(ImproperlyConfigured):
        PsycoPgChannelsBackend("postgresql://h/db", history=-1)
    with pytest.raises(ImproperlyConfigured):
        PsycoPgChannelsBackend("postgresql://h/db", max_age=0)
    with pytest.raises(ImproperlyConfigured):
        AsyncPgChannelsBackend()
    with pytest.raises(ImproperlyConfigured):
        AsyncPgChannelsBackend("postgresql://h/db", prefix='a"b')


def test_psycopg_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg, its scheme says what to install, and asyncpg's works."""
    for name in [name for name in sys.modules if name.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "channels_postgres.psycopg")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    (entry_point,) = installed_backends()["postgresql+psycopg"]
    with pytest.raises(BackendLoadError, match=r"channels-postgres\[psycopg\]"):
        load_backend("postgresql+psycopg", entry_point)
    assert isinstance(create_backend("postgresql://h/db"), AsyncPgChannelsBackend)
