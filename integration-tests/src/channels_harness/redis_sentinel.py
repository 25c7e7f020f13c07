"""Redis behind Sentinel: a primary, two replicas and three sentinels."""

from __future__ import annotations

from typing import Any, Final

from channels_harness.binaries import NEWEST_REDIS, RedisFlavour
from channels_harness.redis_server import RedisServer
from channels_harness.server import Server
from channels_harness.waiting import wait_until

__all__ = ("RedisSentinel",)

_HOST: Final = "127.0.0.1"
_SERVICE: Final = "channels"
_COUNT: Final = 3
_QUORUM: Final = 2
_SETTLE_TIMEOUT: Final = 45.0
"""Seconds for the sentinels to find each other and for a failover; only against hanging."""


class SentinelServer(RedisServer):
    """One sentinel, which watches nothing yet."""

    mode = ("--sentinel",)

    def _own_options(self, persist: bool) -> dict[str, str]:
        return {"bind": _HOST, "port": str(self.port), "dir": str(self.data)}


class RedisSentinel(Server):
    """Three data servers, the first of which starts as primary, watched by three sentinels.

    Args:
        flavour: Which program.
        down_after_ms: After how long a silent primary is replaced.
    """

    def __init__(self, flavour: RedisFlavour = NEWEST_REDIS, *, down_after_ms: int = 1_000) -> None:
        self._down_after_ms = down_after_ms
        self._joined = False
        options = {"repl-diskless-sync-delay": "0"}
        self.nodes: Final = [RedisServer(flavour, options=options) for _ in range(_COUNT)]
        self.sentinels: Final = [SentinelServer(flavour) for _ in range(_COUNT)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{_HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{_SERVICE}/0"

    @property
    def version(self) -> str:
        return f"{next(node for node in self.nodes if node.is_running).version} sentinel"

    @property
    def is_running(self) -> bool:
        return any(node.is_running for node in self.nodes)

    @property
    def primary(self) -> RedisServer:
        """The data server that the sentinels name."""
        port = self._primary_port()
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> None:
        for server in (*self.nodes, *self.sentinels):
            server.start()
        if not self._joined:
            self._join()
            self._joined = True
        wait_until(self._is_settled, _SETTLE_TIMEOUT, "the sentinels did not settle")

    def stop(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.stop()

    def kill(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.kill()

    def pause(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.pause()

    def resume(self) -> None:
        for server in (*self.nodes, *self.sentinels):
            server.resume()

    def erase(self) -> None:
        self._joined = False
        for server in (*self.nodes, *self.sentinels):
            server.erase()

    def close(self) -> None:
        for server in (*self.sentinels, *self.nodes):
            server.close()

    def fail_over(self) -> None:
        """Kill the primary; returns when a replica has been promoted."""
        primary = self.primary
        primary.kill()
        self.wait_promoted(primary)

    def wait_promoted(self, old: RedisServer) -> None:
        """Return when the sentinels name another primary than the old one, and it takes writes."""
        wait_until(
            lambda: self._primary_port() != old.port and self._replication(self.primary)["role"] == "master",
            _SETTLE_TIMEOUT,
            "no replica was promoted",
        )

    def restore(self) -> None:
        """Start what `fail_over` killed; returns when it follows the new primary."""
        self.start()

    def _join(self) -> None:
        primary = self.nodes[0]
        for node in self.nodes[1:]:
            with node.client() as client:
                client.execute_command("REPLICAOF", _HOST, primary.port)
                # Or it comes back from a restart as a primary, and the sentinels take ten seconds to put it right.
                client.config_rewrite()
        for sentinel in self.sentinels:
            self._watch(sentinel, primary.port)

    def _watch(self, sentinel: RedisServer, port: int) -> None:
        settings = {
            "down-after-milliseconds": self._down_after_ms,
            "failover-timeout": 3 * self._down_after_ms,
        }
        with sentinel.client() as client:
            client.execute_command("SENTINEL MONITOR", _SERVICE, _HOST, port, _QUORUM)
            for name, value in settings.items():
                client.execute_command("SENTINEL SET", _SERVICE, name, value)

    def _is_settled(self) -> bool:
        links = [self._replication(node).get("master_link_status") for node in self.nodes]
        return links.count("up") == _COUNT - 1 and all(map(self._knows_all, self.sentinels))

    def _knows_all(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            answer: Any = client.info("sentinel")
        state = answer["master0"]
        return bool((state["status"], state["slaves"], state["sentinels"]) == ("ok", _COUNT - 1, _COUNT))

    def _primary_port(self) -> int:
        with self.sentinels[0].client() as client:
            answer: Any = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", _SERVICE)
        return int(answer[1])

    def _replication(self, node: RedisServer) -> dict[str, Any]:
        with node.client() as client:
            answer: Any = client.info("replication")
        return dict(answer)
