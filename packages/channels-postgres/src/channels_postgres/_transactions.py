"""Running our statements on somebody else's connection, so that they are part of its transaction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from channels_core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from channels_postgres._driver import Argument

__all__ = ("fetch_value_in",)

_PARAMETER: Final = re.compile(r"\$(\d+)::(\w+(?:\[\])?)")

_CONNECTIONS: Final = {
    "asyncpg": ("Connection", "PoolConnectionProxy"),
    "psycopg": ("AsyncConnection",),
    "sqlalchemy": ("AsyncSession", "AsyncConnection"),
}
"""Not what makes connections, such as a pool or an engine: each call would have a transaction of its own."""


async def fetch_value_in(connection: Any, statement: str, *arguments: Argument) -> Any:
    """Return the first column of the first row, or ``None`` without a row. Errors are the library's own.

    Args:
        connection: Of asyncpg (one lent by a pool, too), psycopg's ``AsyncConnection``, or SQLAlchemy's
            ``AsyncSession`` or ``AsyncConnection``.
        statement: One of ours: its parameters are in order, each stands there once, with a cast.
        arguments: Its arguments.

    Raises:
        ImproperlyConfigured: The connection is none of these.
    """
    match _library_of(connection):
        case "asyncpg":
            return await connection.fetchval(statement, *arguments)
        case "psycopg":
            return await _fetch_in_psycopg(connection, statement, arguments)
        case "sqlalchemy":
            return await _fetch_in_sqlalchemy(connection, statement, arguments)
    raise ImproperlyConfigured(
        f"cannot work in a {type(connection).__module__}.{type(connection).__qualname__}; expected a connection of "
        "asyncpg, an AsyncConnection of psycopg, or an AsyncSession or AsyncConnection of SQLAlchemy"
    )


async def _fetch_in_psycopg(connection: Any, statement: str, arguments: tuple[Argument, ...]) -> Any:
    from psycopg import AsyncCursor
    from psycopg.rows import tuple_row

    # Not connection.execute: the application chooses what its cursors and their rows are like.
    async with AsyncCursor(connection, row_factory=tuple_row) as cursor:
        await cursor.execute(_PARAMETER.sub(r"%s::\2", statement).encode(), arguments)
        row = await cursor.fetchone()
        return row[0] if row else None


async def _fetch_in_sqlalchemy(connection: Any, statement: str, arguments: tuple[Argument, ...]) -> Any:
    # Through SQLAlchemy and not on the driver's connection below: only this begins SQLAlchemy's transaction.
    from sqlalchemy import text

    named = text(_PARAMETER.sub(r"CAST(:a\1 AS \2)", statement))
    result = await connection.execute(named, {f"a{number}": each for number, each in enumerate(arguments, 1)})
    return result.scalar()


def _library_of(connection: object) -> str | None:
    """Return the library by name: neither of them is imported, because each may not be installed."""
    for each in type(connection).__mro__:
        library = each.__module__.partition(".")[0]
        if each.__name__ in _CONNECTIONS.get(library, ()):
            return library
    return None
