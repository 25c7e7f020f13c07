"""SQLSTATE → our two errors, once for both drivers."""

from __future__ import annotations

from typing import Final

from channels_core.exceptions import BackendConnectionError, BackendError

__all__ = ("error_of",)

_AWAY: Final = (
    "08",  # connection exception
    "40001",  # serialization failure
    "40P01",  # deadlock
    "53",  # insufficient resources: too many connections, out of memory, disk full
    "54000",  # the notification queue is full, because a listener sits in a transaction
    "55P03",  # lock timeout
    "57014",  # statement timeout, or cancelled by an administrator
    "57P",  # shutting down, starting up, terminated by an administrator or a timeout
    "58",  # I/O error
    "25006",  # read only: a demoted primary; connecting anew finds the new one
    "25P0",  # a transaction took too long, or idled
)
"""Beginnings of the states after which a retry may work; everything else is refused for good.

Source: PostgreSQL 18 manual, appendix A.
"""

_ADVICE: Final = {
    "28": "check user and password of the URL, and pg_hba.conf",
    "3D000": "create the database, or correct the URL",
    "3F000": "create the schema: `channels postgres schema` prints it",
    "42501": "grant the role what it lacks: `channels postgres schema --grant ROLE` prints how",
    "42883": "the schema is incomplete or the server too old (14 is the oldest): `channels postgres schema` prints it",
    "42P01": "the schema is incomplete: `channels postgres schema` prints it",
    "26000": "is there a transaction pooler in between? give it as dsn, and a direct connection as listen_dsn",
    "42P05": "is there a transaction pooler in between? give it as dsn, and a direct connection as listen_dsn",
}
"""Beginnings of states → what to do next."""


def error_of(sqlstate: str | None, message: str) -> BackendConnectionError | BackendError:
    """Return the error that stands for what the server said; ``None`` is a connection that broke."""
    text = " ".join(message.split())
    if sqlstate is None or sqlstate.startswith(_AWAY):
        return BackendConnectionError(text)
    advice = next((words for state, words in _ADVICE.items() if sqlstate.startswith(state)), None)
    return BackendError(f"{text} (SQLSTATE {sqlstate})" + (f"; {advice}" if advice else ""))
