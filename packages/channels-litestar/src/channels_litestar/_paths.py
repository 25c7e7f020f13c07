"""Channel names in request paths."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException

from channels_core.exceptions import ImproperlyConfigured

PARAMETER: Final = "channel"
"""The path parameter of handlers that serve any channel."""


def join_path(base_path: str, channel: str | None) -> str:
    """Return the route of a channel's handler, or of the one for any channel.

    Raises:
        ImproperlyConfigured: The name cannot be written as a route of its own.
    """
    base = "/" + base_path.strip("/")
    name = "{" + PARAMETER + ":path}" if channel is None else channel
    if channel is not None and (not is_routable(channel) or set(channel) & set("{}")):
        raise ImproperlyConfigured(
            f"no route can be made for channel {channel!r}; expected no empty part between slashes and no braces, "
            "rename it or set arbitrary_channels_allowed=True and authorize"
        )
    return f"{base.rstrip('/')}/{name}"


def read_channel(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Return the channel that the path names: any text, percent-encoded, slashes as they are or encoded.

    Litestar folds empty parts of a path, so that ``//a`` arrives as ``/a``; serving channel ``a`` to who asked for
    ``/a`` would be a mix-up, and hence there is no such page.

    Raises:
        NotFoundException: The path has an empty part, or is not UTF-8.
    """
    raw_path = connection.scope.get("raw_path") or b""
    try:
        path = unquote(raw_path.decode("ascii"), errors="strict")
    except UnicodeDecodeError as exc:
        raise NotFoundException("the path is not UTF-8") from exc
    if "//" in path or path.endswith("/"):
        raise NotFoundException("a channel's name in a path has no empty part between slashes")
    return str(connection.path_params[PARAMETER]).removeprefix("/")


def is_routable(channel: str) -> bool:
    """Return whether a path can name the channel."""
    return all(channel.split("/"))
