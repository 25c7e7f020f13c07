"""A command group that other distributions extend; a broken command is shown and does not break the rest."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any, Final

import click

from channels_core._discovery import find_entry_points, load_problem, owner

COMMANDS: Final = "channels_core.commands"
"""The entry-point group."""


class ChannelsGroup(click.Group):
    """Its own commands, and those that installed distributions register; an own command wins over a namesake."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *find_entry_points(COMMANDS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        claims = find_entry_points(COMMANDS).get(cmd_name, [])
        return _load(cmd_name, claims) if claims else None


class BrokenCommand(click.Command):
    """Stands where a command should be, takes any arguments and says why it is not there."""

    def __init__(self, name: str, problem: str) -> None:
        any_arguments = {"allow_extra_args": True, "ignore_unknown_options": True}
        super().__init__(
            name, short_help=f"not available: {problem}", context_settings=any_arguments, add_help_option=False
        )
        self._problem = problem

    def invoke(self, ctx: click.Context) -> Any:
        raise click.ClickException(f"the command {self.name!r} is not available: {self._problem}")


def _load(name: str, claims: list[EntryPoint]) -> click.Command:
    if len(claims) > 1:
        return BrokenCommand(name, f"claimed by {' and '.join(map(owner, claims))}; uninstall one")
    claim = claims[0]
    try:
        command: object = claim.load()
    except Exception as exc:
        return BrokenCommand(name, f"{owner(claim)} cannot be loaded: {load_problem(claim, exc)}")
    if not isinstance(command, click.Command):
        return BrokenCommand(name, f"{owner(claim)} registers {claim.value!r}, which is no click command")
    return command
