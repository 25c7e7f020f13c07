"""A Redis Cluster of three primaries and three replicas."""

from __future__ import annotations

from typing import Any, Final

from redis.crc import key_slot

from channels_harness.binaries import NEWEST_REDIS, RedisFlavour
from channels_harness.ports import free_port
from channels_harness.redis_server import RedisServer
from channels_harness.server import Server
from channels_harness.waiting import wait_until

__all__ = ("RedisCluster",)

_HOST: Final = "127.0.0.1"
_SLOTS: Final = 16_384
_PRIMARIES: Final = 3
_SETTLE_TIMEOUT: Final = 45.0
"""Seconds for gossip to spread and for a failover; only against hanging."""


class RedisCluster(Server):
    """Six servers; the first three start as primaries, the others as a replica of each.

    Args:
        flavour: Which program; Redis 6.2 cannot be told its bus port and is not offered.
        node_timeout_ms: After how long a silent primary is replaced.
    """

    def __init__(self, flavour: RedisFlavour = NEWEST_REDIS, *, node_timeout_ms: int = 1_500) -> None:
        self._joined = False
        bus_ports = [free_port() for _ in range(2 * _PRIMARIES)]
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
        slot = key_slot(key)
        ports = _primary_ports(next(node for node in self.nodes if node.is_running))
        return next(node for node in self.nodes if slot in ports.get(node.port, ()))

    def fail_over(self, key: bytes = b"") -> None:
        """Kill the primary that serves a key's slot; returns when a replica has been promoted."""
        primary = self.primary_of(key)
        primary.kill()
        self.wait_promoted(primary)

    def wait_promoted(self, old: RedisServer) -> None:
        """Return when another node serves the slots of a primary that is dead or frozen."""
        others = [node for node in self.nodes if node is not old and node.is_running]
        wait_until(
            lambda: all(old.port not in _primary_ports(node) and _is_ok(node) for node in others),
            _SETTLE_TIMEOUT,
            f"no replica of {old.port} was promoted",
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
        return len(replicas) == _PRIMARIES and all(map(_is_linked, replicas)) and all(map(_is_ok, self.nodes))


def _options(bus_port: int, node_timeout_ms: int) -> dict[str, str]:
    return {
        "cluster-enabled": "yes",
        "cluster-port": str(bus_port),
        "cluster-node-timeout": str(node_timeout_ms),
        # A replica stands for election however long it has not heard from its primary.
        "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0",
    }


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


def _is_ok(node: RedisServer) -> bool:
    return _info(node).get("cluster_state") == "ok"


def _primary_ports(node: RedisServer) -> dict[int, range]:
    """Return the primaries that a node knows, by their ports, with their slots."""
    with node.client() as client:
        rows: Any = client.execute_command("CLUSTER SLOTS")
    return {int(row[2][1]): range(row[0], row[1] + 1) for row in rows}
