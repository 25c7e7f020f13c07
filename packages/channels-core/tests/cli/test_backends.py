from __future__ import annotations

from collections.abc import Callable

from click.testing import Result
from throwaway import COMPLETE_BACKEND, Installer

from channels_core.registry import BACKENDS

Invoke = Callable[..., Result]


def line_with(result: Result, start: str) -> str:
    """Return the one line of the table that starts so."""
    lines = [line for line in result.output.splitlines() if line.startswith(start)]
    assert len(lines) == 1, result.output
    return lines[0]


def test_memory_is_listed(invoke: Invoke) -> None:
    """Our own backend stands in the table with its scheme, distribution and class."""
    result = invoke("backends")
    assert result.exit_code == 0
    assert "channels-core 0." in line_with(result, "memory://")
    assert "MemoryChannelsBackend" in line_with(result, "memory://")


def test_promise_comes_from_the_class(invoke: Invoke, install: Installer) -> None:
    """The table shows what a class says, and what it declares where it says nothing."""
    source = (
        COMPLETE_BACKEND
        + """
    class Keeping(Backend):
        keeps_history = True

    class Talking(Backend):
        promise = "[red]twice[/red]"
"""
    )
    module = install.module(source)
    schemes = {"xa": "Backend", "xb": "Keeping", "xc.d": "Talking"}
    install.distribution("third", {BACKENDS: {scheme: f"{module}:{name}" for scheme, name in schemes.items()}})
    result = invoke("backends")
    assert line_with(result, "xa://").split(maxsplit=4)[-1].strip() == "at most once, keeps no history"
    assert "keeps history" in line_with(result, "xb://")
    assert line_with(result, "xc+d://").split() == ["xc+d://", "third", "1.5", "Talking", "[red]twice[/red]"]


def test_table_has_a_header(invoke: Invoke) -> None:
    """The first line names the columns."""
    assert invoke("backends").output.splitlines()[0].split() == ["URL", "distribution", "class", "promises"]


def test_broken_lines_are_red(invoke: Invoke, install: Installer) -> None:
    """On a terminal with colours a broken line stands out, and only that one."""
    install.distribution("third", {BACKENDS: {"xbroken": "no_such_module_at_all:Backend"}})
    lines = invoke("backends", env={"FORCE_COLOR": "1", "TERM": "xterm"}, color=True).output.splitlines()
    assert any(line.startswith("\x1b[31mxbroken://") for line in lines)
    assert any(line.startswith("memory://") for line in lines)


def test_broken_backend_is_shown_as_broken(invoke: Invoke, install: Installer) -> None:
    """A broken distribution has its line, says what is wrong, and leaves the other lines alone."""
    install.distribution("third", {BACKENDS: {"xbroken": "no_such_module_at_all:Backend"}})
    result = invoke("backends")
    assert result.exit_code == 0
    assert "third 1.5" in line_with(result, "xbroken://")
    assert "broken: " in line_with(result, "xbroken://")
    assert "No module named 'no_such_module_at_all'" in result.output
    assert "MemoryChannelsBackend" in line_with(result, "memory://")


def test_scheme_claimed_twice_is_shown_twice(invoke: Invoke, install: Installer) -> None:
    """Both owners of one scheme are shown, each with its rival."""
    for name in ("first-owner", "second-owner"):
        install.distribution(name, {BACKENDS: {"xtwice": "anything:Backend"}})
    lines = [line for line in invoke("backends").output.splitlines() if line.startswith("xtwice://")]
    assert "first-owner 1.5" in lines[0]
    assert "ambiguous: also claimed by second-owner 1.5" in lines[0]
    assert "ambiguous: also claimed by first-owner 1.5" in lines[1]


def test_terminal_width_is_kept(invoke: Invoke, install: Installer) -> None:
    """On a terminal the table fits into it; in a pipe no line is broken."""
    install.distribution("third", {BACKENDS: {"xbroken": "no_such_module_at_all:Backend"}})
    on_terminal = invoke("backends", env={"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"})
    assert max(map(len, on_terminal.output.splitlines())) == 80
    assert "no_such_module_at_all" in line_with(invoke("backends"), "xbroken://")
