"""``channels postgres``: what a database administrator needs."""

from __future__ import annotations

import click

from channels_core.exceptions import ImproperlyConfigured
from channels_postgres._options import Options
from channels_postgres._schema import grants, schema_script

__all__ = ("postgres",)


@click.group()
def postgres() -> None:
    """Look after the PostgreSQL backends."""


@postgres.command()
@click.option("--prefix", default="channels", show_default=True, help="Name of the schema.")
@click.option("--unlogged", is_flag=True, help="Unlogged tables: faster, emptied by a crash of the server.")
@click.option("--grant", "roles", metavar="ROLE", multiple=True, help="Also let this role publish and read.")
def schema(prefix: str, unlogged: bool, roles: tuple[str, ...]) -> None:
    """Print the tables and functions that history needs, to be run once by psql.

    Where the role of the application may create a schema, starting it does the same.
    """
    try:
        Options(history=1, prefix=prefix)
    except ImproperlyConfigured as exc:
        raise click.UsageError(str(exc)) from exc
    click.echo("BEGIN;\n")
    click.echo(schema_script(prefix, unlogged=unlogged))
    for role in roles:
        click.echo(grants(role, prefix))
    click.echo("COMMIT;")
