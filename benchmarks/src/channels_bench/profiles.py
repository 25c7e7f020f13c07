"""Why a number is as it is: where the time of a round goes, and the memory of an idle subscriber."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import re
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, Final

from channels_bench.jobs import CHANNEL, SETTLE, Job, Sample
from channels_bench.systems.base import System

__all__ = ("idle_memory_lines", "profiled", "short")

ROWS: Final = 12

_ROOTS: Final = re.compile(r".*(?:site-packages|benchmarks/src|packages/[^/]+/src|lib/python\d[^/]*)/")


def profiled(work: Callable[[], Sample]) -> Sample:
    """Run the work under the profiler; its value counts no longer, its rows do."""
    profiler = cProfile.Profile()
    sample = profiler.runcall(work)
    return Sample(sample.value, sample.elapsed, sample.extra, {"rows": list(_functions(profiler))})


def _functions(profiler: cProfile.Profile) -> Iterator[dict[str, Any]]:
    """Yield the functions with the most time of their own, waiting for the network left out."""
    table: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined] # typeshed does not know it
    busy = {where: (calls, own) for where, (_, calls, own, _, _) in table.items() if not _waits(where)}
    total = sum(own for _, own in busy.values())
    for where in sorted(busy, key=lambda where: -busy[where][1])[:ROWS]:
        calls, own = busy[where]
        yield {"where": _name(*where), "calls": calls, "share": own / total if total else 0.0}


def _waits(where: tuple[str, int, str]) -> bool:
    return "poll' of 'select" in where[2] or "sleep" in where[2]


def _name(file: str, line: int, function: str) -> str:
    return function if file == "~" else f"{short(file)}:{line} {function}"


def short(file: str) -> str:
    """Return a file's name without anything of the machine in it."""
    return _ROOTS.sub("", file)


async def idle_memory_lines(system: System, job: Job) -> Sample:
    """Bytes that each line allocates per idle subscriber with its task, as `tracemalloc` counts them."""
    warm = [await system.subscribe(CHANNEL) for _ in range(100)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    streams = [await system.subscribe(CHANNEL) for _ in range(job.subscribers)]
    takers = [asyncio.create_task(stream.take(1)) for stream in streams]
    await asyncio.sleep(SETTLE)
    gc.collect()
    lines = tracemalloc.take_snapshot().compare_to(before, "lineno")
    tracemalloc.stop()
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)
    del warm
    total = sum(line.size_diff for line in lines)
    rows = [
        {
            "where": f"{short(line.traceback[0].filename)}:{line.traceback[0].lineno}",
            "calls": round(line.size_diff / job.subscribers),
            "share": line.size_diff / total,
        }
        for line in lines[:ROWS]
    ]
    return Sample(total / job.subscribers, SETTLE, detail={"rows": rows})
