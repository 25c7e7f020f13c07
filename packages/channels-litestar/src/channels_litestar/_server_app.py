"""The application that ``channels serve`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, get, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response
from litestar.types import Scope

from channels_core.exceptions import BackendError, MessageTooLarge, PublishError, UnknownChannel
from channels_litestar._access import check_origin
from channels_litestar._metrics import MEDIA_TYPE, write_metrics
from channels_litestar._paths import PARAMETER, read_channel
from channels_litestar._stream import logger
from channels_litestar.plugin import ChannelsPlugin

__all__ = ("DEFAULT_MAX_BODY", "ServerInfo", "make_app")

DEFAULT_MAX_BODY: Final = 1024 * 1024
"""Bytes of a published event where the backend sets no limit: enough for any notification."""

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


class ServerInfo(msgspec.Struct, frozen=True):
    """What the page needs to know.

    Attributes:
        channels: The only channels there are, ``None`` for any.
        history: The most past events that a client may ask for.
        max_bytes: The longest event.
    """

    channels: Sequence[str] | None
    history: int
    max_bytes: int


class RequestTooLarge(HTTPException):
    """More bytes than the broker takes."""

    status_code = 413


class BrokerAway(HTTPException):
    """The broker did not accept the event in time; trying again may help."""

    status_code = 503


class BrokerRefused(HTTPException):
    """The broker refused the event for good."""

    status_code = 502


def make_app(plugin: ChannelsPlugin, info: ServerInfo, allowed_origins: Sequence[str]) -> Litestar:
    """Return the application.

    Args:
        plugin: Makes the handlers for WebSocket and SSE.
        info: Its limits.
        allowed_origins: Pages that may publish.
    """
    return Litestar(
        [_make_publish(plugin, info, allowed_origins), *_make_views(plugin, info)],
        plugins=[plugin],
        openapi_config=None,
        logging_config=None,
        after_exception=[_log_unexpected],
    )


async def _log_unexpected(error: Exception, scope: Scope) -> None:
    if not isinstance(error, HTTPException):
        logger.error("%s failed", scope["path"], exc_info=error)


def _make_publish(plugin: ChannelsPlugin, info: ServerInfo, allowed_origins: Sequence[str]) -> HTTPRouteHandler:
    async def publish(request: Request[Any, Any, Any]) -> None:
        check_origin(request, allowed_origins)
        channel = read_channel(request)
        try:
            await plugin.wait_published(await request.body(), channel)
        except UnknownChannel as exc:
            raise NotFoundException(str(exc)) from exc
        except MessageTooLarge as exc:
            raise RequestTooLarge(str(exc)) from exc
        except PublishError as exc:
            refused = isinstance(exc.__cause__, BackendError)
            raise (BrokerRefused if refused else BrokerAway)(str(exc)) from exc

    path = f"/publish/{{{PARAMETER}:path}}"
    return post(path, status_code=204, request_max_body_size=info.max_bytes)(publish)


def _make_views(plugin: ChannelsPlugin, info: ServerInfo) -> list[HTTPRouteHandler]:
    page = files("channels_litestar").joinpath("static", "index.html").read_bytes()

    async def show_page() -> Response[bytes]:
        return Response(page, media_type="text/html", headers=_PAGE_HEADERS)

    async def show_channels() -> ServerInfo:
        return info

    async def show_health() -> Response[Any]:
        health = plugin.health()
        return Response(health, status_code=200 if health.ok else 503, headers={"Cache-Control": "no-store"})

    async def show_metrics() -> Response[str]:
        return Response(write_metrics(plugin.stats(), plugin.health()), media_type=MEDIA_TYPE)

    views = {"/": show_page, "/channels": show_channels, "/health": show_health, "/metrics": show_metrics}
    return [get(path)(view) for path, view in views.items()]
