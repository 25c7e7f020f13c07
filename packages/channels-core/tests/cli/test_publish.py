from __future__ import annotations

import asyncio
from collections.abc import Callable

from click.testing import Result

from channels_core.backend import ChannelsBackend
from channels_core.registry import create_backend

Invoke = Callable[..., Result]


def stored(backend: ChannelsBackend, channel: str) -> list[bytes]:
    """Return the payloads of a channel's history."""

    async def read() -> list[bytes]:
        await backend.on_startup()
        history = await backend.get_history(channel)
        await backend.on_shutdown()
        return [event.data for event in history.events]

    return asyncio.run(read())


def test_data_is_published_as_it_stands(invoke: Invoke) -> None:
    """The argument arrives as UTF-8, unchanged."""
    broker = create_backend("memory://cli-publish?history=10")
    result = invoke("publish", "memory://cli-publish", "news", '{"x": "ü"}')
    assert (result.exit_code, result.output) == (0, "published 11 bytes to 'news'\n")
    assert stored(broker, "news") == ['{"x": "ü"}'.encode()]


def test_dash_reads_standard_input(invoke: Invoke) -> None:
    """A dash publishes all bytes of the standard input, whatever they are."""
    broker = create_backend("memory://cli-publish-stdin?history=10")
    result = invoke("publish", "memory://cli-publish-stdin", "news", "-", input=b"\x00\xff\n")
    assert (result.exit_code, result.output) == (0, "published 3 bytes to 'news'\n")
    assert stored(broker, "news") == [b"\x00\xff\n"]


def test_errors_are_one_line(invoke: Invoke) -> None:
    """An error of ours is one line and exit code 1, without a traceback."""
    result = invoke("publish", "pigeon://user:hunter2@roof", "news", "x")
    assert result.exit_code == 1
    assert result.output.startswith("Error: no installed distribution serves pigeon://; ")
    assert result.output.count("\n") == 1
    assert "hunter2" not in result.output
