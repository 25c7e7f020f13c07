from __future__ import annotations

import msgspec
import pytest

from channels_core.exceptions import InvalidURL
from channels_core.urls import Count, Seconds, parse_options, parse_url, redact_url, without_options


class Options(msgspec.Struct, frozen=True):
    history: Count = 0
    max_age: Seconds | msgspec.UnsetType | None = msgspec.UNSET
    ratio: float = 1.0
    quiet: bool = False
    prefix: str = "channels:"
    db_password: int = 0


class Nothing(msgspec.Struct, frozen=True):
    pass


def test_defaults_hold_without_query() -> None:
    """What the URL does not name keeps its default."""
    assert parse_options("test://host", Options) == Options()


@pytest.mark.parametrize(
    "query, expected",
    [
        ("history=100", Options(history=100)),
        ("history=0", Options(history=0)),
        ("max_age=60", Options(max_age=60.0)),
        ("max_age=0.5", Options(max_age=0.5)),
        ("max_age=none", Options(max_age=None)),
        ("ratio=-2", Options(ratio=-2.0)),
        ("quiet=true", Options(quiet=True)),
        ("quiet=false", Options(quiet=False)),
        ("prefix=", Options(prefix="")),
        ("prefix=a%3Ab%26c", Options(prefix="a:b&c")),
        ("history=1&quiet=true&prefix=x", Options(history=1, quiet=True, prefix="x")),
    ],
)
def test_values_are_typed(query: str, expected: Options) -> None:
    """Each parameter is read as the type of its field."""
    assert parse_options(f"test://host?{query}", Options) == expected


@pytest.mark.parametrize(
    "query, message",
    [
        ("history=many", "history='many' in 'test://h?history=many': expected `int`"),
        ("history=-1", "history='-1' in 'test://h?history=-1': expected `int` >= 0"),
        ("history=none", "history='none' in 'test://h?history=none': expected `int`"),
        ("max_age=soon", "max_age='soon' in 'test://h?max_age=soon': expected `float | none`"),
        ("max_age=0", "max_age='0' in 'test://h?max_age=0': expected `float` > 0.0"),
        ("ratio=inf", "ratio='inf' in 'test://h?ratio=inf': expected a finite number, or leave it out"),
        ("ratio=nan", "ratio='nan' in 'test://h?ratio=nan': expected a finite number, or leave it out"),
        ("quiet=perhaps", "quiet='perhaps' in 'test://h?quiet=perhaps': expected `bool`"),
        ("history=1&history=1", "'history' is repeated in 'test://h?history=1&history=1'; give it once"),
        ("history", "the query of 'test://h?history' cannot be read; expected NAME=VALUE&NAME=VALUE"),
        ("prefix=%ff", "the query of 'test://h?prefix=%ff' cannot be read; expected NAME=VALUE&NAME=VALUE"),
    ],
)
def test_bad_values_are_named(query: str, message: str) -> None:
    """A value that cannot be read is shown with what was expected."""
    with pytest.raises(InvalidURL) as caught:
        parse_options(f"test://h?{query}", Options)
    assert str(caught.value) == message


def test_unknown_parameter_lists_the_valid_ones() -> None:
    """An unknown parameter is refused with a suggestion and the list of valid ones, the driver's included."""
    with pytest.raises(InvalidURL) as caught:
        parse_options("test://h?histroy=1", Options, driver=("client_name",))
    assert str(caught.value) == (
        "unknown parameter 'histroy' in 'test://h?histroy=1', did you mean 'history'?; "
        "valid are client_name, db_password, history, max_age, prefix, quiet, ratio"
    )


def test_no_parameter_is_valid() -> None:
    """A URL scheme without parameters says that it takes none."""
    with pytest.raises(InvalidURL, match=r"unknown parameter 'x' in 'test://h\?x=1'; it takes none"):
        parse_options("test://h?x=1", Nothing)


def test_driver_parameters_are_left_alone() -> None:
    """The driver's own parameters are valid and not read."""
    assert parse_options(
        "test://h?client_name=%F0&history=1".replace("%F0", "me"), Options, driver={"client_name"}
    ) == (Options(history=1))


def test_bad_secret_is_not_shown() -> None:
    """A value that cannot be read is masked when its name says that it is secret."""
    with pytest.raises(InvalidURL) as caught:
        parse_options("test://user:hunter2@h?db_password=hunter3", Options)
    assert str(caught.value) == "db_password=*** in 'test://user:***@h?db_password=***': expected `int`"


@pytest.mark.parametrize("url", ["", "localhost", "localhost:6379", "//host/0", "redis:host", "redis:/host", "://host"])
def test_url_needs_a_scheme(url: str) -> None:
    """Text without SCHEME:// is no backend URL."""
    with pytest.raises(InvalidURL, match="is no backend URL; expected SCHEME://…"):
        parse_url(url)


def test_a_url_may_name_several_hosts_in_brackets() -> None:
    """What recent releases of the standard library refuse is split as RFC 3986 says."""
    parts = parse_url("REDIS+cluster://user:p@ss@a:1,[::1]:2/0?x=1#end")
    assert parts == ("redis+cluster", "user:p@ss@a:1,[::1]:2", "/0", "x=1", "end")


@pytest.mark.parametrize(
    "url, shown",
    [
        ("memory://", "memory://"),
        ("redis://host:6379/0?history=1", "redis://host:6379/0?history=1"),
        ("redis://user@host", "redis://user@host"),
        ("redis://user:hunter2@host:6379", "redis://user:***@host:6379"),
        ("redis://:hunter2@h1:1,h2:2/0", "redis://:***@h1:1,h2:2/0"),
        ("redis://user:hun@ter2@host", "redis://user:***@host"),
        ("redis://user:hun/ter2@host", "redis://user:***@host"),
        ("redis://user:hun?ter2@host", "redis://user:***@host"),
        ("redis://user:hun#ter2@host", "redis://user:***@host"),
        ("redis://user:hun\nter2@host", "redis://user:***@host"),
        ("postgres://h/db?password=hunter2&x=1", "postgres://h/db?password=***&x=1"),
        ("postgres://h/db?x=1&sslPassword=hunter2#end", "postgres://h/db?x=1&sslPassword=***#end"),
        ("postgres://h/db?listen_dsn=postgresql%3A%2F%2Fu%3Ahunter2%40h%2Fdb", "postgres://h/db?listen_dsn=***"),
        ("not a url: user:pw@host", "not a url: user:pw@host"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    """A URL that is shown has no password, however badly it was quoted."""
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "url, expected",
    [
        ("test://h/0", "test://h/0"),
        ("test://h/0?history=1", "test://h/0"),
        ("test://h/0?history=1&client=%20+&max_age=none", "test://h/0?client=%20+"),
        ("test://h/0?his%74ory=1&a=b", "test://h/0?a=b"),
        ("test://h/0?a=b&history=1&c=d", "test://h/0?a=b&c=d"),
        ("test://h/0?history=1#end", "test://h/0#end"),
        ("test://h/0?a=b#history=1", "test://h/0?a=b#history=1"),
        ("test://h1:1,h2:2/0?a=history", "test://h1:1,h2:2/0?a=history"),
    ],
)
def test_driver_url_is_byte_exact(url: str, expected: str) -> None:
    """The driver gets the URL without our parameters and otherwise unchanged."""
    assert without_options(url, Options) == expected
