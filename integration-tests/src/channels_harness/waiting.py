"""Waiting for a state of a server that nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psycopg
import redis

__all__ = ("wait_until",)

_POLL: Final = 0.05
"""Seconds between two looks."""

_NOT_YET: Final = (redis.RedisError, psycopg.OperationalError, OSError)


def wait_until(condition: Callable[[], bool], timeout: float, complaint: str) -> None:
    """Return when the condition holds; a server that does not answer yet counts as no."""
    deadline = time.monotonic() + timeout
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} in {timeout} s")
        time.sleep(_POLL)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except _NOT_YET:
        return False
