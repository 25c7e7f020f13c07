"""The process in which one system is measured: reads jobs as lines of JSON, answers with lines of JSON.

Runs in another interpreter too, so it imports nothing but the standard library and the adapter that it is told.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from channels_bench.jobs import CHANNEL, Job, Sample
from channels_bench.profiles import profiled
from channels_bench.systems.base import System
from channels_bench.tasks import TASKS

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Serve until the input ends."""
    logging.disable(logging.ERROR)
    say = _claim_output()
    make = _load(sys.argv[1])
    url = sys.argv[2]
    say({"ready": True})
    for line in sys.stdin:
        say(_answer(make(url), json.loads(line), say))


def _claim_output() -> Say:
    """Keep the pipe for answers; whatever a system prints goes to the error output."""
    out: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=out)


def _load(target: str) -> Callable[[str], System]:
    module, _, name = target.partition(":")
    made: Callable[[str], System] = getattr(importlib.import_module(f"channels_bench.systems.{module}"), name)
    return made


def _answer(system: System, request: dict[str, Any], say: Say) -> dict[str, Any]:
    try:
        sample = _work(system, request, say)
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"[:300]}
    finally:
        gc.collect()
    return asdict(sample)


def _work(system: System, request: dict[str, Any], say: Say) -> Sample:
    if request.get("profile"):
        return profiled(lambda: asyncio.run(_run(system, request, say)))
    return asyncio.run(_run(system, request, say))


async def _run(system: System, request: dict[str, Any], say: Say) -> Sample:
    job = Job(
        count=request["count"],
        subscribers=request["subscribers"],
        announce=lambda **facts: say({"announced": facts}),
        told=lambda: asyncio.to_thread(sys.stdin.readline),
        channel=request.get("channel", CHANNEL),
        warmup=request.get("warmup", 0),
    )
    await system.start()
    if request.get("last"):
        # Nothing is stopped: a system that an outage has broken may never come to an end.
        say(asdict(await TASKS[request["task"]](system, job)))
        os._exit(0)
    try:
        return await TASKS[request["task"]](system, job)
    finally:
        await system.stop()


if __name__ == "__main__":
    main()
