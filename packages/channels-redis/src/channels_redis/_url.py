"""Backend URLs: which servers, which credentials, and whose option is whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import SplitResult, unquote

import msgspec
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from channels_core.exceptions import InvalidURL
from channels_core.urls import Count, Seconds, parse_options, parse_url, redact_url
from channels_redis._names import DEFAULT_PREFIX
from channels_redis._settings import Address, AnySettings, ClusterSettings, SentinelSettings, ServerSettings

__all__ = ("DRIVER_PARAMETERS", "PubSubOptions", "StreamOptions", "read_settings")

DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379
STREAMS: Final = "streams"
"""The last word of a scheme that asks for history."""


class PubSubOptions(msgspec.Struct, frozen=True):
    """Parameters of a URL that are ours, without history."""

    key_prefix: str = DEFAULT_PREFIX


class StreamOptions(PubSubOptions, frozen=True):
    """Parameters of a URL that are ours, with history."""

    history: Count = 100
    max_age: Seconds | None = None
    record_ttl: Seconds = 30 * 24 * 3600.0
    approximate: bool = True


class DriverOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parameters of a URL that are passed on to redis-py; timeouts and retries are ours and not among them."""

    client_name: str | None = None
    db: Count | None = None
    password: str | None = None
    protocol: Literal[2, 3] = 2
    socket_keepalive: bool = True
    ssl_ca_certs: str | None = None
    ssl_ca_path: str | None = None
    ssl_cert_reqs: Literal["none", "optional", "required"] | None = None
    ssl_certfile: str | None = None
    ssl_check_hostname: bool = True
    ssl_ciphers: str | None = None
    ssl_keyfile: str | None = None
    ssl_password: str | None = None
    username: str | None = None
    sentinel_password: str | None = None
    sentinel_username: str | None = None


DRIVER_PARAMETERS: Final = frozenset(DriverOptions.__struct_fields__)
"""Names of the parameters that are the driver's own."""


def read_settings(url: str) -> AnySettings:
    """Read from a URL where the servers are; parameters of ours are skipped.

    Raises:
        InvalidURL: The address or a parameter of the driver cannot be read.
    """
    parts = parse_url(url)
    words = parts.scheme.split("+")
    kind = next((word for word in words[1:] if word != STREAMS), "")
    options = parse_options(url, DriverOptions, driver=StreamOptions.__struct_fields__)
    server = ServerSettings(SSLConnection if words[0] == "rediss" else Connection, _driver_kwargs(parts, options))
    if kind == "unix":
        return _unix(parts, server)
    if kind == "cluster":
        return ClusterSettings(_hosts(url, parts, DEFAULT_PORT), _with_database(url, server, parts.path))
    if kind == "sentinel":
        return _sentinel(url, parts, options, server)
    hosts = _hosts(url, parts, DEFAULT_PORT)
    if len(hosts) > 1:
        raise InvalidURL(
            f"{redact_url(url)!r} names several hosts; did you mean redis+cluster:// or redis+sentinel://?"
        )
    return _with_database(url, server, parts.path).at(hosts[0])


def _driver_kwargs(parts: SplitResult, options: DriverOptions) -> dict[str, Any]:
    given = {name: value for name, value in msgspec.to_builtins(options).items() if not name.startswith("sentinel_")}
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if user:
        given["username"] = unquote(user)
    if colon and password:
        given["password"] = unquote(password)
    return {"protocol": options.protocol, **given}


def _unix(parts: SplitResult, server: ServerSettings) -> ServerSettings:
    kwargs = {key: value for key, value in server.kwargs.items() if not key.startswith(("ssl_", "socket_"))}
    return ServerSettings(UnixDomainSocketConnection, {**kwargs, "path": unquote(parts.path)})


def _sentinel(url: str, parts: SplitResult, options: DriverOptions, server: ServerSettings) -> SentinelSettings:
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise InvalidURL(
            f"{redact_url(url)!r} lacks the service; expected redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/0"
        )
    private = ("username", "password", "db", "client_name")
    kwargs = {key: value for key, value in server.kwargs.items() if key not in private}
    login = {"username": options.sentinel_username, "password": options.sentinel_password}
    kwargs |= {key: value for key, value in login.items() if value is not None}
    asked = ServerSettings(server.connection_class, kwargs)
    return SentinelSettings(
        sentinels=[asked.at(host) for host in _hosts(url, parts, DEFAULT_SENTINEL_PORT)],
        service=unquote(service),
        server=_with_database(url, server, database),
    )


def _with_database(url: str, server: ServerSettings, path: str) -> ServerSettings:
    text = path.strip("/")
    if not text:
        return server
    if not text.isdigit():
        raise InvalidURL(f"{redact_url(url)!r}: expected a database number after the host, got {text!r}")
    return ServerSettings(server.connection_class, {"db": int(text), **server.kwargs})


def _hosts(url: str, parts: SplitResult, default_port: int) -> Sequence[Address]:
    listed = parts.netloc.rpartition("@")[2]
    return [_host(url, text, default_port) for text in listed.split(",")]


def _host(url: str, text: str, default_port: int) -> Address:
    # [::1]:6379, host:6379, host
    if text.count("[") != text.count("]"):
        raise InvalidURL(f"{redact_url(url)!r}: {text!r} is no host; an IPv6 address stands in brackets")
    host, bracket, port = text.rpartition("]") if text.startswith("[") else ("", "", "")
    if not bracket:
        host, _, port = text.partition(":")
    host, port = host.lstrip("["), port.lstrip(":")
    if port and not (port.isdigit() and int(port) < 65_536):
        raise InvalidURL(f"{redact_url(url)!r}: {port!r} is no port")
    return unquote(host) or "localhost", int(port or default_port)
