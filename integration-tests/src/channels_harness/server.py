"""What every server of the harness can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ("Server",)


class Server(ABC):
    """A broker of our own: one process or several on loopback, with their data in a temporary folder.

    A context manager: entering starts it, leaving stops it and removes its data. All methods block until the
    server is in the new state; in an event loop call them through ``asyncio.to_thread``.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that a plugin takes for the plain backend."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version as the running server reports them, ``"Valkey 9.1.2"``."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether its processes exist, paused or not."""

    @abstractmethod
    def start(self) -> None:
        """Start with the data that is there; returns when it answers. Does nothing when it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop in good order, keeping the data. Idempotent."""

    @abstractmethod
    def kill(self) -> None:
        """End it with ``SIGKILL``, as a crash would, keeping the data. Idempotent."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on after `pause`."""

    @abstractmethod
    def erase(self) -> None:
        """Remove the data of the stopped server: the next start is its first."""

    @abstractmethod
    def close(self) -> None:
        """Stop it and remove everything. Idempotent."""

    def restart(self, *, kill: bool = False, keep_data: bool = True) -> None:
        """Stop (or kill) it, and start it again, with its data or without."""
        if kill:
            self.kill()
        else:
            self.stop()
        if not keep_data:
            self.erase()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
