"""URLs: every scheme gives the servers and options that it says."""

from __future__ import annotations

import re

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from channels_core.exceptions import ImproperlyConfigured, InvalidURL
from channels_redis import RedisChannelsPubSubBackend, RedisChannelsStreamBackend
from channels_redis._settings import ClusterSettings, SentinelSettings, ServerSettings
from channels_redis._url import read_settings


def server(url: str) -> ServerSettings:
    settings = read_settings(url)
    assert isinstance(settings, ServerSettings)
    return settings


def test_a_bare_url_means_the_usual_server() -> None:
    """Host, port and database have the usual defaults, and the protocol is 2."""
    settings = server("redis://")
    assert (settings.connection_class, settings.address, settings.database) == (Connection, "localhost:6379", 0)
    assert settings.kwargs["protocol"] == 2


def test_credentials_are_unquoted() -> None:
    """User and password may hold any character, percent-encoded."""
    settings = server("redis://us%40er:p%3Aa%2Fss@redis.example:6380/3?protocol=3")
    assert settings.address == "redis.example:6380"
    assert settings.kwargs == {
        "protocol": 3,
        "username": "us@er",
        "password": "p:a/ss",
        "db": 3,
        "host": "redis.example",
        "port": 6380,
    }


def test_a_password_without_a_user() -> None:
    """``redis://:password@host`` logs in as the default user."""
    assert "username" not in server("redis://:secret@h").kwargs
    assert server("redis://:secret@h").kwargs["password"] == "secret"


def test_tls_takes_the_options_of_the_driver() -> None:
    """``rediss://`` connects by TLS, and its parameters reach the driver."""
    settings = server("rediss://h:1/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=false")
    assert settings.connection_class is SSLConnection
    assert settings.kwargs["ssl_ca_certs"] == "/ca.pem"
    assert settings.kwargs["ssl_check_hostname"] is False


def test_a_unix_socket() -> None:
    """``redis+unix://`` names a path."""
    settings = server("redis+unix:///run/my%20redis.sock?db=2")
    assert settings.connection_class is UnixDomainSocketConnection
    assert (settings.address, settings.database) == ("/run/my redis.sock", 2)


def test_several_nodes_of_a_cluster() -> None:
    """``redis+cluster://`` lists nodes to start from; one is enough."""
    settings = read_settings("rediss+cluster+streams://u:p@a:1,b,[::1]:3")
    assert isinstance(settings, ClusterSettings)
    assert list(settings.start) == [("a", 1), ("b", 6379), ("::1", 3)]
    assert settings.server.connection_class is SSLConnection
    assert settings.server.kwargs["password"] == "p"


def test_sentinels_have_credentials_of_their_own() -> None:
    """User and password are the primary's; Sentinels get theirs by parameter."""
    settings = read_settings("redis+sentinel://u:p@a,b:2/main/4?sentinel_password=q")
    assert isinstance(settings, SentinelSettings)
    assert [each.address for each in settings.sentinels] == ["a:26379", "b:2"]
    assert settings.service == "main"
    assert settings.server.database == 4
    assert settings.server.kwargs["password"] == "p"
    assert settings.sentinels[0].kwargs["password"] == "q"
    assert "db" not in settings.sentinels[0].kwargs


@pytest.mark.parametrize(
    "url, complaint",
    [
        ("redis://h/x", "database number"),
        ("redis://h:port", "no port"),
        ("redis://h:70000", "no port"),
        ("redis://a,b", "redis+cluster://"),
        ("redis+sentinel://a", "lacks the service"),
        ("redis://h?protocol=4", "protocol"),
        ("redis://user:pw@[::1", "stands in brackets"),
    ],
)
def test_what_cannot_be_read_says_why(url: str, complaint: str) -> None:
    """A mistake in the URL is an error that names it."""
    with pytest.raises(InvalidURL, match=re.escape(complaint)):
        read_settings(url)


def test_an_unknown_parameter_lists_the_valid_ones() -> None:
    """Timeouts and retries are ours, so they are no parameters."""
    with pytest.raises(InvalidURL, match=r"socket_timeout.*key_prefix") as caught:
        RedisChannelsPubSubBackend.from_url("redis://:secret@h?socket_timeout=3")
    assert "secret" not in str(caught.value)


def test_history_is_no_parameter_without_streams() -> None:
    """``redis://…?history=100`` would keep none and must not look as if it did."""
    with pytest.raises(InvalidURL, match="history"):
        RedisChannelsPubSubBackend.from_url("redis://h?history=100")


def test_streams_take_their_options() -> None:
    """All options of the constructor can stand in the URL."""
    url = "redis+streams://h?history=7&max_age=1.5&record_ttl=60&approximate=false&key_prefix=app"
    backend = RedisChannelsStreamBackend.from_url(url)
    assert backend.keeps_history
    assert backend.key_prefix == "app"


@pytest.mark.parametrize("options", ["history=0", "max_age=100&record_ttl=10", "record_ttl=1e20"])
def test_options_that_contradict_each_other(options: str) -> None:
    """No history means another backend, and a record must outlive its events."""
    with pytest.raises(ImproperlyConfigured):
        RedisChannelsStreamBackend.from_url(f"redis+streams://h?{options}")
