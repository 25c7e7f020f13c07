"""Run a command, and end whatever it has started and left behind; a program of its own, started by `matrix.jobs`.

A server makes itself leader of a session and writes its title over its environment, so neither leads to it. But an
orphan becomes the child of the next "subreaper" above, and that is this process.
Source: prctl(2), PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ("LEFT_BEHIND", "LEFT_STATUS")

LEFT_STATUS: Final = 70
"""Exit status when the command succeeded and left processes behind; sysexits.h has it for faults of a program."""

LEFT_BEHIND: Final = "left behind: "
"""What the last line of the output begins with then."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_TIDYING: Final = 30
"""Seconds for the command to close its servers when it was interrupted."""

_VANISHING: Final = 5.0
"""Seconds for the last processes to end by themselves when the command has, before they count as left behind."""

_LOOK: Final = 0.05
"""Seconds between two looks at them."""


def main(command: list[str]) -> int:
    """Run it with a temporary folder of its own; an interrupt, or the end of who started us, interrupts it."""
    _become_subreaper()
    with tempfile.TemporaryDirectory(prefix="channels-ci-", ignore_cleanup_errors=True) as folder:
        # Servers under another user must pass through.
        os.chmod(folder, 0o711)
        return _keep(command, {**os.environ, "TMPDIR": folder})


def _keep(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    interrupts: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupts.append(number)
        signal.alarm(_TIDYING)
        os.kill(process.pid, signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(process.pid, signal.SIGKILL))
    status = _wait(process.pid)
    left = _end_children(0.0 if interrupts else _VANISHING)
    if left:
        print(f"\n{LEFT_BEHIND}{', '.join(left)}", flush=True)
    return status or (LEFT_STATUS if left else 0)


def _become_subreaper() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_CHILD_SUBREAPER, 1), (_PR_SET_PDEATHSIG, signal.SIGTERM)):
        if prctl(option, int(value), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def _wait(process: int) -> int:
    """Wait for the command, and reap its orphans meanwhile: somebody may be waiting for them to be gone."""
    while True:
        ended, status = os.wait()
        if ended == process:
            signal.alarm(0)
            return os.waitstatus_to_exitcode(status)


def _end_children(patience: float) -> list[str]:
    """Wait for the orphans, kill those that stay, and their children, who become ours; return their names."""
    names: set[str] = set()
    deadline = time.monotonic() + patience
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    names.update(_kill(child) for child in _children())
                time.sleep(_LOOK)
    return sorted(names)


def _children() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Behind the name, which may hold anything: state, parent.
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                yield int(process.name)


def _kill(process: int) -> str:
    name = Path("/proc", str(process), "comm").read_text().strip()
    os.kill(process, signal.SIGKILL)
    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
