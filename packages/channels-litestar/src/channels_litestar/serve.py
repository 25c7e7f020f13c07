"""``channels serve``: a complete server from a backend URL."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import click
from litestar import Litestar

from channels_core.advice import advise
from channels_core.backend import ChannelsBackend
from channels_core.exceptions import ChannelsException
from channels_core.registry import create_backend
from channels_core.urls import redact_url
from channels_litestar._access import SAME_ORIGIN
from channels_litestar._drain import call_on_stop_signal
from channels_litestar._listener import is_reachable_from_outside, listening, shown_address
from channels_litestar._server_app import DEFAULT_MAX_BODY, ServerInfo, make_app
from channels_litestar.plugin import ChannelsPlugin

if TYPE_CHECKING:
    import uvicorn

__all__ = ("serve",)

DEFAULT_URL: Final = "memory://?history=100"
"""A broker inside the process, with enough history for a page that joins later."""

MAX_HISTORY: Final = 1_000
"""The most past events that a client may ask for: one page of a history read."""

MAX_BACKLOG: Final = 1_000
"""Events that may wait for one slow client."""

MAX_PENDING: Final = 10_000
"""Events of WebSocket clients that may wait for the broker, all together."""

GRACE: Final = 1
"""Seconds that the server waits for connections, and the plugin for its publish queue, when it is stopped."""


class ServedPlugin(ChannelsPlugin):
    """A plugin that the command starts and stops: a broker that is away is then one line, and no traceback."""

    @asynccontextmanager
    async def lifespan(self, app: Litestar) -> AsyncIterator[None]:
        with call_on_stop_signal(self.drain):
            yield


@click.command
@click.argument("url", default=DEFAULT_URL)
@click.option("--channel", "channels", multiple=True, help="Serve only this channel; may be repeated.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one.")
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Admit browser pages from https://… too; may be repeated. Pages of this server always are.",
)
@click.option(
    "--send-timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds after which a client that does not read is given up.",
)
def serve(url: str, channels: Sequence[str], host: str, port: int, origins: Sequence[str], send_timeout: float) -> None:
    """Serve the channels of the broker at URL: WebSocket, server-sent events, publishing over HTTP, and a page.

    Without URL, a broker inside the process. Nothing is protected: who reaches the address can read and publish.
    """
    allowed_origins = (SAME_ORIGIN, *origins)
    with _explained(None):
        backend = create_backend(url)
    with _explained(backend), listening(host, port, send_timeout) as listener:
        plugin, info = _make_plugin(backend, channels, allowed_origins, send_timeout)
        server = _make_server(make_app(plugin, info, allowed_origins), info.max_bytes)
        asyncio.run(_run(plugin, server, listener, f"{', '.join(channels) or 'any channel'} of {redact_url(url)}"))


@contextmanager
def _explained(backend: ChannelsBackend | None) -> Iterator[None]:
    try:
        yield
    except ChannelsException as exc:
        hint = advise(exc, backend)
        raise click.ClickException(f"{exc}; {hint}" if hint else str(exc)) from exc


def _make_plugin(
    backend: ChannelsBackend, channels: Sequence[str], origins: Sequence[str], send_timeout: float
) -> tuple[ChannelsPlugin, ServerInfo]:
    history = MAX_HISTORY if backend.keeps_history else 0
    plugin = ServedPlugin(
        backend,
        channels=channels,
        arbitrary_channels_allowed=not channels,
        max_backlog=MAX_BACKLOG,
        max_pending=MAX_PENDING,
        backlog_strategy="catchup" if backend.keeps_history else "backoff",
        create_ws_route_handlers=True,
        ws_handler_base_path="/ws",
        ws_handler_publish=True,
        ws_allowed_origins=origins,
        create_sse_route_handlers=True,
        sse_handler_base_path="/sse",
        handler_max_history=history,
        send_timeout=send_timeout,
        shutdown_timeout=GRACE,
    )
    max_bytes = DEFAULT_MAX_BODY if backend.max_payload is None else backend.max_payload
    return plugin, ServerInfo(list(channels) or None, history, max_bytes)


def _make_server(app: Litestar, max_bytes: int) -> uvicorn.Server:
    try:
        import uvicorn
        import websockets  # noqa: F401 - without it uvicorn answers every WebSocket with 404
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"channels serve needs {exc.name}; install it with: pip install 'channels-litestar[serve]'"
        ) from exc
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            ws_max_size=max_bytes * 2,
        )
    )


async def _run(plugin: ChannelsPlugin, server: uvicorn.Server, listener: socket.socket, what: str) -> None:
    async with plugin:
        click.echo(f"serving {what} on {shown_address(listener)}")
        if is_reachable_from_outside(listener):
            click.echo("whoever reaches this address can read and publish; a proxy in front may check", err=True)
        click.echo("Ctrl-C stops")
        with _outlive_signals():
            await server.serve(sockets=[listener])


@contextmanager
def _outlive_signals() -> Iterator[None]:
    """Let the server hand its signal back without ending the process: the publish queue is still to be emptied.

    uvicorn stops gracefully and then raises the signal again, for the handler that was there before it.
    """
    previous = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    """Do nothing; unlike SIG_IGN a handler like any other, which can be called in a chain."""
