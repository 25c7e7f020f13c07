"""Brokers in containers, where a Docker engine answers."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Final

__all__ = ("docker_answers", "start_postgres_container", "start_redis_container")

_PING_TIMEOUT: Final = 5
"""Seconds for the engine to answer: a client without an engine is common and must not delay a test run."""

_DEFAULT_SOCKET: Final = "/var/run/docker.sock"
_REDIS_IMAGE: Final = "redis:7-bookworm"
_POSTGRES_IMAGE: Final = "postgres:15-bookworm"


def docker_answers() -> bool:
    """Tell whether there is a Docker engine."""
    if "DOCKER_HOST" not in os.environ and not _listens(_DEFAULT_SOCKET):
        return False
    import docker  # type: ignore[import-untyped]  # no stubs are installed for one call

    client = docker.DockerClient.from_env(timeout=_PING_TIMEOUT)
    try:
        return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False
    finally:
        client.close()


def _listens(path: str) -> bool:
    """Ask the socket itself: the client for Docker leaves sockets open when nobody answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def start_redis_container(stack: ExitStack) -> str:
    """Start the image that ``CHANNELS_TEST_REDIS_IMAGE`` names; return the broker's URL."""
    from testcontainers.redis import RedisContainer

    container = stack.enter_context(RedisContainer(os.environ.get("CHANNELS_TEST_REDIS_IMAGE", _REDIS_IMAGE)))
    return f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


def start_postgres_container(stack: ExitStack) -> str:
    """Start the image that ``CHANNELS_TEST_POSTGRES_IMAGE`` names; return the broker's URL."""
    from testcontainers.postgres import PostgresContainer

    image = os.environ.get("CHANNELS_TEST_POSTGRES_IMAGE", _POSTGRES_IMAGE)
    container = stack.enter_context(PostgresContainer(image, driver=None))
    return str(container.get_connection_url())
