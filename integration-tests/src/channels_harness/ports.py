"""Ports for servers that must get the same one again after a restart."""

from __future__ import annotations

import random
import socket
import sys
from typing import Final

__all__ = ("free_port", "is_given")

_RANGE: Final = (15_000, 32_000)
"""Below the range that the system draws the ports of outgoing connections from: while a server is down between
kill and restart, no client of any process can be given its port."""

_ATTEMPTS: Final = 1_000

_draw: Final = random.SystemRandom()
"""Not the global generator: a test runner seeds that one, and parallel runs would draw the same ports."""


_claims: Final[list[int]] = []
"""Descriptors that keep what was given. A port is not taken before its server starts, the servers of a group draw
theirs first, and other test runs draw at the same time."""


def free_port(*, companion: int = 0) -> int:
    """Return a port on which nobody listened a moment ago, and which no process on this machine is given as well.

    Args:
        companion: How far above it lies another port that the server takes, and that must be free in the same way.
    """
    for _ in range(_ATTEMPTS):
        port = _draw.randint(_RANGE[0], _RANGE[1] - companion)
        if all(_take(each) for each in {port, port + companion}):
            return port
    raise RuntimeError(f"no free port found between {_RANGE[0]} and {_RANGE[1]}")


def _take(port: int) -> bool:
    if not _is_free(port) or (claim := _claim(port)) is None:
        return False
    _claims.append(claim.detach())
    return True


def is_given(port: int) -> bool:
    """Tell whether a process that still runs has been given the port."""
    claim = _claim(port)
    if claim is None:
        return True
    claim.close()
    return False


def _claim(port: int) -> socket.socket | None:
    """Take a name for the port that the system gives back when this process ends, however it ends.

    Source: unix(7), abstract sockets, which are Linux's own and need no file.
    """
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform != "linux":
        return claim  # good enough for one test run at a time
    try:
        claim.bind(f"\0channels-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
