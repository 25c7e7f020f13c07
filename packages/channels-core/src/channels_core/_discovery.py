"""Entry points of installed distributions, and words for the ones that cannot be loaded."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Final

__all__ = ("find_distribution", "find_entry_points", "load_problem", "owner")

_EXTRA_REQUIREMENT: Final = re.compile(r"""^([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*["']([^"']+)["']""")
"""One optional requirement in a distribution's metadata.

Source: Core metadata specification 2.4, `Requires-Dist` and `Provides-Extra`.
"""


def find_entry_points(group: str) -> dict[str, list[EntryPoint]]:
    """Return the group's entry points by name, sorted; nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry_point in sorted(entry_points(group=group), key=lambda each: (each.name, owner(each))):
        found.setdefault(entry_point.name, []).append(entry_point)
    return found


def owner(entry_point: EntryPoint) -> str:
    """Return the name and version of the distribution that registers the entry point."""
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist else "unknown distribution"


def find_distribution(name: str) -> Distribution | None:
    """Return an installed distribution, or ``None``."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def load_problem(entry_point: EntryPoint, error: BaseException) -> str:
    """Say in one line why the entry point could not be loaded and, where known, what to install."""
    problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    requirement = _missing_extra(entry_point, error)
    return f"{problem}; install it with: pip install {requirement!r}" if requirement else problem


def _missing_extra(entry_point: EntryPoint, error: BaseException) -> str | None:
    """Return ``distribution[extra]`` where the missing module is an optional requirement of the distribution."""
    if not (isinstance(error, ModuleNotFoundError) and error.name and entry_point.dist):
        return None
    missing = error.name.partition(".")[0].replace("_", "-").lower()
    for line in entry_point.dist.requires or ():
        match = _EXTRA_REQUIREMENT.match(line)
        if match and match[1].replace("_", "-").lower() == missing:
            return f"{entry_point.dist.name}[{match[2]}]"
    return None
