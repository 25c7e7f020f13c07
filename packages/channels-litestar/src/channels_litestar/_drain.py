"""End streams when the process is asked to stop, before the server waits for them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""What asks a server to stop gracefully."""

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def call_on_stop_signal(callback: Callable[[], None]) -> Iterator[None]:
    """Call back in the event loop when a stop signal comes, and hand the signal to whoever handled it before.

    Servers send the lifespan's shutdown only after all connections are closed, so a stream that waits for that would
    be waited for. Nothing of the server is patched: signals that nobody handled are left alone, and a handler that
    was installed over ours later stays. Outside the main thread Python allows no handlers, and this does nothing.
    A server that uses ``loop.add_signal_handler`` gets the signal through the loop's wake-up pipe, whatever handler
    is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    installed = {number: chain for number in SIGNALS if (chain := _Chain.install(number, loop, callback))}
    try:
        yield
    finally:
        for chain in installed.values():
            chain.remove()


class _Chain:
    """Our handler of one signal, in front of the one that was there."""

    def __init__(
        self,
        number: signal.Signals,
        previous: Handler,
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[], None],
    ) -> None:
        self._number: Final = number
        self._previous: Final = previous
        self._loop: Final = loop
        self._callback: Callable[[], None] | None = callback

    @classmethod
    def install(
        cls, number: signal.Signals, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]
    ) -> _Chain | None:
        previous = signal.getsignal(number)
        if not callable(previous):
            return None
        chain = cls(number, previous, loop, callback)
        signal.signal(number, chain)
        return chain

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._callback is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._callback)
        self._previous(number, frame)

    def remove(self) -> None:
        """Put the previous handler back, or only pass signals on where somebody has built upon us."""
        self._callback = None
        current: object = signal.getsignal(self._number)
        if current is self:
            signal.signal(self._number, self._previous)
