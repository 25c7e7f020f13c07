"""Sections side by side: one that mostly waits beside one that mostly works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from matrix.jobs import STOPPING
from matrix.sections import Section

__all__ = ("Schedule",)


class Schedule:
    """Hands out sections to so many workers.

    Args:
        sections: What to run; where there is a choice, the first first.
        run: Runs one; returns whether all is well.
    """

    def __init__(self, sections: Sequence[Section], run: Callable[[Section], bool]) -> None:
        self._run: Final = run
        self._pending: Final = list(sections)
        self._running: Final[list[Section]] = []
        self._bad: Final[list[Section]] = []
        self._lock: Final = threading.Lock()

    def work(self, jobs: int) -> list[Section]:
        """Run everything; return what is not good, or was not begun because of an interrupt."""
        workers = [threading.Thread(target=self._work) for _ in range(jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [*self._bad, *self._pending]

    def _work(self) -> None:
        while (section := self._begin()) is not None:
            good = False
            try:
                good = self._run(section)
            finally:
                self._finish(section, good)

    def _begin(self) -> Section | None:
        with self._lock:
            if STOPPING.is_set() or not self._pending:
                return None
            section = self._choose()
            self._pending.remove(section)
            self._running.append(section)
            return section

    def _choose(self) -> Section:
        """Return the first that differs from those that run, or else the first."""
        kinds = {section.waits for section in self._running}
        return next((section for section in self._pending if section.waits not in kinds), self._pending[0])

    def _finish(self, section: Section, good: bool) -> None:
        with self._lock:
            self._running.remove(section)
            if not good:
                self._bad.append(section)
