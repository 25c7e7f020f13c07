"""Ports for servers that must get the same one again after a restart."""

from __future__ import annotations

import random
import socket
from typing import Final

__all__ = ("free_port",)

_RANGE: Final = (15_000, 32_000)
"""Below the range that the system draws the ports of outgoing connections from: while a server is down between
kill and restart, no client of any process can be given its port."""

_ATTEMPTS: Final = 1_000

_draw: Final = random.SystemRandom()
"""Not the global generator: a test runner seeds that one, and parallel runs would draw the same ports."""


_given: Final[set[int]] = set()
"""A port is not taken before its server starts, and the servers of a group draw theirs first."""


def free_port() -> int:
    """Return a port on which nobody listened a moment ago, and another one each time."""
    for _ in range(_ATTEMPTS):
        port = _draw.randint(*_RANGE)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port found between {_RANGE[0]} and {_RANGE[1]}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
