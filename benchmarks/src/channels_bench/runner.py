"""Measuring: for each workload all systems in turn, round after round, so that noise falls on everybody alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any, Final

from channels_bench.catalogue import SYSTEMS
from channels_bench.measure import Measured
from channels_bench.outage import OUTAGE_AFTER, RATE, tally
from channels_bench.plan import Workload
from channels_bench.processes import Pool, WorkerError
from channels_bench.servers import Servers

__all__ = ("Runner",)

CALIBRATIONS: Final = 2
"""Rounds at most that look for the number of events; they warm up as well and do not count."""

GROWTH: Final = 50.0
"""The most that the number of events grows from one such round to the next."""

MAX_COUNT: Final = 400_000
"""Events of a round at most: what waits is kept in memory."""

FEEDERS: Final = {("feed", "redis"): "hiredis", ("feed", "postgres"): "asyncpg", ("crowd", "web"): "loop"}
"""Who feeds, by task and section, where it is not the system itself. The crowd's clients use no system."""


class Runner:
    """Measures workloads.

    Args:
        pool: The workers.
        servers: What is restarted in an outage.
        repeats: Rounds that count.
        shorten: What the length of a round is multiplied with.
        tick: Called after each system's round, with what comes next.
    """

    def __init__(
        self, pool: Pool, servers: Servers, *, repeats: int, shorten: float, tick: Callable[[str], None]
    ) -> None:
        self._pool: Final = pool
        self._servers: Final = servers
        self._repeats: Final = repeats
        self._shorten: Final = shorten
        self._tick: Final = tick

    def rounds(self, workload: Workload) -> int:
        """Return how many rounds count."""
        return min(self._repeats, workload.repeats or self._repeats)

    def ticks(self, workload: Workload) -> int:
        """Return how often `tick` will be called."""
        return len(workload.systems) * (self.rounds(workload) + (workload.seconds is not None))

    def measure(self, workload: Workload) -> dict[str, Measured]:
        """Return what each system reached."""
        if workload.fault:
            return self._outage(workload)
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

    def profile(self, workload: Workload, system: str) -> list[dict[str, Any]]:
        """Return the rows of one more round, which explain the value.

        Raises:
            WorkerError: It failed.
        """
        errors: dict[str, str] = {}
        self._pool.drop(system)  # nothing of the rounds before
        request = {"task": workload.profile} if workload.profile else {"profile": True}
        count = self._try(errors, system, self._calibrate, workload)
        if system in errors:
            raise WorkerError(errors[system])
        self._ask(system, workload, count, **request)
        rows: list[dict[str, Any]] = self._await(system, workload, count)["detail"]["rows"]
        self._pool.drop(system)
        return rows

    def _outage(self, workload: Workload) -> dict[str, Measured]:
        """Run all systems at once, on a channel each."""
        errors: dict[str, str] = {}
        for step in (self._prepare, self._follow, self._ready, self._connect, self._connected):
            self._all(errors, step, workload)
        self._servers.keep_data(True)
        self._all(errors, self._go, workload)
        in_time = self._restart(workload)
        sent = self._all(errors, self._sent, workload)
        self._all(errors, self._published, workload)
        got = self._all(errors, self._got, workload)
        self._servers.keep_data(False)
        if not in_time:
            errors = dict.fromkeys(workload.systems, "nobody published any more when the broker came back")
        for system in workload.systems:
            self._pool.drop(system)
        return {
            system: Measured(error=errors[system]) if system in errors else _counted(sent[system], got[system])
            for system in workload.systems
        }

    def _restart(self, workload: Workload) -> bool:
        """Return whether the outage was over while there was still something to publish."""
        began = time.monotonic()
        time.sleep(OUTAGE_AFTER)
        self._servers.restart()
        return time.monotonic() - began < workload.count / RATE

    def _all(self, errors: dict[str, str], step: Callable[..., Any], workload: Workload) -> dict[str, Any]:
        return {system: self._try(errors, system, step, workload) for system in workload.systems}

    def _prepare(self, system: str, workload: Workload) -> None:
        self._tick(f"{workload.name} · {SYSTEMS[system].label}")
        self._pool.worker(system)
        self._pool.worker(system, "feeder")

    def _follow(self, system: str, workload: Workload) -> None:
        self._ask(system, workload, workload.count, channel=_own_channel(system), last=True)

    def _ready(self, system: str, workload: Workload) -> None:
        self._pool.worker(system).answer(workload.patience)

    def _connect(self, system: str, workload: Workload) -> None:
        feeder = self._pool.worker(system, "feeder")
        feeder.ask(task=workload.feeder, count=workload.count, subscribers=1, channel=_own_channel(system), last=True)

    def _connected(self, system: str, workload: Workload) -> None:
        self._pool.worker(system, "feeder").answer(workload.patience)

    def _go(self, system: str, _workload: Workload) -> None:
        self._pool.worker(system, "feeder").ask(go=True)

    def _sent(self, system: str, workload: Workload) -> list[int]:
        accepted: list[int] = self._pool.worker(system, "feeder").answer(workload.patience)["detail"]["accepted"]
        return accepted

    def _published(self, system: str, _workload: Workload) -> None:
        self._pool.worker(system).ask(go=True)

    def _got(self, system: str, workload: Workload) -> list[int | None]:
        items: list[int | None] = self._pool.worker(system).answer(workload.patience)["detail"]["items"]
        return items

    def _ask(self, system: str, workload: Workload, count: int, **more: Any) -> None:
        request = {"task": workload.task, "count": count, "subscribers": workload.subscribers}
        self._pool.worker(system).ask(**request | {"warmup": workload.warmup} | more)

    def _await(self, system: str, workload: Workload, count: int) -> dict[str, Any]:
        worker = self._pool.worker(system)
        message = worker.answer(workload.patience)
        if "announced" in message:
            feeder = self._feed(system, workload, count, message["announced"]) if workload.feeder else None
            message = worker.answer(workload.patience)
            if feeder is not None:
                feeder.answer()
        return message

    def _feed(self, system: str, workload: Workload, count: int, facts: dict[str, Any]) -> Any:
        other = FEEDERS.get((workload.feeder, workload.section))
        if other is not None:
            facts = {"channel": SYSTEMS[system].wire_name} | facts
        feeder = self._pool.worker(system, "feeder", other or "")
        feeder.ask(task=workload.feeder, count=count, subscribers=workload.subscribers, **facts)
        return feeder


def _counted(accepted: list[int], items: list[int | None]) -> Measured:
    numbers = tally(accepted, items).numbers()
    return Measured((numbers["lost_silently"],), numbers)


def _own_channel(system: str) -> str:
    return f"outage_{system.replace('-', '_')}"


def _measured(samples: list[dict[str, Any]], error: str) -> Measured:
    if error:
        return Measured(error=error)
    names = {name for sample in samples for name in sample["extra"]}
    extra = {name: median(sample["extra"][name] for sample in samples) for name in sorted(names)}
    return Measured(tuple(sample["value"] for sample in samples), extra)
