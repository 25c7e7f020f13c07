"""What has been run on which commit, kept between interrupted runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from matrix.machine import CHANGES, WORK, tested_commit

__all__ = ("Moved", "Outcome", "State")


class Moved(Exception):
    """What is under test is not what the run began with."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step went."""

    section: str
    step: str
    passed: int
    failed: int
    skipped: int
    not_proved: int
    seconds: float
    brokers: tuple[str, ...]
    complaint: str

    @property
    def is_good(self) -> bool:
        """Whether it counts as proved."""
        return not self.complaint


class State:
    """Outcomes of one commit, one file each, so that a resume runs only what is missing.

    Changes that are not committed have no name that would tell them from others: a run with them begins anew.
    """

    def __init__(self, commit: str) -> None:
        self.commit: Final = commit
        self.folder: Final = WORK / commit
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, section: str, step: str, suffix: str) -> Path:
        """Return where a file of a step belongs."""
        return self.folder / f"{section}.{step.replace(' ', '-')}.{suffix}"

    def get(self, section: str, step: str) -> Outcome | None:
        """Return how a step went, or ``None`` when it has not been run."""
        path = self.path(section, step, "json")
        return _load(json.loads(path.read_text("utf-8"))) if path.exists() else None

    def forget_changes(self) -> None:
        """Forget everything, unless it belongs to a commit."""
        if self.commit.endswith(CHANGES):
            for suffix in ("json", "results"):
                for path in self.folder.glob(f"*.{suffix}"):
                    path.unlink(missing_ok=True)

    def put(self, outcome: Outcome) -> None:
        """Remember how a step went.

        Raises:
            Moved: It was not, or not only, the commit of this state that was tested.
        """
        now = tested_commit()
        if now != self.commit:
            raise Moved(f"{now} is here now, the run began with {self.commit}: nothing of this step counts")
        path = self.path(outcome.section, outcome.step, "json")
        # Whole or not at all: another process may be looking.
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(outcome)), "utf-8")
        part.replace(path)

    @contextmanager
    def running(self, section: str, step: str) -> Iterator[None]:
        """Say that a step is running, to whoever asks from another process."""
        path = self.path(section, step, "running")
        path.write_text(str(os.getpid()), "utf-8")
        try:
            yield
        finally:
            path.unlink()

    def running_for(self, section: str, step: str) -> float | None:
        """Return for how many seconds a step has been running, or ``None`` when it is not."""
        path = self.path(section, step, "running")
        try:
            alive = Path("/proc", path.read_text("utf-8")).exists()
            return time.time() - path.stat().st_mtime if alive else None
        except FileNotFoundError:
            return None

    def rows(self) -> list[dict[str, Any]]:
        """Return what the tests of all sections have recorded."""
        files = sorted(self.folder.glob("*.results"))
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def _load(fields: dict[str, Any]) -> Outcome:
    return Outcome(**fields | {"brokers": tuple(fields["brokers"])})
