"""Write the exact versions of the full closure from the generated uv.lock into pyproject.toml.

Usage: `uv lock --upgrade && uv run scripts/pin.py` (see CONTRIBUTING.md). uv.lock itself is not committed: it
holds the addresses of whichever index it was made with.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD_REQUIREMENTS = {"hatchling", "editables", "pathspec", "pluggy", "trove-classifiers"}


def read_pins(lock: dict[str, Any]) -> list[str]:
    """Return one requirement per locked third-party version, with its marker where uv had to fork."""
    packages = [package for package in lock["package"] if "registry" in package["source"]]
    return sorted(pin for package in packages for pin in pins_of(package))


def pins_of(package: dict[str, Any]) -> list[str]:
    """Return the requirements that pin one locked package."""
    pin = f"{package['name']}=={package['version']}"
    markers = package.get("resolution-markers", [])
    return [f"{pin} ; {marker}" for marker in markers] or [pin]


def replace_list(text: str, key: str, values: list[str]) -> str:
    """Return the TOML text with the list named `key` replaced."""
    body = "".join(f'    "{value}",\n' for value in values)
    pattern = re.compile(rf"^{key} = \[(?:|$.*?^)\]$", re.MULTILINE | re.DOTALL)
    result, count = pattern.subn(lambda _: f"{key} = [\n{body}]", text, count=1)
    if count != 1:
        raise SystemExit(f"pyproject.toml has no list named {key}")
    return result


def main() -> int:
    """Rewrite both lists of pins in place."""
    pins = read_pins(tomllib.loads((ROOT / "uv.lock").read_text()))
    build_pins = [pin for pin in pins if pin.partition("==")[0] in BUILD_REQUIREMENTS]
    path = ROOT / "pyproject.toml"
    text = replace_list(path.read_text(), "build-constraint-dependencies", build_pins)
    path.write_text(replace_list(text, "constraint-dependencies", pins))
    print(f"{len(pins)} versions pinned in {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
