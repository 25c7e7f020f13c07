"""A Redis Cluster of three primaries and three replicas."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import redis
from redis.crc import key_slot

from channels_harness.binaries import NEWEST_REDIS, RedisFlavour
from channels_harness.ports import free_ports
from channels_harness.redis_server import RedisServer
from channels_harness.server import Server

__all__ = ("RedisCluster", "wait_until")

_HOST: Final = "127.0.0.1"
_SLOTS: Final = 16_384
_PRIMARIES: Final = 3
_SETTLE_TIMEOUT: Final = 60.0
"""Seconds for gossip to spread and for a failover; only against hanging."""

_POLL: Final = 0.05
"""Seconds between two looks at the cluster's state: nothing announces it."""


class RedisCluster(Server):
    """Six servers; the first three start as primaries, the others as a replica of each.

    Args:
        flavour: Which program; Redis 6.2 cannot be told its bus port and is not offered.
        node_timeout_ms: After how long a silent primary is replaced.
    """

    def __init__(self, flavour: RedisFlavour = NEWEST_REDIS, *, node_timeout_ms: int = 1_500) -> None:
        self._joined = False
        bus_ports = free_ports(2 * _PRIMARIES)
        self.nodes: Final = [RedisServer(flavour, options=_options(port, node_timeout_ms)) for port in bus_ports]
        self._bus_ports: Final = dict(zip((node.port for node in self.nodes), bus_ports, strict=True))

    @property
    def url(self) -> str:
        hosts = ",".join(f"{_HOST}:{node.port}" for node in self.nodes[:_PRIMARIES])
        return f"redis+cluster://{hosts}"

    @property
    def version(self) -> str:
        return f"{self.nodes[0].version} cluster"

    @property
    def is_running(self) -> bool:
        return any(node.is_running for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        if not self._joined:
            self._join()
            self._joined = True
        wait_until(self._is_settled, _SETTLE_TIMEOUT, "the cluster did not settle")

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def pause(self) -> None:
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        for node in self.nodes:
            node.resume()

    def erase(self) -> None:
        self._joined = False
        for node in self.nodes:
            node.erase()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def primaries(self) -> list[RedisServer]:
        """Return the running nodes that serve slots."""
        return [node for node in self.nodes if node.is_running and _role(node) == "master"]

    def primary_of(self, key: bytes) -> RedisServer:
        """Return the node that serves a key's slot."""
        port = self._owner(key_slot(key))
        return next(node for node in self.nodes if node.port == port)

    def fail_over(self, key: bytes = b"") -> None:
        """Kill the primary that serves a key's slot; returns when a replica has been promoted."""
        slot = key_slot(key)
        primary = self.primary_of(key)
        primary.kill()
        wait_until(
            lambda: self._owner(slot) not in (None, primary.port) and self._is_ok(),
            _SETTLE_TIMEOUT,
            f"no replica took over slot {slot}",
        )

    def restore(self) -> None:
        """Start what `fail_over` killed; returns when it follows its new primary."""
        self.start()

    def _join(self) -> None:
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < _PRIMARIES:
                    client.execute_command("CLUSTER ADDSLOTSRANGE", *_range_of(number))
        self._meet()
        for number in range(_PRIMARIES):
            self._follow(self.nodes[_PRIMARIES + number], self.nodes[number])

    def _meet(self) -> None:
        first = self.nodes[0]
        with first.client() as client:
            for node in self.nodes[1:]:
                client.execute_command("CLUSTER MEET", _HOST, node.port, self._bus_ports[node.port])
        wait_until(lambda: all(map(self._knows_all, self.nodes)), _SETTLE_TIMEOUT, "the nodes did not meet")

    def _knows_all(self, node: RedisServer) -> bool:
        return _info(node).get("cluster_known_nodes") == str(len(self.nodes))

    def _follow(self, replica: RedisServer, primary: RedisServer) -> None:
        with primary.client() as client, replica.client() as follower:
            follower.execute_command("CLUSTER REPLICATE", client.execute_command("CLUSTER MYID"))

    def _is_settled(self) -> bool:
        replicas = [node for node in self.nodes if _role(node) == "slave"]
        return len(replicas) == _PRIMARIES and all(map(_is_linked, replicas)) and self._is_ok()

    def _is_ok(self) -> bool:
        return all(_info(node).get("cluster_state") == "ok" for node in self.nodes if node.is_running)

    def _owner(self, slot: int) -> int | None:
        """Return the port of the primary that a running node believes to serve the slot."""
        with next(node for node in self.nodes if node.is_running).client() as client:
            rows: Any = client.execute_command("CLUSTER SLOTS")
        return next((int(row[2][1]) for row in rows if row[0] <= slot <= row[1]), None)


def _options(bus_port: int, node_timeout_ms: int) -> dict[str, str]:
    return {
        "cluster-enabled": "yes",
        "cluster-port": str(bus_port),
        "cluster-node-timeout": str(node_timeout_ms),
        # A replica stands for election however long it has not heard from its primary.
        "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0",
    }


def wait_until(condition: Callable[[], bool], timeout: float, complaint: str) -> None:
    """Wait for a state of a server that nothing announces."""
    deadline = time.monotonic() + timeout
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} in {timeout} s")
        time.sleep(_POLL)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except redis.RedisError:
        return False


def _range_of(number: int) -> tuple[int, int]:
    return _SLOTS * number // _PRIMARIES, _SLOTS * (number + 1) // _PRIMARIES - 1


def _role(node: RedisServer) -> str:
    return str(_replication(node)["role"])


def _is_linked(node: RedisServer) -> bool:
    return bool(_replication(node).get("master_link_status") == "up")


def _replication(node: RedisServer) -> dict[str, Any]:
    with node.client() as client:
        information: Any = client.info("replication")
    return dict(information)


def _info(node: RedisServer) -> dict[str, str]:
    with node.client() as client:
        information: Any = client.execute_command("CLUSTER INFO")
    return dict(information)
