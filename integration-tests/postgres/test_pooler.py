"""PgBouncer in transaction mode: good for publishing and reading, no good for LISTEN."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from channels_core.exceptions import BackendError
from channels_harness.ports import free_port

from .support import DEADLINE, MakeBackend, Reader

SETTINGS = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
"""


@pytest.fixture
def pooler_url(postgres_url: str, tmp_path: Path) -> Iterator[str]:
    """Start PgBouncer before the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        leave_out = pytest.fail if os.environ.get("CI") else pytest.skip
        leave_out("pgbouncer is not installed; .ci/integration and .ci/full install it")
    server, own_port = urlsplit(postgres_url), free_port()
    settings = tmp_path / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(host=server.hostname, port=server.port, own_port=own_port))
    process = subprocess.Popen([program, *as_other_user(tmp_path), str(settings)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(own_port)
        yield f"postgresql://postgres@127.0.0.1:{own_port}/postgres"
    finally:
        process.terminate()
        process.wait(DEADLINE)


def as_other_user(folder: Path) -> list[str]:
    """PgBouncer does not run as root."""
    if os.geteuid() != 0:
        return []
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    return ["-u", "postgres"]


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            continue
        return
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.mark.parametrize("history", [0, 10])
async def test_listening_through_a_pooler_fails_in_words(
    make_backend: MakeBackend, pooler_url: str, history: int
) -> None:
    """A transaction pooler accepts LISTEN and forgets it: the start fails and says what to do."""
    with pytest.raises(BackendError, match="transaction pooler"):
        await make_backend(pooler_url, history=history)


@pytest.mark.parametrize("history", [0, 10])
async def test_a_direct_connection_to_listen(
    make_backend: MakeBackend, pooler_url: str, postgres_url: str, channel: str, history: int
) -> None:
    """With listen_dsn all works, though each statement may reach another connection of the server."""
    backend = await make_backend(pooler_url, listen_dsn=postgres_url, history=history)
    other = await make_backend(pooler_url, listen_dsn=postgres_url, history=history)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        for number in range(50):
            await (backend, other)[number % 2].publish(b"%d" % number, [channel])
        events = await reader.take(50)
    assert [event.data for event in events] == [b"%d" % number for number in range(50)]
    if history:
        assert len((await backend.get_history(channel)).events) == 10
