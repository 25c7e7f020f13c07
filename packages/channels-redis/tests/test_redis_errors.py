"""Refusals: what heals is retried, what does not is explained."""

from __future__ import annotations

import pytest
from redis import exceptions as driver

from channels_core.exceptions import BackendConnectionError, BackendError
from channels_redis._errors import (
    Ask,
    Moved,
    Redirect,
    Unloaded,
    explain_driver,
    explain_reply,
    has_errors,
    is_demotion,
)


@pytest.mark.parametrize(
    "message",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN Hash slot not served",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "NOREPLICAS Not enough good replicas to write.",
        "BUSY Redis is busy running a script.",
        "ERR max number of clients reached",
        "ERR Error running script (call to f_12ab): @user_script:3: @user_script: 3: -READONLY You can't write",
    ],
)
def test_what_heals_is_retried(message: str) -> None:
    """A server that starts, fails over or migrates is a connection that is not there yet."""
    assert isinstance(explain_reply(message), BackendConnectionError)


@pytest.mark.parametrize(
    "message, advice",
    [
        ("NOAUTH Authentication required.", "wants a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "wrong user name or password"),
        ("DENIED Redis is running in protected mode because", "protected mode"),
        ("NOPERM User bob has no permissions to run the 'publish' command", r"\+publish"),
        ("NOPERM this user has no permissions to run the 'script|load' command", r"\+script\|load"),
        ("NOPERM No permissions to access a key", "~PATTERN"),
        ("NOPERM No permissions to access a channel", "&PATTERN"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "redis.cluster"),
        ("ERR This instance has cluster support disabled", "redis://"),
        ("ERR DB index is out of range", "no such database"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "key_prefix"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
        ("ERR unknown command 'SENTINEL', with args beginning with:", "no Sentinel"),
        ("ERR unknown command `SSUBSCRIBE`, with args beginning with:", "Redis 7"),
        ("ERR something new", "something new"),
    ],
)
def test_what_does_not_heal_says_what_to_do(message: str, advice: str) -> None:
    """A refusal names its cure where there is one."""
    error = explain_reply(message)
    assert isinstance(error, BackendError)
    assert error.args[0].startswith("redis refused")
    with pytest.raises(BackendError, match=advice):
        raise error


def test_redirections_are_no_errors() -> None:
    """MOVED, ASK and NOSCRIPT mean "not run"."""
    moved = explain_reply("MOVED 3999 127.0.0.1:6381")
    assert isinstance(moved, Moved)
    assert (moved.slot, moved.address) == (3999, "127.0.0.1:6381")
    ask = explain_reply("ASK 3999 127.0.0.1:6382")
    assert isinstance(ask, Ask)
    assert ask.address == "127.0.0.1:6382"
    assert isinstance(explain_reply("NOSCRIPT No matching script. Please use EVAL."), Unloaded)


def test_a_demoted_primary_is_told_apart() -> None:
    """Only READONLY and MASTERDOWN ask for another server."""
    assert is_demotion(explain_reply("READONLY You can't write against a read only replica."))
    assert not is_demotion(explain_reply("LOADING Redis is loading the dataset in memory"))
    assert not is_demotion(b"READONLY")


@pytest.mark.parametrize(
    "error, expected",
    [
        (driver.ConnectionError("Error 111 connecting to h:1. Connection refused."), BackendConnectionError),
        (driver.TimeoutError("Timeout connecting to server"), BackendConnectionError),
        (driver.BusyLoadingError("Redis is loading the dataset in memory"), BackendConnectionError),
        (OSError("no route"), BackendConnectionError),
        (driver.AuthenticationError("invalid username-password pair or user is disabled."), BackendError),
        (driver.NoPermissionError("User x has no permissions to run the 'select' command"), BackendError),
        (driver.ResponseError("DB index is out of range"), BackendError),
        (driver.ResponseError("unknown command 'HELLO'"), BackendError),
        (TypeError("unexpected keyword argument"), BackendError),
    ],
)
def test_errors_of_the_driver_are_mapped_once(error: Exception, expected: type[Exception]) -> None:
    """What redis-py raises while connecting becomes one of the two errors, with the address."""
    mapped = explain_driver(error, "h:1")
    assert type(mapped) is expected
    assert "h:1" in str(mapped)


def test_one_error_among_many_replies_is_found() -> None:
    """The check that all replies of a batch go through misses no kind of error."""
    for error in (BackendError("no"), BackendConnectionError("gone"), Redirect("elsewhere")):
        assert has_errors([1, b"x", None, error, []])
    assert not has_errors([1, b"x", None, []])
    assert not has_errors([])
