"""Read backend URLs: typed query parameters, and URLs that may be shown to people.

Usage, in a backend's `from_url`: describe the parameters once as a struct, whose defaults hold for what the URL
does not name. Use ``msgspec.UNSET`` as default where "not given" and "none" differ::

    class RedisOptions(msgspec.Struct, frozen=True):
        history: Count = 0
        max_age: Seconds | None = None
        key_prefix: str = "channels:"

    options = parse_options(url, RedisOptions, driver=("client_name", "protocol"))
    client = Redis.from_url(without_options(url, RedisOptions))  # the driver sees only what is its own

``?max_age=none`` gives ``None``, times are seconds (``?max_age=1.5``), booleans are ``true`` and ``false``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote

import msgspec

from channels_core.exceptions import InvalidURL

__all__ = ("Count", "Seconds", "parse_options", "parse_url", "redact_url", "without_options")

Count = Annotated[int, msgspec.Meta(ge=0)]
"""Type of a parameter that counts something."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
"""Type of a parameter that is a duration; write ``Seconds | None`` where there may be no limit."""

MASK: Final = "***"
"""Stands for a password wherever a URL is shown."""

_USERINFO: Final = re.compile(r"(?<=://)([^:@/?#]*):.*@", re.DOTALL)
# Greedy up to the last @: a password with an unescaped @, / or ? is a common mistake, and the message about it must
# not show the rest of that password. Showing less of a URL that has an @ in its query is the lesser evil.

_SECRETS: Final = re.compile(r"(?<=[?&])([^=&#]*(?:pass|secret|token|dsn)[^=&#]*)=[^&#]*", re.IGNORECASE)

_PARTS: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.IGNORECASE | re.ASCII | re.DOTALL
)
"""Source: RFC 3986, appendix B, with the scheme of its section 3.1."""

_NONE: Final = "none"

OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)


def redact_url(url: str) -> str:
    """Return the URL with its password, and query values named like secrets or DSNs, replaced by ``***``.

    Works on text that is no proper URL, because this is how such text gets into an error message.
    """
    return _SECRETS.sub(rf"\1={MASK}", _USERINFO.sub(rf"\1:{MASK}@", url))


def parse_url(url: str) -> SplitResult:
    """Split a URL that has a scheme.

    The network location is left as it stands: it may name several hosts, some of them in brackets, which recent
    releases of ``urllib.parse.urlsplit`` refuse.

    Raises:
        InvalidURL: It has none.
    """
    found = _PARTS.fullmatch(url)
    if found is None:
        raise InvalidURL(f"{redact_url(url)!r} is no backend URL; expected SCHEME://…, for example memory://")
    scheme, netloc, path, query, fragment = (part or "" for part in found.groups())
    return SplitResult(scheme.lower(), netloc, path, query, fragment)


def parse_options(url: str, into: type[OptionsT], *, driver: Collection[str] = ()) -> OptionsT:
    """Read the query parameters of a URL into a struct.

    Args:
        url: The URL.
        into: The struct that names the parameters, their types and defaults. Fields may be ``int``, ``float``,
            ``bool``, ``str``, one of these ``| None``, and carry ``msgspec.Meta`` limits.
        driver: Parameters that are passed on to the driver; valid, listed and otherwise left alone.

    Raises:
        InvalidURL: A parameter is unknown (the message lists the valid ones), repeated, or has a value that its
            type refuses.
    """
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(into)}
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for name, text in _query_of(url):
        if name in seen:
            raise InvalidURL(f"{name!r} is repeated in {redact_url(url)!r}; give it once")
        seen.add(name)
        if name in fields:
            values[name] = _convert(url, name, text, fields[name])
        elif name not in driver:
            raise InvalidURL(_unknown(url, name, fields, driver))
    return msgspec.convert(values, into)


def without_options(url: str, into: type[msgspec.Struct]) -> str:
    """Return the URL without the parameters that the struct names, everything else byte for byte, for the driver."""
    names = {field.encode_name for field in msgspec.structs.fields(into)}
    base, question, rest = url.partition("?")
    query, hash_sign, fragment = rest.partition("#")
    kept = "&".join(pair for pair in query.split("&") if unquote(pair.partition("=")[0]) not in names)
    return base + (question + kept if kept else "") + hash_sign + fragment


def _query_of(url: str) -> list[tuple[str, str]]:
    query = parse_url(url).query
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise InvalidURL(f"the query of {redact_url(url)!r} cannot be read; expected NAME=VALUE&NAME=VALUE") from None


def _convert(url: str, name: str, text: str, expected: Any) -> Any:
    try:
        value = msgspec.convert(None if text == _NONE else text, expected, strict=False)
    except msgspec.ValidationError as exc:
        reason = str(exc).partition(", got")[0].replace("null", _NONE).lower()
        raise InvalidURL(f"{name}={_shown(name, text)} in {redact_url(url)!r}: {reason}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidURL(f"{name}={text!r} in {redact_url(url)!r}: expected a finite number, or leave it out")
    return value


def _shown(name: str, text: str) -> str:
    return MASK if f"?{name}={MASK}" == redact_url(f"?{name}={text}") else repr(text)


def _unknown(url: str, name: str, fields: Mapping[str, Any], driver: Iterable[str]) -> str:
    valid = sorted({*fields, *driver})
    near = get_close_matches(name, valid, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    listed = f"valid are {', '.join(valid)}" if valid else "it takes none"
    return f"unknown parameter {name!r} in {redact_url(url)!r}{hint}; {listed}"
