"""Measuring: for each workload all systems in turn, round after round, so that noise falls on everybody alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any, Final

from channels_bench.catalogue import SYSTEMS
from channels_bench.measure import Measured
from channels_bench.plan import Workload
from channels_bench.processes import Pool, WorkerError

__all__ = ("Runner",)

CALIBRATIONS: Final = 3
"""Rounds at most that look for the number of events; they warm up as well and do not count."""

GROWTH: Final = 50.0
"""The most that the number of events grows from one such round to the next."""

MAX_COUNT: Final = 400_000
"""Events of a round at most: what waits is kept in memory."""

FEEDERS: Final = {"redis": "hiredis", "postgres": "asyncpg"}


class Runner:
    """Measures workloads.

    Args:
        pool: The workers.
        repeats: Rounds that count.
        shorten: What the length of a round is multiplied with.
        tick: Called after each system's round, with what comes next.
    """

    def __init__(self, pool: Pool, *, repeats: int, shorten: float, tick: Callable[[str], None]) -> None:
        self._pool: Final = pool
        self._repeats: Final = repeats
        self._shorten: Final = shorten
        self._tick: Final = tick

    def rounds(self, workload: Workload) -> int:
        """Return how many rounds count."""
        return min(self._repeats, workload.repeats or self._repeats)

    def measure(self, workload: Workload) -> dict[str, Measured]:
        """Return what each system reached."""
        errors: dict[str, str] = {}
        counts = {system: self._try(errors, system, self._calibrate, workload) for system in workload.systems}
        samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in range(self.rounds(workload)):
            self._round(workload, number, counts, samples, errors)
        return {system: _measured(samples[system], errors.get(system, "")) for system in workload.systems}

    def _round(
        self,
        workload: Workload,
        number: int,
        counts: dict[str, Any],
        samples: dict[str, list[dict[str, Any]]],
        errors: dict[str, str],
    ) -> None:
        alive = [system for system in workload.systems if system not in errors]
        if workload.together:
            for system in alive:
                self._try(errors, system, self._ask, workload, counts[system])
        shift = number % max(1, len(alive))
        for system in alive[shift:] + alive[:shift]:
            self._tick(f"{workload.name} · {SYSTEMS[system].label}")
            step = self._await if workload.together else self._sample
            sample = self._try(errors, system, step, workload, counts[system])
            if sample is not None:
                samples[system].append(sample)

    def _try(self, errors: dict[str, str], system: str, step: Callable[..., Any], *arguments: Any) -> Any:
        if system in errors:
            return None
        try:
            return step(system, *arguments)
        except (WorkerError, OSError) as exc:
            errors[system] = str(exc)
            self._pool.drop(system)
            return None

    def _calibrate(self, system: str, workload: Workload) -> int:
        count = workload.count
        if workload.seconds is None:
            return count
        self._tick(f"{workload.name} · {SYSTEMS[system].label}")
        wanted = workload.seconds * self._shorten
        for _ in range(CALIBRATIONS):
            elapsed = self._sample(system, workload, count)["elapsed"]
            growth = min(GROWTH, wanted / max(elapsed, 1e-6))
            count = max(2, min(MAX_COUNT, int(count * growth)))
            if growth < 4:
                break
        return count

    def _sample(self, system: str, workload: Workload, count: int) -> dict[str, Any]:
        if workload.fresh:
            self._pool.drop(system)
        self._ask(system, workload, count)
        return self._await(system, workload, count)

    def _ask(self, system: str, workload: Workload, count: int) -> None:
        self._pool.worker(system).ask(task=workload.task, count=count, subscribers=workload.subscribers)

    def _await(self, system: str, workload: Workload, count: int) -> dict[str, Any]:
        worker = self._pool.worker(system)
        message = worker.answer(workload.patience)
        if "announced" in message:
            feeder = self._feed(system, workload, count) if workload.feeder else None
            message = worker.answer(workload.patience)
            if feeder is not None:
                feeder.answer()
        return message

    def _feed(self, system: str, workload: Workload, count: int) -> Any:
        own = workload.feeder != "feed"
        feeder = self._pool.worker(system if own else FEEDERS[workload.section], "feeder")
        channel = {} if own else {"channel": SYSTEMS[system].wire_name}
        feeder.ask(task=workload.feeder, count=count, subscribers=1, **channel)
        return feeder


def _measured(samples: list[dict[str, Any]], error: str) -> Measured:
    if error:
        return Measured(error=error)
    names = {name for sample in samples for name in sample["extra"]}
    extra = {name: median(sample["extra"][name] for sample in samples) for name in sorted(names)}
    return Measured(tuple(sample["value"] for sample in samples), extra)
