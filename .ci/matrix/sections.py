"""What the full run consists of. A section takes less than ten minutes on two cores; a step is what a resume skips."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matrix.images import engine
from matrix.machine import ROOT, install, make_environment

REDIS_SERVERS: Final = ("valkey9", "redis62", "redis70", "tls", "cluster", "sentinel")
POSTGRES_SERVERS: Final = ("postgres18", "postgres15")

FAULTS: Final = {
    "redis": "redis",
    "asyncpg": "asyncpg",
    "psycopg": "psycopg",
    "cluster": "cluster",
    "sentinel": "sentinel",
}
"""Section → which cases of the fault test, by their names."""

_TWO_PROCESSES: Final = "integration-tests/test_two_processes.py"
_MEMORY_KIT: Final = "packages/channels-core/tests/testing/test_memory.py"

_WORKSPACE_PYTHON: Final = str(ROOT / ".venv" / "bin" / "python")

Preparation = Callable[[], AbstractContextManager[dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Step:
    """One run of pytest.

    Attributes:
        name: Unique in its section.
        arguments: For pytest.
        python: Returns the interpreter's path; may make its environment first.
        proof: What the header must say, so that a run with another broker than the intended one fails.
    """

    name: str
    arguments: tuple[str, ...]
    python: Callable[[], str] = lambda: _WORKSPACE_PYTHON
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Steps that need the same things.

    Attributes:
        name: For the command line.
        steps: In their order.
        prepare: Gives what to add to the steps' environment, and tidies up after them.
    """

    name: str
    steps: tuple[Step, ...]
    prepare: Preparation


def sections() -> list[Section]:
    """Return all sections in the order in which they run."""
    return [
        Section("unit-a", _repeats("packages", range(1, 11)), _nothing),
        Section("unit-b", _repeats("packages", range(11, 21)), _nothing),
        Section("kit-memory", _repeats(_MEMORY_KIT, range(1, 21)), _nothing),
        *(
            Section(f"kit-{name}", (_suite("redis_backends", "redis", name),), _debian_servers)
            for name in REDIS_SERVERS
        ),
        *(
            Section(f"kit-{name}", (_suite("postgres", "postgres", name),), _debian_servers)
            for name in POSTGRES_SERVERS
        ),
        Section("drivers-redis", tuple(_driver_steps("redis", "channels-redis", "redis_backends")), _nothing),
        Section("drivers-psycopg", tuple(_driver_steps("psycopg", "channels-postgres", "postgres")), _nothing),
        *(Section(f"faults-{name}", (_faults(words),), _nothing) for name, words in FAULTS.items()),
        Section("testcontainers", tuple(_container_steps()), engine),
        *_random_sections(),
    ]


def _repeats(target: str, seeds: range) -> tuple[Step, ...]:
    return tuple(Step(f"order {seed}", (target, f"--randomly-seed={seed}")) for seed in seeds)


def _suite(folder: str, broker: str, server: str) -> Step:
    return Step("all", (f"integration-tests/{folder}", f"--{broker}={server}"), proof=f"{broker} broker: .*: {server}")


def _faults(words: str) -> Step:
    return Step("two processes", (_TWO_PROCESSES, "-k", words))


def _driver_steps(driver: str, distribution: str, folder: str) -> Iterator[Step]:
    """Run the suite with the oldest release of a driver that we allow and with the newest that there is."""
    versions = {"lower bound": f"{driver}=={_lower_bound(distribution, driver)}", "newest": driver}
    for name, requirement in versions.items():
        yield Step(
            f"{driver} {name}",
            (f"integration-tests/{folder}", "-k", "psycopg" if driver == "psycopg" else ""),
            python=lambda name=name, requirement=requirement: make_environment(
                f"{driver}-{name.replace(' ', '-')}", [requirement], loose=(driver, f"{driver}-binary", "hiredis")
            ),
        )


def _lower_bound(distribution: str, driver: str) -> str:
    settings = tomllib.loads((ROOT / "packages" / distribution / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [settings["dependencies"], *settings.get("optional-dependencies", {}).values()]
    pattern = re.compile(rf"{driver}(\[\w+\])?>=([\d.]+)")
    return next(match[2] for group in groups for text in group if (match := pattern.match(text)))


def _container_steps() -> Iterator[Step]:
    """Run what works on a broker that is not ours to stop."""
    for broker, folder in (("redis", "redis_backends"), ("postgres", "postgres")):
        targets = (f"integration-tests/{folder}", "integration-tests/test_conformance_command.py")
        yield Step(broker, (*targets, "-k", broker), proof=f"{broker} broker: .*testcontainers")


def _random_sections() -> Iterator[Section]:
    """Run every integration test three times, each time in another order."""
    for seed in (101, 102, 103):
        for part in (
            "redis_backends",
            "postgres",
            "test_servers.py",
            "test_idleness.py",
            "test_conformance_command.py",
        ):
            step = Step(f"order {seed}", (f"integration-tests/{part}", f"--randomly-seed={seed}"))
            yield Section(f"random-{seed}-{Path(part).stem}", (step,), _nothing)
        for name, words in FAULTS.items():
            step = Step(f"order {seed}", (_TWO_PROCESSES, "-k", words, f"--randomly-seed={seed}"))
            yield Section(f"random-{seed}-faults-{name}", (step,), _nothing)


@contextmanager
def _nothing() -> Iterator[dict[str, str]]:
    yield {}


@contextmanager
def _debian_servers() -> Iterator[dict[str, str]]:
    install({"redis-server": "redis-server", "/usr/lib/postgresql/15/bin/initdb": "postgresql-15"})
    yield {}
