"""Commands that can be ended at any time and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matrix import keeper
from matrix.machine import ROOT

__all__ = ("STOPPING", "Ended", "run_job", "stop_on_signals")

STOPPING: Final = threading.Event()
"""Set by an interrupt: what runs is ended, and nothing new begins."""

_LOOK: Final = 0.1
"""Seconds between two looks at what runs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job went.

    Attributes:
        status: The command's exit status.
        complaint: Why it does not count, if it was ended from here or left processes behind.
    """

    status: int
    complaint: str = ""


def stop_on_signals() -> None:
    """Let an interrupt end what runs; a run that was started by nohup stays deaf to the end of its terminal."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: STOPPING.set())


def run_job(command: Sequence[str], environment: Mapping[str, str], log: Path, timeout: float) -> Ended:
    """Run a command with its output in a log, up to a time limit or an interrupt."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, keeper.__file__, *command], cwd=ROOT, env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        complaint = _wait(process, timeout)
    return Ended(process.returncode, complaint or _left(log))


def _wait(process: subprocess.Popen[bytes], timeout: float) -> str:
    """Wait for the end, or bring it about; return why."""
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        if STOPPING.is_set() or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            return "interrupted" if STOPPING.is_set() else f"not done in {timeout:.0f} s"
        time.sleep(_LOOK)
    return ""


def _left(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return lines[-1] if lines and lines[-1].startswith(keeper.LEFT_BEHIND) else ""
