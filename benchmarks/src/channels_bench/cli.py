"""The command: starts servers and workers, shows progress, writes tables, results, plots and the page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from channels_bench.catalogue import SYSTEMS
from channels_bench.environments import bring_peers, django_interpreter
from channels_bench.explain import unexplained
from channels_bench.goals import GOALS
from channels_bench.judging import judge
from channels_bench.measure import Measured, ratio
from channels_bench.page import write_page
from channels_bench.plan import WORKLOADS, Workload, select
from channels_bench.plots import draw
from channels_bench.processes import Pool, WorkerError
from channels_bench.runner import Runner
from channels_bench.servers import Servers
from channels_bench.store import describe, load, merge, merge_profile, results_of, save

__all__ = ("main",)

DOCS: Final = Path(__file__).resolve().parents[3] / "docs" / "explanation"

QUICK: Final = 0.2
"""What ``--quick`` makes of the length of a round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write what was measured."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.list:
        for each in WORKLOADS:
            print(each.name)
        return 0
    bring_peers(arguments)
    workloads = select(options.only, quick=options.quick)
    if not workloads:
        raise SystemExit(f"no workload is called {', '.join(options.only)}; --list shows all")
    console = Console()
    stored = load(options.output / "performance.json")
    _measure(workloads, options, console, stored)
    _conclude(stored, options.output, console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="channels-bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the main workloads only, in less than a minute")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="only workloads whose names begin so ('redis', 'redis/publish'); the others keep their results",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each workload at most (default: 5)")
    parser.add_argument(
        "--profile", action=argparse.BooleanOptionalAction, default=None,
        help="profile what misses its goal, for the page (default: unless --quick)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the workloads")
    parser.add_argument(
        "--output", type=Path, default=DOCS, metavar="FOLDER", help="where page, results and plots go (default: docs)"
    )
    return parser


def _measure(
    workloads: Sequence[Workload], options: argparse.Namespace, console: Console, stored: dict[str, Any]
) -> None:
    repeats = 1 if options.quick else options.repeats
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    with Servers() as servers, bar, closing(Pool(servers, django_interpreter)) as pool:
        task = bar.add_task("starting", total=None)
        runner = Runner(
            pool,
            servers.restart,
            repeats=repeats,
            shorten=QUICK if options.quick else 1.0,
            tick=lambda what: bar.update(task, description=what[:60], advance=1),
        )
        bar.update(task, total=sum(_ticks(each, runner) for each in workloads))
        section = ""
        for workload in workloads:
            if workload.section != section:
                section = workload.section
                pool.close()
            started = time.monotonic()
            measured = runner.measure(workload)
            servers.sweep()
            bar.console.print(_table(workload, measured))
            facts = describe(servers.versions(), quick=options.quick, repeats=repeats)
            facts["seconds"] = round(time.monotonic() - started, 1)
            merge(stored, workload.name, measured, facts)
            save(options.output / "performance.json", stored)
        if options.profile or (options.profile is None and not options.quick):
            pool.close()
            _profile(workloads, runner, stored, bar)
            save(options.output / "performance.json", stored)


def _profile(workloads: Sequence[Workload], runner: Runner, stored: dict[str, Any], bar: Progress) -> None:
    """Look for the reasons why goals of these workloads are not met."""
    by_name = {each.name: each for each in workloads}
    wanted = [pair for pair in unexplained(list(judge(results_of(stored), GOALS))) if pair[0] in by_name]
    for name, system in bar.track(wanted, description="profiling"):
        try:
            merge_profile(stored, name, system, runner.profile(by_name[name], system))
        except WorkerError as exc:
            bar.console.print(f"no profile of {SYSTEMS[system].label} in {name}: {exc}")


def _ticks(workload: Workload, runner: Runner) -> int:
    return len(workload.systems) * (runner.rounds(workload) + (workload.seconds is not None))


def _conclude(stored: dict[str, Any], output: Path, console: Console) -> None:
    results = results_of(stored)
    page = write_page(stored, draw(results, output / "performance"))
    (output / "performance.md").write_text(page)
    for verdict in judge(results, GOALS):
        mark = "[green]met[/]" if verdict.met else f"[red]not met[/] ({verdict.share:.0%})"
        console.print(f"{mark} {verdict.goal.text}: {verdict.value:.3g}{verdict.goal.unit}")
    console.print(f"wrote {output / 'performance.md'}")


def _table(workload: Workload, measured: dict[str, Measured]) -> Table:
    if workload.columns:
        return _counts(workload, measured)
    table = Table(title=f"{workload.name}: {workload.title}", title_justify="left")
    for head in ("system", "kind", workload.unit, "±", "ours is times better"):
        table.add_column(head, justify="left" if head in ("system", "kind") else "right")
    ours = next(measured[name].value for name in workload.systems if SYSTEMS[name].kind == "ours")
    for name, each in measured.items():
        entry = SYSTEMS[name]
        if each.value is None:
            table.add_row(entry.label, entry.kind, each.error[:60])
            continue
        against = ratio(ours, each.value, higher_is_better=workload.higher_is_better) if ours is not None else None
        table.add_row(
            entry.label, entry.kind, f"{each.value:,.4g}" if each.value < 100 else f"{each.value:,.0f}",
            f"{each.spread:.0%}", "" if against is None else f"{against:.2f}",
        )  # fmt: skip
    return table


def _counts(workload: Workload, measured: dict[str, Measured]) -> Table:
    table = Table(title=f"{workload.name}: {workload.title}", title_justify="left")
    for head in ("system", "kind", *workload.columns):
        table.add_column(head.replace("_", " "), justify="left" if head in ("system", "kind") else "right")
    for name, each in measured.items():
        entry = SYSTEMS[name]
        cells = [each.error[:60]] if each.value is None else [f"{each.extra[key]:.0f}" for key in workload.columns]
        table.add_row(entry.label, entry.kind, *cells)
    return table
