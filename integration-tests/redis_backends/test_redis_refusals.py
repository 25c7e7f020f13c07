"""Servers that refuse: each mistake has an error that says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from channels_core.advice import advise
from channels_core.backend import ChannelsBackend, Publication
from channels_core.exceptions import BackendConnectionError, BackendError
from channels_core.registry import create_backend
from channels_harness import RedisSentinel, RedisServer
from channels_harness.binaries import RedisFlavour
from channels_harness.brokers import backend_url
from channels_harness.greeting import greeting

BOTH = pytest.mark.parametrize("variant", ["", "streams"])
Give = Callable[..., str]


async def refusal(url: str, error: type[Exception] | tuple[type[Exception], ...] = BackendError) -> str:
    """Return what starting, and then using the backend raises, and how the doctor explains it."""
    backend = create_backend(url)
    with pytest.raises(error) as caught:
        await use(backend)
    text = f"{caught.value}; {advise(caught.value, type(backend))}"
    assert "secret" not in text
    return text


async def use(backend: ChannelsBackend) -> None:
    """Do everything once."""
    try:
        await backend.on_startup()
        await backend.subscribe(["channel"])
        await backend.publish(b"x", ["channel"])
        await backend.publish_probe("channel", b"y")
        if backend.keeps_history:
            assert [event.data for event in (await backend.get_history("channel", 1)).events] == [b"x"]
            assert (await backend.get_tops(["channel"]))["channel"].offset > 0
        await backend.unsubscribe(["channel"])
    finally:
        await backend.on_shutdown()


@BOTH
async def test_a_wrong_password(guarded: RedisServer, user: Give, variant: str) -> None:
    """It is said that the login is wrong, without showing it."""
    user("+@all")
    url = backend_url(f"redis://someone:secret-but-wrong@127.0.0.1:{guarded.port}/0", variant)
    assert "wrong user name or password" in await refusal(url)


async def test_a_missing_password() -> None:
    """A server that wants a password says so before anything else."""
    with RedisServer("redis70") as server:
        with server.client() as client:
            client.config_set("requirepass", "secret")
        assert "wants a password" in await refusal(f"redis://127.0.0.1:{server.port}")


@BOTH
async def test_a_wrong_database(guarded: RedisServer, variant: str) -> None:
    """A database number that the server does not have."""
    url = backend_url(f"redis://127.0.0.1:{guarded.port}/99", variant)
    assert "no such database" in await refusal(url)


@pytest.mark.parametrize(
    "variant, rules, missing",
    [
        ("", ("+@all", "-subscribe", "allchannels"), r"+subscribe"),
        ("", ("+@all", "-publish", "allchannels"), "+publish"),
        ("", ("+@all", "resetchannels"), "&PATTERN"),
        ("streams", ("+@all", "-info", "~*", "allchannels"), "+info"),
        ("streams", ("+@all", "-script", "~*", "allchannels"), "+script"),
        ("streams", ("+@all", "-evalsha", "~*", "allchannels"), "+evalsha"),
        ("streams", ("+@all", "-xadd", "~*", "allchannels"), "the rights that the scripts need"),
        ("streams", ("+@all", "~other:*", "allchannels"), "~PATTERN"),
        ("streams", ("+@all", "~*", "resetchannels"), "&PATTERN"),
    ],
)
async def test_a_missing_right_is_named(user: Give, variant: str, rules: tuple[str, ...], missing: str) -> None:
    """The message names the rule to grant."""
    assert missing in await refusal(user(*rules, variant=variant))


@pytest.mark.parametrize(
    "variant, rules",
    [
        ("", ("+subscribe", "+unsubscribe", "+publish", "+ping", "&channels:*")),
        (
            "streams",
            (
                "~{channels:*",
                "&{channels:*",
                *("+subscribe", "+unsubscribe", "+publish", "+evalsha", "+script|load", "+info"),
                *("+hmget", "+hset", "+hgetall", "+hdel", "+del", "+xadd", "+xtrim", "+xrange", "+pexpire", "+time"),
            ),
        ),
    ],
)
async def test_the_documented_rights_are_enough(user: Give, variant: str, rules: tuple[str, ...]) -> None:
    """A user with exactly the rights that the documentation lists can do everything."""
    await use(create_backend(user(*rules, variant=variant)))


@BOTH
async def test_a_user_that_is_switched_off_meanwhile(guarded: RedisServer, user: Give, variant: str) -> None:
    """When nobody is let in any more who was before, a publish may be tried again, and works when they are."""
    backend = create_backend(user("+@all", "~*", "allchannels", variant=variant))
    await backend.on_startup()
    batch = [Publication(b"x", ("channel",), ("lane", number)) for number in (1, 2)]
    with guarded.client() as client:
        execute: Any = client.execute_command
        execute("ACL", "SETUSER", "someone", "off")
        execute("CLIENT", "KILL", "USER", "someone")
        with pytest.raises(BackendConnectionError):  # the first learns that the connection is gone
            await backend.publish_batch(batch)
        with pytest.raises(BackendConnectionError, match="switched off"):
            await backend.publish_batch(batch)
        execute("ACL", "SETUSER", "someone", "on")
    assert await backend.publish_batch(batch) == [None, None]
    await backend.on_shutdown()


@BOTH
async def test_a_cluster_that_is_none(guarded: RedisServer, variant: str) -> None:
    """Asking a single server for its slots is refused with the URL to use."""
    url = backend_url(f"redis+cluster://127.0.0.1:{guarded.port}", variant)
    assert "use a redis:// URL" in await refusal(url)


@pytest.mark.parametrize("flavour", ["redis70", "valkey9"])
@pytest.mark.parametrize("protocol", [2, 3])
@BOTH
async def test_a_single_server_that_is_a_cluster(variant: str, protocol: int, flavour: RedisFlavour) -> None:
    """A node alone is refused with the URL to use: who publishes to it would not reach the cluster's subscribers."""
    with RedisServer(flavour, options={"cluster-enabled": "yes"}) as server:
        url = backend_url(f"redis://127.0.0.1:{server.port}", variant, protocol=protocol)
        assert "redis+cluster://" in await refusal(url)


async def test_sentinels_that_are_none(guarded: RedisServer) -> None:
    """A data server is no Sentinel."""
    assert "no Sentinel" in await refusal(f"redis+sentinel://127.0.0.1:{guarded.port}/main")


async def test_a_service_that_the_sentinels_do_not_know() -> None:
    """The name of the service is in the message."""
    with RedisSentinel() as sentinel:
        url = sentinel.url.replace("/channels/", "/other/")
        assert "knows no service 'other'" in await refusal(url)
        port = sentinel.sentinels[0].port
        assert "this is a Sentinel" in await refusal(f"redis://127.0.0.1:{port}")


async def test_a_primary_that_became_a_replica(guarded: RedisServer) -> None:
    """READONLY is a failover under way: retried, never given up."""
    with RedisServer("redis70") as replica:
        with replica.client() as client:
            execute: Any = client.execute_command
            execute("REPLICAOF", "127.0.0.1", guarded.port)
        assert "READONLY" in await refusal(f"redis+streams://127.0.0.1:{replica.port}", BackendConnectionError)


@BOTH
async def test_protected_mode(variant: str) -> None:
    """A server that lets nobody in from outside says so and hangs up."""
    async with greeting(b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n") as url:
        url = backend_url(url, variant)
        assert "protected mode" in await refusal(url, (BackendError, BackendConnectionError))


@BOTH
async def test_something_else_on_the_port(variant: str) -> None:
    """What does not speak Redis is no broker."""
    async with greeting(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert "redis at 127.0.0.1" in await refusal(backend_url(url, variant), BackendConnectionError)


async def test_tls_where_none_is_expected() -> None:
    """A plain connection to a TLS port gets the hint to use rediss://."""
    with RedisServer("redis70", tls=True) as server:
        assert "rediss://" in await refusal(f"redis://127.0.0.1:{server.port}", BackendConnectionError)
