"""`channels conformance` proves every backend on the brokers of this run, which may be containers or anybody's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from channels_harness.brokers import Broker, backend_url

HISTORY = 500

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("variant", ["", "streams"])
def test_redis(redis_broker: Broker, variant: str) -> None:
    """No rule fails for Redis."""
    prove(backend_url(redis_broker.url, variant, **({"history": HISTORY} if variant else {})))


@pytest.mark.parametrize("history", [0, HISTORY])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_postgres(postgres_broker: Broker, driver: str, history: int) -> None:
    """No rule fails for PostgreSQL."""
    prove(backend_url(postgres_broker.url, driver, **({"history": history} if history else {})))


def prove(url: str) -> None:
    command = [sys.executable, "-m", "channels_core.cli", "conformance", url]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout.splitlines()[-1]
