"""One run of the command: measures workload after workload, shows progress, and keeps what is done already."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from channels_bench.catalogue import SYSTEMS
from channels_bench.environments import django_interpreter
from channels_bench.explain import unexplained
from channels_bench.goals import GOALS
from channels_bench.judging import judge
from channels_bench.plan import Workload
from channels_bench.processes import Pool, WorkerError
from channels_bench.runner import Runner
from channels_bench.servers import Servers
from channels_bench.store import describe, merge, merge_profile, results_of, save
from channels_bench.tables import table

__all__ = ("Session",)

QUICK: Final = 0.2
"""What ``--quick`` makes of the length of a round."""


@dataclass
class Session:
    """What is to be done.

    Args:
        workloads: In this order.
        quick: One short round each.
        repeats: Rounds at most of each workload.
        profile: Whether goals that are not met are profiled.
        stored: Earlier results, completed as the run goes on.
        file: Where they are saved after each workload.
        console: Where progress and tables are shown.
    """

    workloads: Sequence[Workload]
    quick: bool
    repeats: int
    profile: bool
    stored: dict[str, Any]
    file: Path
    console: Console

    def run(self) -> None:
        """Measure everything, then look for the reasons of what is not as it should be."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with (
            Servers() as servers,
            Progress(*columns, console=self.console) as bar,
            closing(Pool(servers, django_interpreter)) as pool,
        ):
            runner = self._runner(servers, pool, bar)
            section = ""
            for workload in self.workloads:
                if workload.section != section:
                    section = workload.section
                    pool.close()
                self._measure(workload, runner, servers)
            pool.close()
            if self.profile:
                self._explain(runner, bar)

    def _runner(self, servers: Servers, pool: Pool, bar: Progress) -> Runner:
        task = bar.add_task("starting", total=None)
        runner = Runner(
            pool,
            servers,
            repeats=1 if self.quick else self.repeats,
            shorten=QUICK if self.quick else 1.0,
            tick=lambda what: bar.update(task, description=what[:60], advance=1),
        )
        bar.update(task, total=sum(runner.ticks(each) for each in self.workloads))
        return runner

    def _measure(self, workload: Workload, runner: Runner, servers: Servers) -> None:
        started = time.monotonic()
        measured = runner.measure(workload)
        servers.sweep()
        self.console.print(table(workload, measured))
        facts = describe(servers.versions(), quick=self.quick, repeats=1 if self.quick else self.repeats)
        facts["seconds"] = round(time.monotonic() - started, 1)
        merge(self.stored, workload.name, measured, facts)
        save(self.file, self.stored)

    def _explain(self, runner: Runner, bar: Progress) -> None:
        by_name = {each.name: each for each in self.workloads}
        missed = unexplained(list(judge(results_of(self.stored), GOALS)))
        wanted = [(by_name[name], system) for name, system in missed if name in by_name]
        for workload, system in bar.track(wanted, description="profiling"):
            try:
                merge_profile(self.stored, workload.name, system, runner.profile(workload, system))
            except WorkerError as exc:
                self.console.print(f"no profile of {SYSTEMS[system].label} in {workload.name}: {exc}")
        save(self.file, self.stored)
