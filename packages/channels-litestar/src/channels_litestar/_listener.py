"""The listening socket of ``channels serve``."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ("is_reachable_from_outside", "listening", "shown_address")


@contextmanager
def listening(host: str, port: int, send_timeout: float) -> Iterator[socket.socket]:
    """Bind before anything else starts, so that a taken port is the first thing to be heard of.

    Raises:
        click.ClickException: It is taken, not ours to take, or no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        raise click.ClickException(_explain(host, port, exc)) from exc
    with listener:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # An application cannot reset a connection, so a client that stopped reading would keep its socket and
            # what waits in it; the kernel does it for us. Accepted sockets inherit the option (tcp(7)).
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(send_timeout * 1000))
        yield listener


def shown_address(listener: socket.socket) -> str:
    """Return the address as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_reachable_from_outside(listener: socket.socket) -> bool:
    """Return whether other machines may reach it."""
    host: str = listener.getsockname()[0]
    return not ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; choose another with --port, or --port 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights; choose one from 1024 with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --host"
