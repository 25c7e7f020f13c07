"""The file of a run's results: what is measured later replaces its own rows and leaves the others."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from channels_bench.measure import Measured, Results

__all__ = ("describe", "load", "merge", "merge_profile", "results_of", "save")

_PACKAGES = (
    "asyncpg", "broadcaster", "faststream", "hiredis", "litestar", "msgspec", "psycopg", "redis",
)  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    """Return what earlier runs measured."""
    if not path.exists():
        return {"workloads": {}}
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def save(path: Path, stored: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(stored, indent=1) + "\n")
    draft.replace(path)


def describe(servers: list[str], *, quick: bool, repeats: int) -> dict[str, Any]:
    """Return the facts that a number means nothing without."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "load": round(os.getloadavg()[0], 1),
        "servers": servers,
        "packages": {name: version(name) for name in _PACKAGES},
        "quick": quick,
        "repeats": repeats,
    }


def merge(stored: dict[str, Any], workload: str, measured: Mapping[str, Measured], facts: Mapping[str, Any]) -> None:
    """Put one workload in, and forget the profiles that explained its former numbers."""
    stored.get("profiles", {}).pop(workload, None)
    rows = {
        name: {"samples": list(each.samples), "extra": dict(each.extra), "error": each.error}
        for name, each in measured.items()
    }
    stored["workloads"][workload] = {"facts": dict(facts), "systems": rows}


def merge_profile(stored: dict[str, Any], workload: str, system: str, rows: list[dict[str, Any]]) -> None:
    """Put the profile of one system in one workload in."""
    stored.setdefault("profiles", {}).setdefault(workload, {})[system] = rows


def results_of(stored: Mapping[str, Any]) -> Results:
    """Return the numbers."""
    return {
        workload: {
            name: Measured(tuple(row["samples"]), row["extra"], row["error"]) for name, row in entry["systems"].items()
        }
        for workload, entry in stored["workloads"].items()
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
