"""Run mypy on every source and test folder, one process each.

Test files of different distributions may have the same name, which one mypy process refuses as duplicate modules.

Usage: `uv run scripts/typecheck.py [FOLDER…]`; without a folder, all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = (
    "packages/*/src",
    "packages/*/tests",
    "integration-tests",
    "benchmarks",
    "docs/examples/*/src",
    "docs/examples/*/tests",
    ".ci/matrix",
    "scripts",
)


def find_folders() -> list[Path]:
    """Return the folders that hold Python files."""
    folders = [folder for pattern in PATTERNS for folder in sorted(ROOT.glob(pattern))]
    return [folder for folder in folders if any(folder.rglob("*.py"))]


def check(folder: Path) -> bool:
    """Return whether mypy accepts the folder."""
    print(f"mypy {folder}", flush=True)
    # The folder, or its src, is the base of its modules' names; then sub-folders may each have a conftest.py.
    base = ROOT / (folder.parent if (folder / "__init__.py").exists() else folder)
    # An example is not installed: its tests find it next to them.
    bases = [base, base / "src", *([base.parent / "src"] if folder.name == "tests" else [])]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, bases))}
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--explicit-package-bases", str(folder)]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def main(arguments: list[str]) -> int:
    """Check all folders, also after one failed, and return the exit code."""
    folders = [Path(argument) for argument in arguments] or [folder.relative_to(ROOT) for folder in find_folders()]
    failed = [folder for folder in folders if not check(folder)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
