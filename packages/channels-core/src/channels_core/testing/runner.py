"""Run a rule in an event loop of its own and look for what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import msgspec

from channels_core.testing.registry import INSTANCES, RULES, Instances, NotApplicable, NotProved, Rule, RuleBroken
from channels_core.testing.stage import Stage, turns
from channels_core.testing.subject import Subject

__all__ = ("Outcome", "Status", "prove", "prove_all", "prove_together")

Status = Literal["passed", "failed", "not applicable", "not proved"]

RULE_TIMEOUT: Final = 120.0
"""Seconds after which a rule counts as hanging; every call inside has a shorter deadline of its own."""

_SETTLE: Final = 0.01
"""Seconds between two looks at the broker's connections: it notices a closed one a little later."""

_IGNORED: Final = (DeprecationWarning, PendingDeprecationWarning)
"""What a driver will change one day is nothing that the backend leaves behind."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one rule.

    Attributes:
        rule: The rule.
        instances: In which way it ran.
        status: Passed; failed; not applicable to such a backend; not proved because something is missing.
        detail: Why, unless it passed.
        error: The exception of a failed rule.
        seconds: How long it took.
    """

    rule: Rule
    instances: Instances
    status: Status
    detail: str = ""
    error: BaseException | None = None
    seconds: float = 0.0


def prove(rule: Rule, subject: Subject, instances: Instances) -> Outcome:
    """Try one rule in a fresh event loop; never raises because of the backend."""

    def run() -> None:
        rule.require(subject)
        _run(_on_stage(rule, subject, several=instances == "several"), [subject])

    return _judged(rule, instances, run)


def prove_all(subject: Subject) -> Iterator[Outcome]:
    """Try every rule with one instance and with several, one after the other."""
    for rule in RULES.values():
        for instances in INSTANCES:
            yield prove(rule, subject, instances)


def prove_together(rule: Rule, subjects: Sequence[Subject]) -> list[Outcome]:
    """Try one rule on several subjects at once, in one event loop: one window of idleness for all of them.

    What is left behind, or told to the event loop, may be anybody's: it fails all of them.
    """
    errors: list[BaseException | None] = [None] * len(subjects)

    async def all_at_once() -> None:
        runs = [_on_stage(rule, subject, several=True) for subject in subjects]
        errors[:] = await asyncio.gather(*runs, return_exceptions=True)

    for subject in subjects:
        rule.require(subject)
    common: Exception | None = None
    try:
        _run(all_at_once(), subjects)
    except Exception as exc:
        common = exc
    return [_judged(rule, "several", partial(_reraise, error or common)) for error in errors]


def _judged(rule: Rule, instances: Instances, run: Callable[[], None]) -> Outcome:
    start = time.perf_counter()
    status: Status = "passed"
    detail, error = "", None
    try:
        run()
    except NotApplicable as exc:
        status, detail = "not applicable", str(exc)
    except NotProved as exc:
        status, detail = "not proved", str(exc)
    except Exception as exc:
        status, detail, error = "failed", _told(exc), exc
    return Outcome(rule, instances, status, detail, error, time.perf_counter() - start)


def _run(body: Coroutine[Any, Any, None], subjects: Sequence[Subject]) -> None:
    """Run it in a fresh event loop that hears and finds what is left behind."""
    with _no_warnings(), asyncio.Runner() as runner:
        complaints: list[str] = []
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(_complaint(context)))
        runner.run(_without_leaks(body, subjects))
        gc.collect()
        if complaints:
            raise RuleBroken(f"the event loop was told: {'; '.join(complaints)}")


async def _on_stage(rule: Rule, subject: Subject, *, several: bool) -> None:
    async with asyncio.timeout(RULE_TIMEOUT), Stage(subject, several=several) as stage:
        await rule.body(stage)


async def _without_leaks(body: Coroutine[Any, Any, None], subjects: Sequence[Subject]) -> None:
    connections = [await subject.connection_count() if subject.connection_count else 0 for subject in subjects]
    tasks = asyncio.all_tasks()
    await body
    await turns()
    left = asyncio.all_tasks() - tasks
    if left:
        raise RuleBroken(f"tasks are left after on_shutdown: {sorted(task.get_name() for task in left)} {left}")
    for subject, expected in zip(subjects, connections, strict=True):
        if subject.connection_count is not None:
            await _settled(subject.connection_count, expected, subject.call_timeout)


async def _settled(count: Callable[[], Awaitable[int]], expected: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while (now := await count()) > expected:
        if time.monotonic() > deadline:
            raise RuleBroken(f"{now - expected} connections are left after on_shutdown")
        await asyncio.sleep(_SETTLE)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Frozen, older garbage stays out of this rule's account, and collecting costs little.
        gc.freeze()
        try:
            yield
            gc.collect()
        finally:
            gc.unfreeze()
    seen = [warning for warning in caught if not issubclass(warning.category, _IGNORED)]
    if seen:
        raise RuleBroken(f"warned: {'; '.join(str(warning.message) for warning in seen)}")


def _complaint(context: dict[str, Any]) -> str:
    culprit = context.get("task") or context.get("future") or context.get("handle") or ""
    return f"{context.get('message')} {context.get('exception')!r} {culprit}".rstrip()


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, RuleBroken) else f"{type(error).__name__}: {error}"


def _reraise(error: BaseException | None) -> None:
    if error is not None:
        raise error
