"""The command: starts servers and workers, shows progress, writes tables, results, plots and the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from channels_bench.environments import bring_peers
from channels_bench.goals import GOALS
from channels_bench.judging import judge
from channels_bench.page import write_page
from channels_bench.plan import WORKLOADS, select
from channels_bench.plots import draw
from channels_bench.session import Session
from channels_bench.store import load, results_of

__all__ = ("main",)

DOCS: Final = Path(__file__).resolve().parents[3] / "docs" / "explanation"


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
    session = Session(
        workloads,
        quick=options.quick,
        repeats=options.repeats,
        profile=not options.quick if options.profile is None else options.profile,
        stored=load(options.output / "performance.json"),
        file=options.output / "performance.json",
        console=Console(),
    )
    session.run()
    _conclude(session.stored, options.output, session.console)
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


def _conclude(stored: dict[str, Any], output: Path, console: Console) -> None:
    results = results_of(stored)
    page = write_page(stored, draw(results, output / "performance"))
    (output / "performance.md").write_text(page)
    for verdict in judge(results, GOALS):
        mark = "[green]met[/]" if verdict.met else f"[red]not met[/] ({verdict.share:.0%})"
        console.print(f"{mark} {verdict.goal.text}: {verdict.value:.3g}{verdict.goal.unit}")
    console.print(f"wrote {output / 'performance.md'}")
