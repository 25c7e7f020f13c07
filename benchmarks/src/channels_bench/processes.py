"""Worker processes, one per system, kept as long as a section lasts."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from channels_bench import worker
from channels_bench.catalogue import SYSTEMS
from channels_bench.servers import Servers

__all__ = ("Pool", "WorkerError", "WorkerProcess")

TIMEOUT: Final = 20.0
"""Seconds for one answer: a system that loses an event never gives it. The same as `Workload.patience`."""


STARTING: Final = 60.0
"""Seconds for a process to start: a busy machine is no fault of the system's."""


class WorkerError(Exception):
    """A worker did not answer, or answered that it failed."""


class WorkerProcess:
    """One system in one process.

    Args:
        command: The interpreter.
        target: The adapter.
        url: Of the server.
    """

    def __init__(self, command: str, target: str, url: str) -> None:
        self._log: Final = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process: Final = subprocess.Popen(
            [command, "-m", "channels_bench.worker", target, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
        )
        self.answer(STARTING)

    def ask(self, **request: Any) -> None:
        """Send a job."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, patience: float = TIMEOUT) -> dict[str, Any]:
        """Return the next line.

        Raises:
            WorkerError: There is none in time, or it tells of an error.
        """
        line = self._read_line(time.monotonic() + patience, patience)
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _read_line(self, deadline: float, patience: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(pipe, 1) if ready else b""
            if not chunk:
                raise WorkerError(self._explain(bool(ready), patience))
            line += chunk
        return line

    def _explain(self, ended: bool, patience: float) -> str:
        if not ended:
            return f"no answer within {patience:.0f} s"
        self._log.seek(0)
        return f"the process ended: {self._log.read().strip()[-200:]}"


class Pool:
    """Workers by system and role.

    Args:
        servers: Where they connect to.
        django: Returns the interpreter of Django's environment, which is made when first asked for.
    """

    def __init__(self, servers: Servers, django: Callable[[], str]) -> None:
        self._servers: Final = servers
        self._django: Final = django
        self._workers: Final[dict[tuple[str, str, str], WorkerProcess]] = {}

    def worker(self, system: str, role: str = "", adapter: str = "") -> WorkerProcess:
        """Return the worker of a system in a role, started unless it runs; with another's adapter if one is named."""
        key = (system, role, adapter)
        if key not in self._workers:
            entry = SYSTEMS[adapter or system]
            command = self._django() if entry.django else sys.executable
            self._workers[key] = WorkerProcess(command, entry.target, self._servers.url(entry.server))
        return self._workers[key]

    def drop(self, system: str) -> None:
        """End the workers of a system; the next use starts new ones."""
        for key in [key for key in self._workers if key[0] == system]:
            self._workers.pop(key).close()

    def close(self) -> None:
        """End all of them."""
        for system in {system for system, _, _ in self._workers}:
            self.drop(system)


def _environment() -> dict[str, str]:
    source = Path(worker.__file__).parent.parent
    return {**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "0"}
