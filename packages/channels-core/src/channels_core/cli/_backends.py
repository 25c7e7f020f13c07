from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from channels_core._discovery import owner
from channels_core.advice import promise_of
from channels_core.exceptions import BackendLoadError
from channels_core.registry import installed_backends, load_backend

PIPE_WIDTH: Final = 240
"""Columns where the output is no terminal: wide enough that no cell is broken over lines, for grep."""


class Row(msgspec.Struct, frozen=True):
    """One line of the table: what one entry point gives."""

    scheme: str
    distribution: str
    backend: str
    promise: str
    broken: bool = False


@click.command
def backends() -> None:
    """List the installed backends: URL scheme, distribution, class, and what each promises."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(_table(list(read_rows())))


def read_rows() -> Iterator[Row]:
    """Give one row for each registered scheme; a broken or doubly claimed one says so in place of its promise."""
    for scheme, claims in installed_backends().items():
        for claim in claims:
            rivals = [owner(other) for other in claims if other is not claim]
            yield _claimed_twice(scheme, claim, rivals) if rivals else _row(scheme, claim)


def _row(scheme: str, claim: EntryPoint) -> Row:
    try:
        backend = load_backend(scheme, claim)
    except BackendLoadError as exc:
        return Row(scheme, owner(claim), claim.value, f"broken: {exc}", broken=True)
    return Row(scheme, owner(claim), backend.__name__, promise_of(backend))


def _claimed_twice(scheme: str, claim: EntryPoint, rivals: list[str]) -> Row:
    return Row(scheme, owner(claim), claim.value, f"ambiguous: also claimed by {', '.join(rivals)}", broken=True)


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("URL", "distribution", "class", "promises"):
        table.add_column(title, overflow="fold")
    for row in rows:
        style = "red" if row.broken else ""
        cells = (f"{row.scheme}://", row.distribution, row.backend, row.promise)
        # Text, not str: a third party's words must not be read as console markup.
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table
