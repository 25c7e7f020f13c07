"""Environments that a run needs beside the one it was started in."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ("bring_peers", "django_interpreter")

_PEERS: Final = ("broadcaster", "faststream", "matplotlib")

_REQUIREMENTS: Final = Path(__file__).with_name("requirements-django.txt")


def bring_peers(arguments: Sequence[str]) -> None:
    """Start the command again where the peers are installed, unless that is here.

    The environment is uv's own: the workspace's stays as it is.
    """
    if all(importlib.util.find_spec(name) for name in _PEERS):
        return
    if "CHANNELS_BENCH_NESTED" in os.environ:
        raise SystemExit(f"the group 'bench' does not bring {', '.join(_PEERS)}; run: uv sync --group bench")
    command = [_uv(), "run", "--quiet", "--isolated", "--group", "bench", "channels-bench", *arguments]
    os.execve(command[0], command, {**os.environ, "CHANNELS_BENCH_NESTED": "1"})


def django_interpreter() -> str:
    """Return the interpreter of an environment with Django channels; made outside the workspace, once."""
    mark = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "channels-bench" / f"django-{mark}"
    interpreter = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        _run("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        _run("pip", "install", "--quiet", "--no-config", "--python", str(interpreter), "-r", str(_REQUIREMENTS))
        complete.touch()
    return str(interpreter)


def _run(*arguments: str) -> None:
    # Not from inside the workspace: its pins are not Django's.
    subprocess.run([_uv(), *arguments], check=True, cwd=Path.home())


def _uv() -> str:
    return os.environ.get("UV", "uv")
