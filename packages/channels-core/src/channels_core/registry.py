"""Backend URL → backend class, over entry points, and errors that say what to install.

A distribution registers its backends in the entry-point group ``channels_core.backends``. The name is the URL's
scheme with ``+`` written as ``.``, the object is the class::

    [project.entry-points."channels_core.backends"]
    "redis.streams" = "channels_redis.streams:RedisChannelsStreamBackend"

Nothing is imported that the URL does not name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint
from typing import Final

from channels_core._discovery import find_distribution, find_entry_points, load_problem, owner
from channels_core.backend import ChannelsBackend
from channels_core.exceptions import AmbiguousBackend, BackendLoadError, UnknownBackend
from channels_core.urls import parse_url

__all__ = ("BACKENDS", "backend_class", "create_backend", "installed_backends", "load_backend")

BACKENDS: Final = "channels_core.backends"
"""The entry-point group."""

_OURS: Final = {"postgres": "channels-postgres", "redis": "channels-redis"}
"""How the schemes begin that our own distributions serve."""


def create_backend(url: str) -> ChannelsBackend:
    """Build the backend that a URL names, without connecting.

    Raises:
        InvalidURL: The text is no URL, or a parameter is unknown or cannot be read.
        UnknownBackend: No installed distribution registers the scheme.
        AmbiguousBackend: More than one does.
        BackendLoadError: The one that does is broken.
    """
    return backend_class(url).from_url(url)


def backend_class(url: str) -> type[ChannelsBackend]:
    """Return the class that a URL names.

    Raises:
        InvalidURL: The text is no URL.
        UnknownBackend: No installed distribution registers the scheme.
        AmbiguousBackend: More than one does.
        BackendLoadError: The one that does is broken.
    """
    return _class_of(parse_url(url).scheme)


def installed_backends() -> dict[str, list[EntryPoint]]:
    """Return the entry points of every installed scheme, sorted; nothing is imported.

    A list longer than one is a scheme that several distributions claim.
    """
    return {_to_scheme(name): claims for name, claims in find_entry_points(BACKENDS).items()}


def load_backend(scheme: str, entry_point: EntryPoint) -> type[ChannelsBackend]:
    """Import the class behind one entry point.

    Raises:
        BackendLoadError: The import fails, or gives something else than a complete backend class.
    """
    try:
        loaded: object = entry_point.load()
    except Exception as exc:  # a third party's module may raise anything
        raise BackendLoadError(_explain_load(scheme, entry_point, load_problem(entry_point, exc))) from exc
    if not (inspect.isclass(loaded) and issubclass(loaded, ChannelsBackend)):
        problem = f"{loaded!r} is no subclass of {ChannelsBackend.__module__}.{ChannelsBackend.__qualname__}"
        raise BackendLoadError(_explain_load(scheme, entry_point, problem))
    if inspect.isabstract(loaded):
        missing = ", ".join(sorted(loaded.__abstractmethods__))
        raise BackendLoadError(_explain_load(scheme, entry_point, f"it lacks the methods {missing}"))
    return loaded


@cache
def _class_of(scheme: str) -> type[ChannelsBackend]:
    installed = installed_backends()
    claims = installed.get(scheme, ())
    if not claims:
        raise UnknownBackend(_explain_unknown(scheme, list(installed)))
    if len(claims) > 1:
        owners = " and ".join(owner(claim) for claim in claims)
        raise AmbiguousBackend(
            f"{scheme}:// is claimed by {owners}; uninstall one, or pass a backend instance instead of a URL"
        )
    return load_backend(scheme, claims[0])


def _to_scheme(name: str) -> str:
    # The + of a scheme cannot stand in an entry point's name with every installer; SQLAlchemy writes it the same way.
    return name.replace(".", "+")


def _explain_unknown(scheme: str, installed: Sequence[str]) -> str:
    near = get_close_matches(scheme, installed, n=1)
    known = _our_distribution(scheme)
    parts = [
        f"no installed distribution serves {scheme}://",
        *(f"did you mean {each}://" for each in near),
        *([_advise_install(scheme, known)] if known else []),
        f"installed are {', '.join(f'{each}://' for each in installed) or 'none'}",
    ]
    return "; ".join(parts)


def _advise_install(scheme: str, name: str) -> str:
    found = find_distribution(name)
    if found is None:
        requirement = f"{name}[psycopg]" if scheme.endswith("+psycopg") else name
        return f"install it with: pip install {requirement!r} ({_tell_apart(name)})"
    if not any(line.startswith("channels-core") for line in found.requires or ()):
        return f"{name} {found.version} is installed, but it is not ours ({_tell_apart(name)})"
    return f"{name} {found.version} is installed and does not know this scheme"


def _explain_load(scheme: str, entry_point: EntryPoint, problem: str) -> str:
    message = f"{scheme}:// is registered by {owner(entry_point)} as {entry_point.value!r}, but {problem}"
    name = entry_point.dist.name if entry_point.dist else ""
    return f"{message} ({_tell_apart(name)})" if name in _OURS.values() else message


def _our_distribution(scheme: str) -> str | None:
    return next((name for prefix, name in _OURS.items() if scheme.startswith(prefix)), None)


def _tell_apart(name: str) -> str:
    return (
        f"ours requires channels-core, see `pip show {name}`; "
        "the public index serves an unrelated project under the same name"
    )
