"""One Redis or Valkey server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import redis

from channels_core.testing import ServerProcess
from channels_harness.binaries import NEWEST_REDIS, RedisFlavour, redis_program
from channels_harness.ports import free_port
from channels_harness.server import Server
from channels_harness.tls import Certificates

__all__ = ("RedisServer", "server_version")

_HOST: Final = "127.0.0.1"

_ADMIN_TIMEOUT: Final = 5.0
"""Seconds for one command of ours: a paused server must not hang the test run."""


def _bus_distance(options: Mapping[str, str]) -> int:
    """Return how far above its port a node of a cluster takes another one, unless it is told which.

    That one must not be among those that outgoing connections get: a closed one keeps its port for a minute.
    """
    return 10_000 if options.get("cluster-enabled") == "yes" and "cluster-port" not in options else 0


class RedisServer(Server):
    """A server on a free port and a Unix socket.

    Args:
        flavour: Which program.
        persist: Write every command to a file before it is answered, so that `kill` loses nothing. ``False`` for
            benchmarks, where no restart needs the data.
        tls: Serve TLS only, with these certificates.
        options: More of the server's options, as ``name: value``.
    """

    mode: ClassVar[Sequence[str]] = ()
    """Command-line arguments that make the program another kind of server."""

    def __init__(
        self,
        flavour: RedisFlavour = NEWEST_REDIS,
        *,
        persist: bool = True,
        tls: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder: Final = Path(tempfile.mkdtemp(prefix="channels-redis-"))
        self.port: Final = free_port(companion=_bus_distance(options or {}))
        self.certificates: Final = Certificates(self.folder / "tls") if tls else None
        self.data: Final = self.folder / "data"
        self._configuration: Final = self.data / "server.conf"
        self._options: Final = self._own_options(persist) | dict(options or {})
        self._process: Final = ServerProcess(
            [redis_program(flavour), str(self._configuration), *self.mode],
            ready=self._answers,
            log=self.folder / "log",
            cwd=self.folder,
        )

    @property
    def url(self) -> str:
        if self.certificates is None:
            return f"redis://{_HOST}:{self.port}/0"
        return f"rediss://{_HOST}:{self.port}/0?ssl_ca_certs={self.certificates.authority}"

    @property
    def unix_url(self) -> str:
        """The URL over the Unix socket."""
        return f"redis+unix://{self.folder / 'socket'}"

    @property
    def version(self) -> str:
        with self.client() as client:
            return server_version(client)

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    def client(self) -> redis.Redis:
        """Return a blocking client, to be closed by the caller."""
        return redis.Redis.from_url(self.url, socket_timeout=_ADMIN_TIMEOUT, socket_connect_timeout=_ADMIN_TIMEOUT)

    def start(self) -> None:
        # Written once: a replica, a cluster node and a sentinel keep what they learn in this file.
        if not self.data.exists():
            self.data.mkdir(parents=True)
            self._configuration.write_text("".join(f"{name} {value}\n" for name, value in self._options.items()))
        self._process.start()

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def pause(self) -> None:
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def erase(self) -> None:
        shutil.rmtree(self.data)

    def close(self) -> None:
        self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                information: Any = client.info("server")
                # Another server may have taken the port since it was drawn, and ours is about to end.
                return bool(information["process_id"] == self._process.pid) and bool(client.ping())
        except redis.RedisError:
            return False

    def _own_options(self, persist: bool) -> dict[str, str]:
        options = {
            "bind": _HOST,
            "port": str(self.port),
            "dir": str(self.data),
            "unixsocket": str(self.folder / "socket"),
            "save": '""',
            "appendonly": "yes" if persist else "no",
            # Written before each answer, synced by the system: survives SIGKILL, and needs no fsync for that.
            "appendfsync": "no",
        }
        return options | (_tls_options(self.port, self.certificates) if self.certificates else {})


def server_version(client: redis.Redis) -> str:
    """Return the name and version of the server behind a client."""
    info: Any = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _tls_options(port: int, tls: Certificates) -> dict[str, str]:
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(tls.certificate),
        "tls-key-file": str(tls.key),
        "tls-ca-cert-file": str(tls.authority),
        "tls-auth-clients": "no",
    }
