"""PostgreSQL backends for channels."""

from typing import TYPE_CHECKING, Any

from channels_postgres.asyncpg import AsyncPgChannelsBackend

if TYPE_CHECKING:
    from channels_postgres.psycopg import PsycoPgChannelsBackend

__all__ = ("AsyncPgChannelsBackend", "PsycoPgChannelsBackend")


def __getattr__(name: str) -> Any:
    # psycopg is an extra: whoever does not name its backend needs no psycopg.
    if name == "PsycoPgChannelsBackend":
        from channels_postgres.psycopg import PsycoPgChannelsBackend

        return PsycoPgChannelsBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
