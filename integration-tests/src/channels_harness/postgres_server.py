"""One PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
import psycopg

from channels_core.testing import ServerProcess
from channels_harness.binaries import NEWEST_POSTGRES, PostgresFlavour, postgres_folder
from channels_harness.ports import free_port
from channels_harness.server import Server

__all__ = ("PostgresServer",)

_HOST: Final = "127.0.0.1"

_ADMIN_TIMEOUT: Final = 5
"""Seconds for connecting: a paused server must not hang the test run."""

_SERVICE_USERS: Final = ("postgres", "nobody")
"""Whose rights the server gets when we are root, which it refuses to run as."""

_SETTINGS: Final = {
    "listen_addresses": _HOST,
    "max_connections": "200",
    "max_prepared_transactions": "20",
    # The machine does not lose power in a test; SIGKILL loses nothing that was handed to the system.
    "fsync": "off",
}


class PostgresServer(Server):
    """A server on a free port, with superuser ``postgres`` and no password.

    Args:
        flavour: Which version.
        settings: Configuration parameters on top of ours, which turn ``fsync`` off.
    """

    def __init__(
        self, flavour: PostgresFlavour = NEWEST_POSTGRES, *, settings: Mapping[str, str] | None = None
    ) -> None:
        settings = {**_SETTINGS, **(settings or {})}
        self.folder: Final = Path(tempfile.mkdtemp(prefix="channels-postgres-"))
        self.port: Final = free_port()
        self.data: Final = self.folder / "data"
        self._as_user: Final = _give_away(self.folder)
        programs = postgres_folder(flavour)
        self._programs: Final = _reachable(programs, self.folder) if self._as_user else programs
        self._process: Final = ServerProcess(
            self._command("postgres", "-p", str(self.port), "-k", str(self.folder), *_flatten(settings)),
            ready=self._answers,
            log=self.folder / "log",
            cwd=self.folder,
            stop_signal=signal.SIGINT,
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{_HOST}:{self.port}/postgres"

    @property
    def version(self) -> str:
        with self.connect() as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return f"PostgreSQL {row[0].split()[0]}" if row else "PostgreSQL"

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    def connect(self) -> psycopg.Connection:
        """Return a blocking connection in autocommit mode, to be closed by the caller."""
        return psycopg.connect(self.url, autocommit=True, connect_timeout=_ADMIN_TIMEOUT)

    def start(self) -> None:
        if not self.data.exists():
            self._create_cluster()
        self._process.start()

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        family = self._family()
        self._process.kill()
        _signal(family, signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def pause(self) -> None:
        self._process.pause()
        _signal(self._family(), signal.SIGSTOP)

    def resume(self) -> None:
        _signal(self._family(), signal.SIGCONT)
        self._process.resume()

    def erase(self) -> None:
        shutil.rmtree(self.data)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _family(self) -> list[psutil.Process]:
        """Return the server's processes, each of which made itself leader of a process group of its own."""
        if not self.is_running:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def _create_cluster(self) -> None:
        command = self._command("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        result = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{result.stdout[-1000:]}{result.stderr[-1000:]}")

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [*self._as_user, str(self._programs / program), "-D", str(self.data), *arguments]

    def _answers(self) -> bool:
        try:
            with self.connect() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
            # Another server may have taken the port since it was drawn, and ours is about to end.
            return row == (str(self.data),)
        except psycopg.OperationalError:
            return False


def _give_away(folder: Path) -> list[str]:
    """When we are root, give the folder to a service user; return the prefix of commands that run as that user."""
    if os.geteuid() != 0:
        return []
    user = _service_user()
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _service_user() -> pwd.struct_passwd:
    for name in _SERVICE_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"PostgreSQL does not run as root, and no user is called {' or '.join(_SERVICE_USERS)}")


def _reachable(programs: Path, folder: Path) -> Path:
    """Return the programs' folder, or a copy where a parent folder is closed to other users."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in programs.resolve().parents):
        return programs
    copy = folder / "installation"
    package = programs.parent.parent
    # The wheel's programs find their libraries by a path relative to themselves, in a folder beside the package.
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copy / part.name, symlinks=True)
    return copy / programs.relative_to(package.parent)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _flatten(settings: Mapping[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
