"""A publisher and a subscriber in two processes, 2,000 events through each verb, and a fault in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from channels_harness.brokers import backend_url, start_broker
from channels_harness.faults import FAULTS, Target
from channels_harness.results import record
from channels_harness.twoprocess import Pair, Setup, Verdict

HISTORY: Final = 5_000
"""More than what is published while a broker is away."""

SINGLE: Final = ("cut", "cut-publisher", "restart", "stop", "half-open")
GROUP: Final = ("cut", "stop", "failover")


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
