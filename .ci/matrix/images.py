"""A Docker engine of our own and images made from Debian's packages: nothing is pulled from a registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from matrix.machine import WORK, install, output

_ENGINE: Final = WORK / "docker"

_START_TIMEOUT: Final = 60.0
"""Seconds for the engine to answer; only against hanging."""

_ENTRYPOINT: Final = """#!/bin/sh
# The part of the official image's entry point that the tests rely on.
set -eu
export PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
mkdir -p "$PGDATA" /run/postgresql
chown postgres "$PGDATA" /run/postgresql
as_postgres initdb -U "$POSTGRES_USER" -A "$POSTGRES_HOST_AUTH_METHOD" -E UTF8 --locale=C > /dev/null
echo "host all all all $POSTGRES_HOST_AUTH_METHOD" >> "$PGDATA/pg_hba.conf"
exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@" -c listen_addresses='*'
"""

REDIS_IMAGE: Final = "redis:7-bookworm"

POSTGRES_IMAGE: Final = f"postgres:15-bookworm-{zlib.crc32(_ENTRYPOINT.encode()):08x}"
"""With a checksum, because images are cached by their names."""


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """Run an engine that has both images; give the environment that leads to it."""
    install({"dockerd": "docker.io", "debootstrap": "debootstrap"})
    _ENGINE.mkdir(parents=True, exist_ok=True)
    # The path of a socket has at most 107 bytes, and nobody knows where the repository is.
    socket = Path(f"/run/channels-docker-{os.getpid()}.sock")
    environment = {
        "DOCKER_HOST": f"unix://{socket}",
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "CHANNELS_TEST_REDIS_IMAGE": REDIS_IMAGE,
        "CHANNELS_TEST_POSTGRES_IMAGE": POSTGRES_IMAGE,
    }
    with (_ENGINE / "log").open("ab") as log:
        process = subprocess.Popen(_command(socket), stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(environment)
        _make_images(environment)
        yield environment
    finally:
        process.terminate()
        process.wait(_START_TIMEOUT)
        socket.unlink(missing_ok=True)


def _command(socket: Path) -> list[str]:
    return [
        "dockerd", "--host", f"unix://{socket}", "--data-root", str(_ENGINE / "data"),
        "--exec-root", f"/run/channels-docker-{os.getpid()}", "--pidfile", str(_ENGINE / "pid"),
    ]  # fmt: skip


def _wait(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while subprocess.run(["docker", "info"], env=os.environ | environment, capture_output=True).returncode != 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"the Docker engine does not answer: {(_ENGINE / 'log').read_text()[-2000:]}")
        time.sleep(0.2)


def _make_images(environment: dict[str, str]) -> None:
    redis_command = 'CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]'
    postgres_entry = 'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]'
    _make_image(environment, REDIS_IMAGE, "redis-server", redis_command, {})
    files = {"usr/local/bin/docker-entrypoint.sh": _ENTRYPOINT}
    _make_image(environment, POSTGRES_IMAGE, "postgresql", postgres_entry, files)


def _make_image(environment: dict[str, str], name: str, package: str, change: str, files: dict[str, str]) -> None:
    environment = os.environ | environment
    if subprocess.run(["docker", "image", "inspect", name], env=environment, capture_output=True).returncode == 0:
        return
    folder = _ENGINE / package
    shutil.rmtree(folder, ignore_errors=True)
    mirror, release = _mirror()
    command = ["debootstrap", "--variant=minbase", f"--include={package}", release, str(folder), mirror]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for path, text in files.items():
        (folder / path).write_text(text)
        (folder / path).chmod(0o755)
    archive = subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE)
    imported = ["docker", "import", "--change", change, "-", name]
    subprocess.run(imported, check=True, env=environment, stdin=archive.stdout, stdout=subprocess.DEVNULL)
    if archive.wait() != 0:
        raise SystemExit(f"no image {name}: tar failed")
    shutil.rmtree(folder)


def _mirror() -> tuple[str, str]:
    """Return the address and the release that apt on this machine is configured with."""
    # $(SITE) and friends are apt's own placeholders.
    rows = output("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)").splitlines()
    release = output("sh", "-c", '. /etc/os-release; printf %s "$VERSION_CODENAME"')
    for row in rows:
        address, codename, component = row.split()
        if (codename, component) == (release, "main"):
            return address, release
    raise SystemExit(f"apt knows no archive for {release}")
