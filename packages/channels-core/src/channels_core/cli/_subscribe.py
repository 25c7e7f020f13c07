from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence

import click

from channels_core.cli._run import run
from channels_core.events import Event, Gap
from channels_core.plugin import ChannelsPlugin


@click.command
@click.argument("url")
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--history", type=click.IntRange(min=1), metavar="N", help="Start with the N newest events per channel.")
@click.option("--after", metavar="TOKEN", help="Resume where an earlier run stopped.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N events.")
def subscribe(url: str, channels: tuple[str, ...], history: int | None, after: str | None, count: int | None) -> None:
    """Follow the events of channels until Ctrl-C.

    One line per event: channel, position and data, separated by tabs; control characters are escaped, and so are
    bytes that are no UTF-8. A gap is a line too. The last line, on the standard error, is the token for --after.
    """
    # asyncio.run turns Ctrl-C into a cancellation and that into KeyboardInterrupt.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        run(follow(url, channels, history=history, after=after, count=count))


async def follow(
    url: str,
    channels: Sequence[str],
    *,
    history: int | None = None,
    after: str | None = None,
    count: int | None = None,
) -> None:
    """Print what the channels bring, and the cursor's token at the end, however it comes."""
    _cancel_on_terminate()
    async with (
        ChannelsPlugin(url, channels=channels) as plugin,
        plugin.start_subscription(channels, history=history, after=after) as subscriber,
    ):
        click.echo(f"subscribed to {', '.join(map(printable, subscriber.channels))}", err=True)
        try:
            await _print_items(subscriber, count)
        finally:
            click.echo(f"resume with --after {subscriber.cursor}", err=True)


async def _print_items(items: AsyncIterator[Event | Gap], count: int | None) -> None:
    seen = 0
    async for item in items:
        click.echo(line_of(item))
        seen += isinstance(item, Event)
        if seen == count:
            return


def line_of(item: Event | Gap) -> str:
    """Return the line that shows an event or a gap."""
    if isinstance(item, Gap):
        facts = {"after": item.after, "until": item.until, "missed": item.missed}
        known = "".join(f" {name}={printable(str(fact))}" for name, fact in facts.items() if fact is not None)
        return f"{printable(item.channel)}\tgap\t{item.reason}{known}"
    position = "-" if item.position is None else printable(str(item.position))
    return f"{printable(item.channel)}\t{position}\t{printable(item.data.decode(errors='backslashreplace'))}"


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would obey instead of show."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _cancel_on_terminate() -> None:
    task = asyncio.current_task()
    assert task is not None, "only called from a coroutine"
    # Where there are no such signals (Windows), ending the process is all that is left.
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
