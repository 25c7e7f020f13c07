"""A publisher and a subscriber in two processes, 2,000 events through each verb, and a fault in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from channels_core.testing import FaultSchedule
from channels_harness.brokers import backend_url, start_broker
from channels_harness.faults import FAULTS, Fault, Target
from channels_harness.results import record
from channels_harness.twoprocess import Pair, Setup, Verdict

HISTORY: Final = 5_000
"""More than what is published while a broker is away."""

SINGLE: Final = ("cut", "cut-publisher", "restart", "stop", "half-open")
GROUP: Final = ("cut", "stop", "failover")

RECONNECT: Final = 15.0
"""Seconds within which both processes have a connection again; only against hanging."""

SEEDS: Final = range(3)


@dataclass(frozen=True, slots=True)
class Case:
    """One backend under one fault."""

    name: str
    server: str
    variant: str
    fault: str
    history: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.fault}"

    def url(self, broker_url: str) -> str:
        return backend_url(broker_url, self.variant, **({"history": HISTORY} if self.history else {}))

    @property
    def loses_memory(self) -> bool:
        """Whether acknowledged events may be lost: the new primary may lag behind the old one."""
        return self.server in ("cluster", "sentinel") and self.fault in ("stop", "failover")

    def reasons(self) -> list[list[str]]:
        """Return the gaps that a channel may have, by their reasons."""
        if self.fault == "cut-publisher":
            expected = []
        elif not self.history:
            expected = ["disconnected"]
        elif self.loses_memory or (self.server == "valkey9" and self.fault == "restart"):
            expected = ["epoch"]
        else:
            expected = []
        # In a cluster a fault may spare the shard of a channel.
        return [expected, []] if self.server == "cluster" else [expected]


def cases() -> Iterator[Case]:
    for name, server, variant in (
        ("redis", "valkey9", ""),
        ("asyncpg", "postgres18", "asyncpg"),
        ("psycopg", "postgres18", "psycopg"),
        ("cluster", "cluster", ""),
        ("sentinel", "sentinel", ""),
    ):
        streams = {"asyncpg": "asyncpg", "psycopg": "psycopg"}.get(variant, "streams")
        for fault in GROUP if server in ("cluster", "sentinel") else SINGLE:
            yield Case(name, server, variant, fault, history=False)
            yield Case(f"{name}+history", server, streams, fault, history=True)


def name(case: Case) -> str:
    return case.name


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", list(cases()), ids=str)
async def test_nothing_is_lost_silently(case: Case) -> None:
    """With history all events come once and in order; without, those of an outage lie inside one announced gap."""
    with ExitStack() as stack:
        broker = await asyncio.to_thread(start_broker, case.server, stack)
        target = Target(broker, Setup("").probe)
        url = target.through_proxy(stack) if case.fault == "half-open" else broker.url
        async with Pair.started(Setup(case.url(url))) as pair:
            await pair.received(1_000)
            moments = await FAULTS[case.fault](target, pair, stack)
            verdict = await pair.finish()
        report(case, broker.version, verdict, verdict.recovery(moments.broken, moments.mended))
        judge(case, verdict)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS, ids="seed{}".format)
@pytest.mark.parametrize("case", [case for case in cases() if case.fault == "stop" and not case.loses_memory], ids=name)
async def test_several_faults_in_an_order_that_a_seed_decides(case: Case, seed: int) -> None:
    """However faults follow each other, all events come once and in order, or lie inside announced gaps."""
    schedule = FaultSchedule.plan(seed, ("cut", "cut-publisher", "kill", "freeze"), count=4, within=3.0)
    try:
        with ExitStack() as stack:
            broker = await asyncio.to_thread(start_broker, case.server, stack)
            target = Target(broker, Setup("").probe)
            async with Pair.started(Setup(case.url(broker.url))) as pair:
                await pair.received(1_000)
                await schedule.run(actions(target, pair, stack))
                verdict = await pair.finish()
        verdict.verify(history=case.history)
        if case.history:
            verdict.verify_complete()
    except Exception as exc:
        exc.add_note(f"seed {seed}: {schedule}")
        raise


def actions(target: Target, pair: Pair, stack: ExitStack) -> dict[str, Callable[[float], Awaitable[None]]]:
    """Return the faults of a schedule, which decides how long they last."""

    async def run(fault: Fault, _: float) -> None:
        # A client that is between two connections cannot be cut: then the cut comes as soon as there is one again.
        async with asyncio.timeout(RECONNECT):
            while not await cuts_something(fault):  # noqa: ASYNC110 - other processes decide
                await asyncio.sleep(0.05)

    async def cuts_something(fault: Fault) -> bool:
        with suppress(AssertionError):
            await fault(target, pair, stack)
            return True
        return False

    async def kill(lasts: float) -> None:
        await asyncio.to_thread(target.server.kill)
        await asyncio.sleep(lasts)
        await asyncio.to_thread(target.server.start)

    async def freeze(lasts: float) -> None:
        target.server.pause()
        await asyncio.sleep(lasts)
        target.server.resume()

    cuts = {fault: partial(run, FAULTS[fault]) for fault in ("cut", "cut-publisher")}
    return {**cuts, "kill": kill, "freeze": freeze}


def judge(case: Case, verdict: Verdict) -> None:
    verdict.verify(history=case.history)
    if case.history and not case.loses_memory:
        verdict.verify_complete()
    gaps = verdict.gaps()
    assert all(reasons in case.reasons() for reasons in gaps.values()), gaps
    assert any(gaps.values()) == any(case.reasons()), gaps


def report(case: Case, version: str, verdict: Verdict, recovery: float) -> None:
    record(
        kind="fault",
        backend=case.name,
        fault=case.fault,
        broker=version,
        published=2 * verdict.setup.count,
        received=verdict.received(),
        repeated=verdict.repeated(),
        gaps=verdict.gaps(),
        recovery=round(recovery, 2),
    )
