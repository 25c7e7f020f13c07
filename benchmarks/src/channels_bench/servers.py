"""The servers of a run: real ones on loopback, started when first needed."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack
from typing import Final, Self

from channels_bench.catalogue import Server
from channels_harness import PostgresServer, RedisServer

__all__ = ("Servers",)

_REDIS_OPTIONS: Final = {
    # A receiver is flooded on purpose; without this the server cuts it off.
    "client-output-buffer-limit": "pubsub 0 0 0",
    "maxclients": "20000",
}

AWAY: Final = 1.0
"""Seconds of an outage."""


class Servers:
    """Starts and stops what is needed."""

    def __init__(self) -> None:
        self._stack: Final = ExitStack()
        self._redis: RedisServer | None = None
        self._postgres: PostgresServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, server: Server) -> str:
        """Return the address of a server, which is started unless it runs."""
        match server:
            case "redis":
                if self._redis is None:
                    self._redis = self._stack.enter_context(RedisServer(persist=False, options=_REDIS_OPTIONS))
                return self._redis.url
            case "postgres":
                if self._postgres is None:
                    self._postgres = self._stack.enter_context(PostgresServer())
                return self._postgres.url
        return "memory://"

    def keep_data(self, wanted: bool) -> None:
        """Let a restart lose nothing; it costs speed, so that is not how anything else is measured."""
        if self._redis is None:
            return
        with self._redis.client() as client:
            client.config_set("appendonly", "yes" if wanted else "no")
            client.config_rewrite()
            # Until its file is complete the server refuses to stop.
            while client.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(0.01)

    def restart(self) -> None:
        """Stop every server, and start it again after `AWAY` seconds."""
        servers = [server for server in (self._redis, self._postgres) if server is not None]
        for server in servers:
            server.stop()
        time.sleep(AWAY)
        for server in servers:
            server.start()

    def sweep(self) -> None:
        """Remove what the last workload left behind."""
        if self._redis is not None:
            with self._redis.client() as client:
                client.flushall()
        if self._postgres is not None:
            with self._postgres.connect() as connection, contextlib.suppress(Exception):
                connection.execute("DROP SCHEMA IF EXISTS channels CASCADE")
                connection.execute("DROP TABLE IF EXISTS bench_log")

    def versions(self) -> list[str]:
        """Return name and version of each running server."""
        return [server.version for server in (self._redis, self._postgres) if server is not None]
