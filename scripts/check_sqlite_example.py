"""Prove that a third party needs nothing but our wheels: install and test the SQLite example outside the workspace.

Builds the wheels of channels-core and of the example, installs both into an empty environment (third-party
requirements first, ours with ``--no-index --find-links``, because the public index serves other projects under some
of our names), finds the backend by its URL, and runs the example's tests, which are the conformance kit.

Usage: `uv run --no-sync python scripts/check_sqlite_example.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLE: Final = ROOT / "docs" / "examples" / "channels-sqlite"
SOURCES: Final = (ROOT / "packages" / "channels-core", EXAMPLE)
THIRD_PARTY: Final = ("msgspec", "pytest", "click", "rich")
"""What both wheels with the extras ``testing`` and ``cli`` require, installed as in the workspace."""

UV: Final = os.environ.get("UV", "uv")
"""`uv run` says where it is: it need not be on the path."""

RULE: Final = "history-is-what-was-delivered"
"""One is enough for the command; the tests run all."""

WHERE: Final = """
import sys, channels_core, channels_sqlite
from channels_core.registry import create_backend
backend = create_backend("sqlite:///events.db?history=100")
for module in (channels_core, channels_sqlite):
    assert module.__file__.startswith(sys.prefix), f"{module.__file__} is not the installed wheel"
print(f"sqlite:///events.db is {type(backend).__module__}.{type(backend).__qualname__}")
"""


def main() -> None:
    """Build, install, find, prove."""
    with tempfile.TemporaryDirectory(prefix="channels-example-") as name:
        folder = Path(name)
        wheels = build_wheels(folder / "wheels")
        python = install(folder / "venv", wheels)
        shutil.copytree(EXAMPLE / "tests", folder / "tests")
        shutil.copy(EXAMPLE / "pyproject.toml", folder)
        call(python, "-c", WHERE, cwd=folder)
        call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
        url = f"sqlite:///{folder / 'events.db'}?history=100"
        call(python, "-m", "channels_core.cli", "conformance", url, "--rule", RULE, cwd=folder)


def build_wheels(folder: Path) -> Path:
    """Build from clean copies, so that nothing is written into the workspace."""
    for source in SOURCES:
        copy = folder.parent / "sources" / source.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", ".*", "dist", "build"))
        call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy), quiet=True)
    return folder


def install(folder: Path, wheels: Path) -> str:
    """Make an empty environment and install into it; gives its Python."""
    # The standard library's venv needs ensurepip, which Debian packages apart.
    call(UV, "venv", "--quiet", "--python", sys.executable, str(folder))
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    into = (UV, "pip", "install", "--quiet", "--python", python)
    # Outside the workspace, whose settings uv would follow.
    call(*into, *(f"{name}=={version(name)}" for name in THIRD_PARTY), cwd=folder)
    ours = ("channels-sqlite[test]", "channels-core[cli]")
    call(*into, "--no-index", "--find-links", str(wheels), *ours, cwd=folder)
    return python


def call(*command: str, cwd: Path | None = None, quiet: bool = False) -> None:
    """Run a command in a clean environment; its failure is ours."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "COVERAGE_PROCESS_START")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    print("$", *command[:6], "…" if len(command) > 6 else "", flush=True)
    output = subprocess.DEVNULL if quiet else None
    if subprocess.run(command, cwd=cwd, env=environment, stdout=output).returncode:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
