"""The schema: its text, and creating or checking it at start-up."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final
from zlib import crc32

from channels_core.exceptions import BackendError
from channels_postgres._driver import Link
from channels_postgres._options import Options

__all__ = ("SCHEMA_VERSION", "grants", "in_schema", "prepare_schema", "schema_script")

SCHEMA_VERSION: Final = 1
"""Version of the definitions in schema.sql."""

_OUR_NAME: Final = re.compile(r"\bchannels(?=\b|_wake\b)")
_TABLE: Final = re.compile(r"^CREATE (TABLE|SEQUENCE) (?!channels\.meta)", re.MULTILINE)

_CALLED: Final = ("publish(text, bytea)", "publish(text, text)", "publish_bytes", "publish_batch", "top", "trim")
"""Functions that an application calls, directly or by our statements."""

_LOCK_CLASS: Final = crc32(b"channels-postgres schema") >> 1


def in_schema(statement: str, prefix: str) -> str:
    """Return a statement about the schema ``channels`` for a schema of another name."""
    return statement if prefix == "channels" else _OUR_NAME.sub(prefix, statement)


@cache
def schema_script(prefix: str = "channels", *, unlogged: bool = False) -> str:
    """Return the statements that create the schema."""
    script = files("channels_postgres").joinpath("schema.sql").read_text(encoding="utf-8")
    if unlogged:
        script = _TABLE.sub(r"CREATE UNLOGGED \1 ", script).replace("CREATE UNLOGGED SEQUENCE", "CREATE SEQUENCE")
        script = script.replace("VALUES (1, 1, false)", "VALUES (1, 1, true)")
    return in_schema(script, prefix)


def grants(role: str, prefix: str = "channels") -> str:
    """Return the statements that let a role publish and read; the functions have the rights of their owner.

    Those that everybody may call are among them: default privileges may have taken them from everybody.
    """
    quoted = '"' + role.replace('"', '""') + '"'
    functions = ", ".join(f"{prefix}.{function}" for function in _CALLED)
    return (
        f"GRANT USAGE ON SCHEMA {prefix} TO {quoted};\n"
        f"GRANT SELECT ON {prefix}.meta, {prefix}.records, {prefix}.events TO {quoted};\n"
        f"GRANT EXECUTE ON FUNCTION {functions} TO {quoted};\n"
    )


async def prepare_schema(link: Link, options: Options) -> None:
    """Create the schema unless it exists, and check that it is one that this version can work with.

    Raises:
        BackendConnectionError: The server is away, or is a standby.
        BackendError: It exists in a form that does not fit, or the role may not create it.
    """
    if not await _exists(link, options.prefix):
        await link.run(_guarded(schema_script(options.prefix, unlogged=options.unlogged), options.prefix))
    statement = in_schema("SELECT version, oldest_client, unlogged FROM channels.meta", options.prefix)
    ((version, oldest_client, unlogged),) = await link.fetch(statement)
    if version < SCHEMA_VERSION or oldest_client > SCHEMA_VERSION:
        raise BackendError(
            f"schema {options.prefix!r} has version {version}, for clients from version {oldest_client} on; "
            f"this channels-postgres has version {SCHEMA_VERSION}: upgrade "
            + ("the schema, as the changelog says" if version < SCHEMA_VERSION else "channels-postgres")
        )
    if unlogged != options.unlogged:
        raise BackendError(
            f"the tables of schema {options.prefix!r} are {'unlogged' if unlogged else 'logged'}; "
            f"set unlogged={str(unlogged).lower()}, or drop the schema and its history"
        )


async def _exists(link: Link, prefix: str) -> bool:
    ((exists,),) = await link.fetch("SELECT to_regclass($1::text) IS NOT NULL", f"{prefix}.meta")
    return bool(exists)


def _guarded(script: str, prefix: str) -> str:
    """Let several processes run the script at once: one creates, the others find it created.

    One simple query is one transaction, and it is the only kind of transaction that takes a whole script.
    """
    quoted = script.replace("'", "''")
    return (
        f"SELECT pg_advisory_xact_lock({_LOCK_CLASS}, {crc32(prefix.encode()) >> 1});"
        "DO LANGUAGE plpgsql $guard$ BEGIN"
        f" IF to_regclass('{prefix}.meta') IS NULL THEN EXECUTE '{quoted}'; END IF;"
        " END $guard$"
    )
