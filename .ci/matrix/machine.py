"""What the machine is, and what is installed on it for a run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

WORK: Final = ROOT / ".ci" / "work" / "full"
"""Ignored by git: states, logs, virtual environments, images."""

CHANGES: Final = "+changes"
"""What stands behind the commit when there are changes that are not committed."""

_GIB: Final = 1024**3

_INSTALLING: Final = threading.Lock()


def facts() -> list[str]:
    """Return what a reader needs to judge durations."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB",
        f"{platform.freedesktop_os_release().get('PRETTY_NAME', platform.system())}, Linux {platform.release()}",
        f"Python {platform.python_version()}",
    ]


def tested_commit() -> str:
    """Return the last commit that touched more than what is not under test: results, and the benchmarks."""
    others = (":!docs/reference/test-matrix.md", ":!docs/explanation/performance*", ":!benchmarks")
    commit = output("git", "log", "-1", "--format=%h", "--", ".", *others)
    return commit + (CHANGES if output("git", "status", "--porcelain", "--", ".", *others) else "")


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def install(programs: Mapping[str, str]) -> None:
    """Install Debian packages for the programs (path or name → package) that are missing."""
    # One at a time: apt does not wait for another one.
    with _INSTALLING:
        missing = [package for program, package in programs.items() if shutil.which(program) is None]
        if missing:
            sudo = [] if os.geteuid() == 0 else ["sudo"]
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
                subprocess.run([*sudo, "apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def find_uv() -> str:
    """Return the path of uv, installed where it is missing."""
    found = subprocess.run([ROOT / ".ci" / "find-uv"], check=True, stdout=subprocess.PIPE, text=True)
    return found.stdout.strip()


def make_environment(name: str, requirements: Sequence[str], loose: Sequence[str]) -> str:
    """Make a virtual environment with our distributions and other versions of a driver; return its Python.

    Args:
        name: Of its folder.
        requirements: The drivers' versions, ``redis==5.2.0``.
        loose: Distributions that the workspace's pins must not hold.
    """
    folder = WORK / "environments" / name
    python = folder / "bin" / "python"
    constraints = WORK / f"{name}-constraints.txt"
    constraints.write_text("\n".join(pin for pin in _pins() if pin.partition("==")[0] not in loose))
    uv = find_uv()
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True, cwd=ROOT)
    packages = [part for package in _DISTRIBUTIONS for part in ("-e", f"{ROOT}/{package}")]
    command = [uv, "pip", "install", "--quiet", "--python", str(python), "-c", str(constraints), "--upgrade"]
    # Outside the workspace, whose pins would hold the drivers back.
    subprocess.run([*command, *packages, *_TOOLS, *requirements], check=True, cwd=WORK.anchor)
    return str(python)


_DISTRIBUTIONS: Final = (
    "packages/channels-core[cli,testing]",
    "packages/channels-redis",
    "packages/channels-postgres[psycopg]",
    "integration-tests",
)

_TOOLS: Final = ("pytest", "pytest-asyncio", "pytest-randomly", "pytest-timeout", "sqlalchemy", "greenlet", "sybil")


def _pins() -> list[str]:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return list(settings["tool"]["uv"]["constraint-dependencies"])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
