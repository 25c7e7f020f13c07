"""What the full run consists of: sections, and in them the steps, which are what a resume skips.

A section takes at most about six minutes on two cores, so that ten are enough on a machine that is loaded.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from matrix.images import engine
from matrix.machine import ROOT, install, make_environment

REDIS_SERVERS: Final = {
    "valkey9": r"Valkey 9\.",
    "redis62": r"Redis 6\.2\.",
    "redis70": r"Redis 7\.0\.",
    "tls": r"Redis 7\.0\..*: tls",
    "cluster": r"Valkey 9\..* cluster",
    "sentinel": r"Valkey 9\..* sentinel",
}
POSTGRES_SERVERS: Final = {"postgres18": r"PostgreSQL 18\.", "postgres15": r"PostgreSQL 15\."}
"""What the header says of each server when it is the one that was asked for."""

NEWEST: Final = {"redis": "valkey9", "postgres": "postgres18"}
"""Named in every step: without, a URL in the environment or a Docker engine would come first."""

FAULTS: Final = ("redis", "asyncpg", "psycopg", "cluster", "sentinel")
"""Cases of the fault test, by the beginning of their names."""

_TWO_PROCESSES: Final = "integration-tests/test_two_processes.py"
_IDLENESS: Final = "integration-tests/test_idleness.py"
_PAGE: Final = "packages/channels-litestar/tests/test_page.py"
_MEMORY_KIT: Final = "packages/channels-core/tests/testing/test_memory_conformance.py"

_REDIS_KIT: Final = "integration-tests/redis_backends/test_redis_conformance.py"
"""Runs apart from the rest of its folder on each older server."""

_OWN_SERVERS: Final = tuple(
    f"--ignore=integration-tests/redis_backends/test_redis_{name}.py" for name in ("cluster", "refusals", "sentinel")
)
"""Modules that start what they need themselves, whatever the section's broker is: once, with the newest, is enough."""

_WORKSPACE_PYTHON: Final = str(ROOT / ".venv" / "bin" / "python")

LIMIT: Final = 600.0
"""Seconds that a section may take; the table marks one that took longer."""

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
        waits: Whether it mostly waits, for an outage or an idle minute to pass; such a section runs beside a busy one.
    """

    name: str
    steps: tuple[Step, ...]
    prepare: Preparation
    waits: bool = False


def sections() -> list[Section]:
    """Return all sections, the long ones first, so that no worker is left with one at the end."""
    return [
        Section("testcontainers", tuple(_container_steps()), engine),
        *(section for server in POSTGRES_SERVERS for section in _apart(_on_server("postgres", server))),
        *_unit_sections(),
        *_apart(_drivers("redis", "channels-redis", "redis_backends")),
        *_apart(_drivers("psycopg", "channels-postgres", "postgres")),
        *(section for server in REDIS_SERVERS for section in _apart(_on_server("redis", server))),
        *_apart(Section("other-integration", _thrice(_others()), _nothing)),
        Section("page", _thrice((_PAGE,)), _chromium),
        Section("kit-memory", _repeats((_MEMORY_KIT,), range(1, 21)), _nothing),
        *_apart(Section("idle", _thrice((_IDLENESS, *_servers())), _nothing, waits=True)),
        *(section for name in FAULTS for section in _apart(_fault_section(name))),
        Section("faults-by-seed", tuple(_seeds()), _nothing, waits=True),
    ]


def _unit_sections() -> Iterator[Section]:
    """Repeat the tests of all packages twenty times; the kit on memory and the browser have sections of their own."""
    target = ("packages", f"--ignore={_MEMORY_KIT}", f"--ignore={_PAGE}")
    for name, first in zip("abcdefghij", range(1, 21, 2), strict=True):
        yield Section(f"unit-{name}", _repeats(target, range(first, first + 2)), _nothing)


def _on_server(broker: str, server: str) -> Section:
    """Run a distribution's suite on a server, thrice on the newest, which is what the integration tests take."""
    folder = "redis_backends" if broker == "redis" else "postgres"
    versions = REDIS_SERVERS if broker == "redis" else POSTGRES_SERVERS
    target = (f"integration-tests/{folder}", *_servers(**{broker: server}))
    proof = f"^{broker} broker: {versions[server]}"
    if server == NEWEST[broker]:
        return Section(f"kit-{server}", _thrice(target, proof), _debian_servers)
    if broker == "postgres":
        return Section(f"kit-{server}", (Step("all", target, proof=proof),), _debian_servers)
    steps = (
        Step("conformance", (_REDIS_KIT, *target[1:]), proof=proof),
        Step("others", (*target, *_OWN_SERVERS, f"--ignore={_REDIS_KIT}"), proof=proof),
    )
    return Section(f"kit-{server}", steps, _debian_servers)


def _apart(section: Section) -> Iterator[Section]:
    """Make a section of each step, where all of them could take more than ten minutes beside other sections."""
    if len(section.steps) == 1:
        yield section
        return
    for number, step in enumerate(section.steps, 1):
        last = number if step.name.startswith("order") else step.name.replace(" ", "-")
        yield Section(f"{section.name}-{last}", (step,), section.prepare, section.waits)


def _servers(**choices: str) -> tuple[str, ...]:
    """Return the options that choose the servers, the newest where nothing else is said."""
    return tuple(f"--{broker}={server}" for broker, server in (NEWEST | choices).items())


def _thrice(target: tuple[str, ...], proof: str = "") -> tuple[Step, ...]:
    return _repeats(target, range(101, 104), proof)


def _fault_section(name: str) -> Section:
    target = (_TWO_PROCESSES, *_servers(), "-k", f"nothing_is_lost and {name}")
    return Section(f"faults-{name}", _thrice(target), _nothing, waits=True)


def _seeds() -> Iterator[Step]:
    """Repeat the test of several faults in other orders instead of in the same ones."""
    for seed in range(3):
        yield Step(f"seed {seed}", (_TWO_PROCESSES, *_servers(), "-k", f"several_faults and seed{seed}"))


def _others() -> tuple[str, ...]:
    """Return the modules of the integration tests that no other section runs."""
    modules = (f"integration-tests/{path.name}" for path in sorted((ROOT / "integration-tests").glob("test_*.py")))
    return *(module for module in modules if module not in (_TWO_PROCESSES, _IDLENESS)), *_servers()


def _repeats(target: tuple[str, ...], seeds: range, proof: str = "") -> tuple[Step, ...]:
    return tuple(Step(f"order {seed}", (*target, f"--randomly-seed={seed}"), proof=proof) for seed in seeds)


def _drivers(driver: str, distribution: str, folder: str) -> Section:
    return Section(f"drivers-{driver}", tuple(_driver_steps(driver, distribution, folder)), _debian_servers)


def _driver_steps(driver: str, distribution: str, folder: str) -> Iterator[Step]:
    """Run the suite with the oldest release of a driver that we allow and with the newest that there is."""
    versions = {"lower bound": f"{driver}=={_lower_bound(distribution, driver)}", "newest": driver}
    loose = (driver, f"{driver}-binary", "hiredis")
    for name, requirement in versions.items():
        yield Step(
            name,
            (f"integration-tests/{folder}", *_servers(), "-k", "psycopg" if driver == "psycopg" else ""),
            python=partial(make_environment, f"{driver}-{name.replace(' ', '-')}", [requirement], loose),
        )


def _lower_bound(distribution: str, driver: str) -> str:
    settings = tomllib.loads((ROOT / "packages" / distribution / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [settings["dependencies"], *settings.get("optional-dependencies", {}).values()]
    pattern = re.compile(rf"{driver}(\[\w+\])?>=([\d.]+)")
    return next(match[2] for group in groups for text in group if (match := pattern.match(text)))


def _container_steps() -> Iterator[Step]:
    """Run what works on a broker that is not ours to stop."""
    suites = {
        "redis": ("redis_backends/test_redis_conformance.py", "redis_backends/test_redis_streams.py"),
        "postgres": ("postgres/test_notify.py", "postgres/test_history.py"),
    }
    for broker, modules in suites.items():
        targets = (f"integration-tests/{module}" for module in (*modules, "test_conformance_command.py"))
        yield Step(broker, (*targets, "-k", broker), proof=f"{broker} broker: .*testcontainers")


@contextmanager
def _nothing() -> Iterator[dict[str, str]]:
    yield {}


@contextmanager
def _debian_servers() -> Iterator[dict[str, str]]:
    install(
        {
            "redis-server": "redis-server",
            "/usr/lib/postgresql/15/bin/initdb": "postgresql-15",
            "/usr/sbin/pgbouncer": "pgbouncer",
        }
    )
    yield {}


@contextmanager
def _chromium() -> Iterator[dict[str, str]]:
    install({"chromium": "chromium"})
    yield {}
