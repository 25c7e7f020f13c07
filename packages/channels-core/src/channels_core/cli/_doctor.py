from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Final

import click

from channels_core.advice import advise
from channels_core.backend import ChannelsBackend
from channels_core.cli._run import describe
from channels_core.events import Event, Gap, Position
from channels_core.plugin import ChannelsPlugin
from channels_core.registry import create_backend

CHANNEL: Final = "channels-doctor"
"""One name for every examination, so that repeated ones leave one channel's record behind and not many."""

RECEIVE_TIMEOUT: Final = 10.0
"""Seconds from the broker's acceptance to delivery; far above what any healthy broker needs."""

HISTORY_LIMIT: Final = 1_000
"""How far back to look for our own event: others may examine the same broker now."""


class Unwell(Exception):
    """A step of the examination failed and was reported."""


class Examination:
    """Times each step, prints one line for it, and explains the one that fails."""

    def __init__(self) -> None:
        self.backend: ChannelsBackend | None = None
        self.note = ""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step.

        Raises:
            Unwell: It failed; the step's error is the cause.
        """
        self.note, start = "", time.perf_counter()
        try:
            yield
        except Exception as exc:
            self._report(click.style("FAIL", fg="red"), name, start, describe(exc))
            if advice := advise(exc, self.backend):
                click.echo(f"      {advice}")
            raise Unwell from exc
        self._report(click.style("ok  ", fg="green"), name, start, self.note)

    def _report(self, verdict: str, name: str, start: float, note: str) -> None:
        elapsed_ms = (time.perf_counter() - start) * 1000
        click.echo(f"{verdict}  {name:<10} {elapsed_ms:9.1f} ms  {note}".rstrip())


@click.command
@click.argument("url")
def doctor(url: str) -> None:
    """Examine the broker at URL: connect, subscribe, publish, receive, read history.

    Prints how long each step took and what is wrong in words; exit code 1 if anything is.
    """
    try:
        asyncio.run(examine(url))
    except Unwell as exc:
        raise click.exceptions.Exit(1) from exc
    click.echo("all is well")


async def examine(url: str) -> None:
    """Run all steps in order.

    Raises:
        Unwell: One of them failed.
    """
    examination = Examination()
    with examination.step("backend"):
        backend = create_backend(url)
        examination.backend = backend
        examination.note = type(backend).__name__
    plugin = ChannelsPlugin(backend, channels=[CHANNEL])
    with examination.step("connect"):
        await plugin.__aenter__()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(plugin)
        await _round_trip(examination, plugin, backend)
        with examination.step("disconnect"):
            await stack.aclose()


async def _round_trip(examination: Examination, plugin: ChannelsPlugin, backend: ChannelsBackend) -> None:
    # Every byte value, because text-only paths are a common fault.
    payload = uuid.uuid4().bytes + bytes(range(256))
    with examination.step("subscribe"):
        subscriber = await plugin.subscribe([CHANNEL])
    with examination.step("publish"):
        await plugin.wait_published(payload, [CHANNEL])
    with examination.step("receive"):
        async with asyncio.timeout(RECEIVE_TIMEOUT):
            position = await _find(subscriber, payload)
        examination.note = f"position {position}" if position else ""
    with examination.step("history"):
        if backend.keeps_history:
            await _check_history(plugin, Event(CHANNEL, payload, position))
        else:
            examination.note = "this backend keeps none: at most once"


async def _find(items: AsyncIterator[Event | Gap], payload: bytes) -> Position | None:
    async for item in items:
        if isinstance(item, Event) and item.data == payload:
            return item.position
    raise RuntimeError("the stream ended before the event came")


async def _check_history(plugin: ChannelsPlugin, event: Event) -> None:
    if event not in await plugin.get_history(CHANNEL, HISTORY_LIMIT):
        raise RuntimeError(f"the event just received at {event.position} is not in the history")
