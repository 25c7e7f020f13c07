"""Redis's refusals and redis-py's exceptions, mapped once to the two errors of the contract.

A reply that time heals (loading, failing over, moving a slot) is a `BackendConnectionError`: the plugin retries it.
Everything else that the server says no to is a `BackendError` and says in words what to change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from redis import exceptions as driver

from channels_core.exceptions import BackendConnectionError, BackendError, ChannelsException

__all__ = (
    "Ask",
    "Moved",
    "Redirect",
    "Unloaded",
    "explain_driver",
    "explain_loss",
    "explain_reply",
    "has_errors",
    "is_demotion",
)

_HEALS: Final = frozenset(
    ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS", "READONLY", "TRYAGAIN", "UNBLOCKED")
)
"""Codes of replies that go away by themselves, during a start, a failover or a migration."""

_DEMOTION: Final = ("READONLY", "MASTERDOWN")
"""Codes that say that this server is not the primary any more."""

_IN_SCRIPT: Final = re.compile(r"-?\b([A-Z]{4,}) ")
# Redis 6.2 wraps an error of a script: "ERR Error running script (call to f_…): @user_script:12: -READONLY You…".

_COMMAND: Final = re.compile(r"the '([\w|-]+)' command")

_ADVICE: Final = {
    "DENIED": "the server is in protected mode: give it a password, or a bind address and protected-mode no",
    "NOAUTH": "the server wants a password: write redis://USER:PASSWORD@HOST",
    "WRONGPASS": "wrong user name or password, or the user is switched off",
    "CROSSSLOT": "this is a cluster: use a redis+cluster:// URL",
    "WRONGTYPE": "somebody else uses this key: choose another key_prefix",
    "OOM": "the server's maxmemory is used up and its eviction policy frees nothing",
    "MISCONF": "the server cannot save to its disk and takes no writes",
}
"""What to do about a refusal, by its code."""

_PHRASES: Final = {
    "cluster support disabled": "this is no cluster: use a redis:// URL",
    "db index is out of range": "the server has no such database: check the number after the host",
    "select is not allowed in cluster mode": "a cluster has only database 0: leave the number out",
    "unknown command 'sentinel'": "this is no Sentinel: list the Sentinels' ports, usually 26379",
    "unknown command `sentinel`": "this is no Sentinel: list the Sentinels' ports, usually 26379",
    "unknown command 'ssubscribe'": "sharded Pub/Sub needs Redis 7 or Valkey: this cluster is older",
    "unknown command `ssubscribe`": "sharded Pub/Sub needs Redis 7 or Valkey: this cluster is older",
    "unknown command 'hello'": "this server knows protocol 2 only: leave protocol=3 out",
    "unknown command `hello`": "this server knows protocol 2 only: leave protocol=3 out",
    "invalid username-password": _ADVICE["WRONGPASS"],
    "invalid password": _ADVICE["WRONGPASS"],
    "user executing the script": "the user lacks one of the rights that the scripts need, they are in the README",
    "only hello messages are accepted": "this is a Sentinel: use redis+sentinel://HOST:PORT/SERVICE",
    "unknown command 'script'": "is this a Sentinel? Then use redis+sentinel://HOST:PORT/SERVICE",
    "unknown command `script`": "is this a Sentinel? Then use redis+sentinel://HOST:PORT/SERVICE",
    "without any password configured": "the server has no password for this user: leave it out of the URL",
    "protected mode": _ADVICE["DENIED"],
    "authentication required": _ADVICE["NOAUTH"],
}
"""What to do about a refusal that has no code of its own, by a part of its text, in lower case."""


_HANGS_UP: Final = ("closed by the server", "closed the connection", "Connection reset", "Broken pipe")
# A server in protected mode says so and hangs up at once; what it said is lost when we wrote something meanwhile.


class Redirect(Exception):
    """The server did not run the command and says where, or how, to send it again."""


class Moved(Redirect):
    """The slot lives on another node."""

    def __init__(self, slot: int, address: str) -> None:
        super().__init__(f"slot {slot} lives at {address}")
        self.slot: Final = slot
        self.address: Final = address


class Ask(Redirect):
    """The slot is moving and this key is already on the other node."""

    def __init__(self, address: str) -> None:
        super().__init__(f"ask {address}")
        self.address: Final = address


class Unloaded(Redirect):
    """The server does not know the script (any more)."""


def explain_reply(message: str) -> ChannelsException | Redirect:
    """Turn an error reply into the exception that stands for it."""
    code, _, rest = message.partition(" ")
    if code in ("MOVED", "ASK"):
        return _read_redirect(code, rest)
    if code == "NOSCRIPT":
        return Unloaded(message)
    code = _inner_code(code, rest)
    if code in _HEALS or "max number of clients" in rest:
        return BackendConnectionError(f"redis is not ready: {message}")
    return _refusal(code, message)


def explain_loss(error: BaseException) -> str | None:
    """Say what it most likely means when a server hangs up on a new connection."""
    if isinstance(error, BackendConnectionError) and any(phrase in str(error) for phrase in _HANGS_UP):
        return (
            "the server hangs up: does it speak TLS on this port (rediss://), is it in protected mode, "
            "or out of clients (maxclients)?"
        )
    return None


def has_errors(replies: Sequence[object]) -> bool:
    """Return whether any of many replies is an error; hardly more work for a thousand good ones than for one."""
    return any(issubclass(kind, Exception) for kind in set(map(type, replies)))


def is_demotion(error: object) -> bool:
    """Return whether an exception that `explain_reply` made says that this is no primary (any more)."""
    return isinstance(error, BackendConnectionError) and any(code in str(error) for code in _DEMOTION)


def explain_driver(error: BaseException, address: str) -> ChannelsException:
    """Turn what redis-py raised while connecting into one of ours."""
    text = str(error) or type(error).__name__
    if isinstance(error, (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError)):
        code = "NOPERM" if isinstance(error, driver.NoPermissionError) else "WRONGPASS"
        return _refusal(code, text, address)
    if isinstance(error, (driver.BusyLoadingError, driver.ReadOnlyError)):
        return BackendConnectionError(f"redis at {address} is not ready: {text}")
    if isinstance(error, driver.ResponseError):
        mapped = explain_reply(text)
        return mapped if isinstance(mapped, BackendConnectionError) else _refusal(text.partition(" ")[0], text, address)
    if isinstance(error, (driver.DataError, TypeError)):
        return BackendError(f"redis at {address} cannot be used with these settings: {text}")
    return BackendConnectionError(f"cannot reach redis at {address}: {text}")


def _read_redirect(code: str, rest: str) -> ChannelsException | Redirect:
    slot, _, address = rest.partition(" ")
    if code == "ASK":
        return Ask(address)
    if slot.isdigit():
        return Moved(int(slot), address)
    return BackendError(f"redis refused: {code} {rest}")


def _inner_code(code: str, rest: str) -> str:
    if code != "ERR" or "running script" not in rest:
        return code
    inner = _IN_SCRIPT.search(rest)
    return inner.group(1) if inner else code


def _refusal(code: str, message: str, address: str = "") -> BackendError:
    place = f" at {address}" if address else ""
    advice = _advise(code, message)
    return BackendError(f"redis{place} refused: {message}" + (f"; {advice}" if advice else ""))


def _advise(code: str, message: str) -> str:
    lowered = message.lower()
    if code == "NOPERM" or "no permissions" in lowered:
        return _missing_right(lowered)
    if code in _ADVICE:
        return _ADVICE[code]
    return next((advice for phrase, advice in _PHRASES.items() if phrase in lowered), "")


def _missing_right(message: str) -> str:
    command = _COMMAND.search(message)
    if command:
        return f"the user lacks the right +{command.group(1)}"
    if "channel" in message:
        return "the user lacks the right to these Pub/Sub channels: grant &PATTERN for the key_prefix"
    return "the user lacks the right to these keys: grant ~PATTERN for the key_prefix"
