"""Real brokers on loopback, started, broken and stopped by tests and benchmarks. Never published."""

from channels_harness.postgres_server import PostgresServer
from channels_harness.redis_cluster import RedisCluster
from channels_harness.redis_sentinel import RedisSentinel
from channels_harness.redis_server import RedisServer
from channels_harness.server import Server

__all__ = ("PostgresServer", "RedisCluster", "RedisSentinel", "RedisServer", "Server")
