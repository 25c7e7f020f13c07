"""Control over the process of a server: start, stop, kill, freeze and restart."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ("ServerProcess",)

_POLL: Final = 0.02
"""Seconds between two looks at a process that starts or ends: there is nothing to be notified by."""


class ServerProcess:
    """A server of our own, in a process group of its own, so that signals reach its children too.

    All methods block until the server is in the new state; inside an event loop call them through
    ``asyncio.to_thread``, so that the clients under test go on meanwhile.

    Args:
        command: Program and arguments; it must stay in the foreground.
        ready: Tells whether the server answers. It is called again and again after a start and may raise ``OSError``.
        log: File that gets the server's output; what it ends with is quoted when the server does not start.
        stop_signal: Asks the server to stop in good order (PostgreSQL: ``SIGINT``).
        start_timeout: Seconds within which `ready` must become true.
        stop_timeout: Seconds after which `stop` kills.

    Example::

        with ServerProcess(["valkey-server", "--port", port], ready=answers, log=tmp_path / "log") as server:
            server.pause()
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self.command: Final = tuple(command)
        self.log: Final = log
        self._ready: Final = ready
        self._env: Final = {**os.environ, **env} if env is not None else None
        self._cwd: Final = cwd
        self._stop_signal: Final = stop_signal
        self._start_timeout: Final = start_timeout
        self._stop_timeout: Final = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group too."""
        return self._require().pid

    def start(self) -> None:
        """Start and wait until it answers. Does nothing when it runs.

        Raises:
            RuntimeError: It ended, or did not answer in time; the message ends with its output.
        """
        if self.is_running:
            return
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._env, cwd=self._cwd, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to stop, wait, and kill what does not. Idempotent."""
        if self._process is None:
            return
        if self.is_running:
            self.resume()
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(self._stop_timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """Kill it and its children with ``SIGKILL``, as a crash would. Idempotent."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill) it, and start it again."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it and its children with ``SIGSTOP``: connections stay open and nothing answers."""
        self._require()
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`; harmless when it was not frozen."""
        self._require()
        self._signal(signal.SIGCONT)

    def _require(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.command[0]} is not running; call start() first")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        # It may have ended by itself, which is what the caller finds out next.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._require().pid, number)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not self._answers():
            if not self.is_running:
                raise RuntimeError(f"{self.command[0]} ended at its start:\n{self._last_output()}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.command[0]} gave no answer in {self._start_timeout} s:\n{self._last_output()}"
                )
            time.sleep(_POLL)

    def _answers(self) -> bool:
        try:
            return self._ready()
        except OSError:
            return False

    def _last_output(self) -> str:
        return self.log.read_text("utf-8", "replace")[-2000:]
