"""The text of the schema, and the command that prints it."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from click.testing import CliRunner

from channels_postgres import _statements as sql
from channels_postgres._schema import SCHEMA_VERSION, grants, in_schema, schema_script
from channels_postgres.cli import postgres


def test_another_prefix_renames_everything() -> None:
    """No statement of another schema mentions ours."""
    for statement in (*sql.ALL, schema_script()):
        assert "channels" not in re.sub(r"channels-postgres|-- .*", "", in_schema(statement, "other"))


def test_unlogged_means_every_table_with_events() -> None:
    """All tables but the one with the version are unlogged."""
    tables = re.findall(r"CREATE (UNLOGGED )?TABLE channels\.(\w+)", schema_script(unlogged=True))
    assert len(tables) == 5
    assert [name for unlogged, name in tables if not unlogged] == ["meta"]


def test_the_version_is_in_the_script() -> None:
    """The script says which version it makes."""
    assert f"VALUES ({SCHEMA_VERSION}, 1, false)" in schema_script()


def test_roles_are_quoted() -> None:
    """A role's name cannot end the statement."""
    assert 'TO "a""; DROP TABLE x; --";' in grants('a"; DROP TABLE x; --')


def test_every_function_is_public_on_purpose() -> None:
    """A new function is nobody's but the owner's, or is meant for every role with USAGE."""
    definitions, _, revoked = schema_script().partition("REVOKE ALL ON FUNCTION")
    names = set(re.findall(r"^CREATE FUNCTION channels\.(\w+)", definitions, re.MULTILINE))
    assert names - set(re.findall(r"channels\.(\w+)", revoked)) == {"publish", "publish_bytes", "top"}


def test_the_command_prints_the_script() -> None:
    """`channels postgres schema` prints one transaction, for psql."""
    result = CliRunner().invoke(postgres, ["schema", "--prefix", "mine", "--grant", "app"])
    assert result.exit_code == 0
    assert result.output.startswith("BEGIN;")
    assert "CREATE SCHEMA mine;" in result.output
    assert 'GRANT USAGE ON SCHEMA mine TO "app";' in result.output
    assert result.output.rstrip().endswith("COMMIT;")


def test_the_command_refuses_a_bad_prefix() -> None:
    """A prefix that is no plain identifier is refused."""
    assert CliRunner().invoke(postgres, ["schema", "--prefix", "a b"]).exit_code == 2


def test_the_command_is_registered() -> None:
    """The group `postgres` is part of the `channels` command."""
    (claim,) = entry_points(group="channels_core.commands", name="postgres")
    assert claim.load() is postgres
