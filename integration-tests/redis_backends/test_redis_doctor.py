"""`channels doctor` on servers that are set up wrongly: it names the step that fails, and says what to change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from channels_core.cli._app import channels
from channels_harness import RedisServer
from channels_harness.binaries import RedisFlavour
from channels_harness.brokers import backend_url
from channels_harness.greeting import greeting, protected_mode_words

BOTH = pytest.mark.parametrize("variant", ["", "streams"])
Give = Callable[..., str]


def diagnose(url: str) -> str:
    """Return what the doctor says of a broker that is not well, on one line."""
    result = CliRunner().invoke(channels, ["doctor", url])
    assert result.exit_code == 1, result.output
    assert "secret" not in result.output
    return " ".join(result.output.split())


@BOTH
def test_a_healthy_server(guarded: RedisServer, variant: str) -> None:
    """All is well where it is."""
    result = CliRunner().invoke(channels, ["doctor", backend_url(guarded.url, variant)])
    assert result.exit_code == 0, result.output


@BOTH
def test_a_wrong_password(guarded: RedisServer, user: Give, variant: str) -> None:
    """The login is wrong, and is not shown."""
    user("+@all")
    text = diagnose(backend_url(f"redis://someone:secret-but-wrong@127.0.0.1:{guarded.port}/0", variant))
    assert "FAIL connect" in text
    assert "wrong user name or password" in text


@BOTH
def test_a_missing_password(variant: str) -> None:
    """The server wants a password."""
    with RedisServer("redis70") as server:
        with server.client() as client:
            client.config_set("requirepass", "secret")
        assert "wants a password" in diagnose(backend_url(f"redis://127.0.0.1:{server.port}", variant))


@BOTH
def test_a_wrong_database(guarded: RedisServer, variant: str) -> None:
    """The server has no such database."""
    assert "no such database" in diagnose(backend_url(f"redis://127.0.0.1:{guarded.port}/99", variant))


@pytest.mark.parametrize(
    "variant, rules, step, missing",
    [
        ("", ("+@all", "-ping", "allchannels"), "connect", "+ping"),
        ("", ("+@all", "-subscribe", "allchannels"), "connect", "+subscribe"),
        ("", ("+@all", "-publish", "allchannels"), "publish", "+publish"),
        ("", ("+@all", "resetchannels"), "connect", "&PATTERN"),
        ("streams", ("+@all", "-info", "~*", "allchannels"), "connect", "+info"),
        ("streams", ("+@all", "-script", "~*", "allchannels"), "connect", "+script"),
        ("streams", ("+@all", "-subscribe", "~*", "allchannels"), "connect", "+subscribe"),
        ("streams", ("+@all", "-evalsha", "~*", "allchannels"), "publish", "+evalsha"),
        ("streams", ("+@all", "-hmget", "~*", "allchannels"), "subscribe", "+hmget"),
        ("streams", ("+@all", "-xadd", "~*", "allchannels"), "publish", "the rights that the scripts need"),
        ("streams", ("+@all", "-xrange", "~*", "allchannels"), "history", "the rights that the scripts need"),
        ("streams", ("+@all", "~other:*", "allchannels"), "subscribe", "~PATTERN"),
        ("streams", ("+@all", "~*", "resetchannels"), "connect", "&PATTERN"),
    ],
)
def test_a_missing_right(user: Give, variant: str, rules: tuple[str, ...], step: str, missing: str) -> None:
    """The right to grant is named, at the step that needs it."""
    text = diagnose(user(*rules, variant=variant))
    assert f"FAIL {step}" in text
    assert missing in text


@pytest.mark.parametrize("flavour", ["redis70", "valkey9"])
@BOTH
async def test_protected_mode(variant: str, flavour: RedisFlavour) -> None:
    """A server that lets nobody in from outside says so and hangs up."""
    async with greeting(protected_mode_words(flavour)) as url:
        text = await asyncio.to_thread(diagnose, backend_url(url, variant))
    assert "FAIL connect" in text
    assert "protected mode" in text


@BOTH
def test_a_cluster_asked_as_a_single_server(variant: str) -> None:
    """The URL to use is named."""
    with RedisServer("valkey9", options={"cluster-enabled": "yes"}) as node:
        assert "use a redis+cluster:// URL" in diagnose(backend_url(f"redis://127.0.0.1:{node.port}", variant))


@BOTH
def test_a_cluster_asked_for_a_database(variant: str) -> None:
    """A cluster has one database."""
    with RedisServer("valkey9", options={"cluster-enabled": "yes", "cluster-databases": "1"}) as node:
        text = diagnose(backend_url(f"redis://127.0.0.1:{node.port}/3", variant))
    assert "only database 0" in text or "no such database" in text


@BOTH
def test_a_single_server_asked_as_a_cluster(guarded: RedisServer, variant: str) -> None:
    """The URL to use is named."""
    assert "use a redis:// URL" in diagnose(backend_url(f"redis+cluster://127.0.0.1:{guarded.port}", variant))


@BOTH
def test_a_user_that_is_switched_off(guarded: RedisServer, user: Give, variant: str) -> None:
    """Looks like a wrong password, and the message says so."""
    url = user("+@all", "~*", "allchannels", variant=variant)
    with guarded.client() as client:
        execute: Any = client.execute_command
        execute("ACL", "SETUSER", "someone", "off")
    assert "switched off" in diagnose(url)
