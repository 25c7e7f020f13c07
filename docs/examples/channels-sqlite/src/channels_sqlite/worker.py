"""A thread with a connection of its own: SQLite calls block, and must not block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from channels_core.exceptions import BackendConnectionError
from channels_sqlite.store import Store

__all__ = ("THREAD_NAME", "Worker")

THREAD_NAME: Final = "channels-sqlite"

T = TypeVar("T")


class Worker:
    """Runs calls on a store, one after the other; opens it with the first, and anew after a failure.

    A cancelled call goes on in its thread. It cannot mix up answers, and a publish that is then retried comes behind
    it with the same key.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open: Final = open_store
        self._executor: Final = ThreadPoolExecutor(1, thread_name_prefix=THREAD_NAME)
        self._store: Store | None = None
        self._closed = False

    async def call(self, function: Callable[[Store], T]) -> T:
        """Run a function with the store.

        Raises:
            BackendConnectionError: It cannot be used now, or the worker was closed.
        """
        if self._closed:
            raise BackendConnectionError("the SQLite backend was shut down")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, function)

    async def close(self) -> None:
        """Wait for the call in progress, close the store and end the thread."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown()

    def _run(self, function: Callable[[Store], T]) -> T:
        if self._store is None:
            self._store = self._open()
        try:
            return function(self._store)
        except BackendConnectionError:
            self._close()
            raise

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
