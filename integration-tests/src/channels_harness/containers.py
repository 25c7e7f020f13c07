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

_POSTGRES_ENVIRONMENT: Final = {"POSTGRES_USER": "postgres", "POSTGRES_HOST_AUTH_METHOD": "trust"}

_POSTGRES_COMMAND: Final = "postgres -c max_connections=200 -c max_prepared_transactions=20"
"""As our own servers: the tests try what a two-phase commit does."""


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
    address = _start(os.environ.get("CHANNELS_TEST_REDIS_IMAGE", _REDIS_IMAGE), 6379, {}, stack)
    return f"redis://{address}/0"


def start_postgres_container(stack: ExitStack) -> str:
    """Start the image that ``CHANNELS_TEST_POSTGRES_IMAGE`` names; return the broker's URL."""
    image = os.environ.get("CHANNELS_TEST_POSTGRES_IMAGE", _POSTGRES_IMAGE)
    address = _start(image, 5432, _POSTGRES_ENVIRONMENT, stack, _POSTGRES_COMMAND)
    return f"postgresql://postgres@{address}/postgres"


def _start(image: str, port: int, environment: dict[str, str], stack: ExitStack, command: str = "") -> str:
    """Start an image and return the address at which its port is reachable."""
    # The ready-made containers of testcontainers move from module to module and warn about it.
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(image).with_exposed_ports(port)
    for name, value in environment.items():
        container.with_env(name, value)
    if command:
        container.with_command(command)
    stack.enter_context(container)
    return f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"
