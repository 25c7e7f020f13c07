"""The command ``channels conformance URL``: the kit's result for people; needs the extra ``cli``."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from channels_core.backend import ChannelsBackend
from channels_core.exceptions import ChannelsException
from channels_core.registry import create_backend
from channels_core.testing import RULES, Outcome, Rule, Subject, prove
from channels_core.testing.registry import INSTANCES
from channels_core.testing.runner import Status

__all__ = ("UrlSubject", "conformance")

STYLES: Final[dict[Status, str]] = {
    "passed": "green",
    "failed": "bold red",
    "not applicable": "dim",
    "not proved": "yellow",
}

PIPE_WIDTH: Final = 200
"""Columns where the output is no terminal: wide enough for the details of a failure, for grep."""


class UrlSubject(Subject):
    """Any installed backend, by URL; without hooks, because nobody may break a broker that was only named."""

    def __init__(self, url: str) -> None:
        self.url: Final = shared(url)
        sample = self.make_backend()
        self._kept: Final = sample  # a named memory broker is gone with its last backend
        self.keeps_history = sample.keeps_history
        self.max_payload = sample.max_payload

    def make_backend(self) -> ChannelsBackend:
        return create_backend(self.url)


def shared(url: str) -> str:
    """Give a URL whose backends share one broker: ``memory://`` without a name makes one for each instance."""
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=f"conformance-{secrets.token_hex(4)}")).replace("memory:///", "memory://")


@click.command
@click.argument("url")
@click.option("rules", "--rule", multiple=True, metavar="ID", help="Only this rule; may be repeated.")
@click.option("--timeout", default=15.0, show_default=True, help="Seconds that a single call or event may take.")
def conformance(url: str, rules: tuple[str, ...], timeout: float) -> None:
    """Prove that the backend of a URL keeps the contract, rule by rule.

    Channels with fresh names are used, nothing else on the broker is touched. Rules that break the broker on purpose
    cannot run on a mere URL and are "not proved"; the pytest suite of the kit proves them. Exit code 1: a rule failed.
    """
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    subject = _subject(url, timeout)
    chosen = _chosen(rules)
    table, counts = _table(), Counter[Status]()
    with console.status("") as status:
        for rule in chosen:
            status.update(rule.id)
            outcomes = [prove(rule, subject, instances) for instances in INSTANCES]
            counts.update(outcome.status for outcome in outcomes)
            table.add_row(*_cells(rule, outcomes))
    console.print(table)
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if counts["failed"]:
        raise SystemExit(1)


def _subject(url: str, timeout: float) -> UrlSubject:
    try:
        subject = UrlSubject(url)
    except ChannelsException as exc:
        raise click.ClickException(str(exc)) from exc
    subject.call_timeout = timeout
    return subject


def _chosen(names: Sequence[str]) -> list[Rule]:
    unknown = [name for name in names if name not in RULES]
    if unknown:
        raise click.BadParameter(
            f"no such rule: {', '.join(unknown)}; run without --rule to see all", param_hint="--rule"
        )
    return [RULES[name] for name in names] if names else list(RULES.values())


def _table() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("rule", "one instance", "several", "why"):
        table.add_column(title, overflow="fold")
    return table


def _cells(rule: Rule, outcomes: Iterable[Outcome]) -> list[Text]:
    by_instances = {outcome.instances: outcome for outcome in outcomes}
    details = dict.fromkeys(outcome.detail for outcome in by_instances.values() if outcome.detail)
    # Text, not str: a backend's words must not be read as console markup.
    return [
        Text(rule.id),
        *(_verdict(by_instances[instances]) for instances in INSTANCES),
        Text("; ".join(details)),
    ]


def _verdict(outcome: Outcome) -> Text:
    return Text(outcome.status, style=STYLES[outcome.status])
