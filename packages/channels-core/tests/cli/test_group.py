from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result
from throwaway import Installer

from channels_core.cli._group import COMMANDS

Invoke = Callable[..., Result]

GREETING = """
    import click

    @click.command
    @click.option("--name", default="you")
    def greet(name):
        "Greet somebody."
        click.echo(f"hello {name}")
"""


def test_own_commands_are_listed(invoke: Invoke) -> None:
    """The help names every command of core."""
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.output for name in ("backends", "doctor", "publish", "subscribe"))


def test_version_is_the_distribution_s(invoke: Invoke) -> None:
    """The version is that of channels-core."""
    assert "channels, version 0." in invoke("--version").output


def test_command_of_another_distribution(invoke: Invoke, install: Installer) -> None:
    """A command that another distribution registers is listed and runs."""
    module = install.module(GREETING)
    install.distribution("greeter", {"channels_core.commands": {"greet": f"{module}:greet"}})
    assert "greet" in invoke("--help").output
    assert "Greet somebody." in invoke("--help").output
    assert invoke("greet", "--name", "me").output == "hello me\n"


def test_own_command_wins(invoke: Invoke, install: Installer) -> None:
    """No distribution can replace a command of core."""
    module = install.module(GREETING)
    install.distribution("greeter", {COMMANDS: {"backends": f"{module}:greet"}})
    assert "hello" not in invoke("backends").output


def test_unknown_command(invoke: Invoke) -> None:
    """A command that nobody registers is a usage error."""
    result = invoke("fly")
    assert result.exit_code == 2
    assert "No such command 'fly'" in result.output


@pytest.mark.parametrize(
    "source, problem",
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = 1", "has no attribute 'greet'"),
        ("greet = print", ":greet', which is no click command"),
    ],
)
def test_broken_command_is_listed_as_broken(invoke: Invoke, install: Installer, source: str, problem: str) -> None:
    """A broken command is listed with its distribution, says what is wrong, and leaves the rest alone."""
    module = install.module(source)
    install.distribution("greeter", {COMMANDS: {"greet": f"{module}:greet"}})
    listed = invoke("--help", terminal_width=400)
    assert listed.exit_code == 0
    assert "not available: greeter 1.5" in listed.output
    result = invoke("greet", "--name", "me", "--help")
    assert result.exit_code == 1
    assert "the command 'greet' is not available: greeter 1.5" in result.output
    assert problem in result.output
    assert invoke("backends").exit_code == 0


def test_missing_extra_is_named(invoke: Invoke, install: Installer) -> None:
    """Where a command needs an extra of its distribution, the message says which."""
    module = install.module("import some_server")
    requires = ['some-server>=1; extra == "serve"']
    install.distribution("greeter", {COMMANDS: {"greet": f"{module}:greet"}}, requires=requires)
    assert "pip install 'greeter[serve]'" in invoke("greet").output


def test_two_claims_are_refused(invoke: Invoke, install: Installer) -> None:
    """A command that two distributions register is refused, and both are named."""
    module = install.module(GREETING)
    for name in ("second-owner", "first-owner"):
        install.distribution(name, {COMMANDS: {"greet": f"{module}:greet"}})
    result = invoke("greet")
    assert result.exit_code == 1
    assert "claimed by first-owner 1.5 and second-owner 1.5; uninstall one" in result.output
