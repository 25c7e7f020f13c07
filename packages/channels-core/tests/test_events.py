from __future__ import annotations

import base64
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_core import Cursor, Position
from channels_core.events import ORIGIN
from channels_core.exceptions import ChannelsException, InvalidCursor

text = st.text(max_size=20)
positions = st.builds(Position, text, st.integers(0, 2**63 - 1))


@given(positions)
def test_position_round_trip(position: Position) -> None:
    """A position is what its text says, whatever its epoch holds."""
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "damaged", ["", "e", "5", "e:", "e:-1", "e:+1", "e: 1", "e:1 ", "e:01", "e:1x", "e:\u0661", "e:" + "1" * 20]
)
def test_position_refuses_what_it_would_not_write(damaged: str) -> None:
    """Only the one text of a position is read."""
    with pytest.raises(InvalidCursor, match="no position"):
        Position.parse(damaged)


def test_position_before() -> None:
    """The position before stands in the same epoch."""
    assert Position("e", 7).before() == Position("e", 6)


@given(st.dictionaries(text, positions, max_size=5))
def test_cursor_round_trip(mapping: dict[str, Position]) -> None:
    """A cursor is what its token says, whatever the channels' names hold."""
    cursor = Cursor(mapping)
    token = str(cursor)

    assert Cursor.parse(token) == cursor
    assert hash(Cursor.parse(token)) == hash(cursor)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_cursor_token_does_not_depend_on_order() -> None:
    """Equal cursors have equal tokens."""
    a, b = Position("e", 1), Position("f", 2)
    assert str(Cursor({"a": a, "b": b})) == str(Cursor({"b": b, "a": a}))


def test_cursor_is_a_mapping_of_its_own() -> None:
    """A cursor neither changes with the mapping it was made of nor hides what it holds."""
    source = {"a": ORIGIN}
    cursor = Cursor(source)
    source["b"] = ORIGIN

    assert dict(cursor) == {"a": ORIGIN}
    assert len(cursor) == 1
    assert repr(cursor) == f"Cursor({{'a': {ORIGIN!r}}})"
    assert len(Cursor()) == 0


def token_of(rows: object) -> str:
    body = msgspec.msgpack.encode(rows)
    return base64.urlsafe_b64encode(zlib.crc32(body).to_bytes(4, "big") + body).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "x",
        "not a token",
        "ü",
        str(Cursor({"a": ORIGIN}))[:-1],
        str(Cursor({"a": ORIGIN})) + "A",
        "A" * 5_000,
        token_of([("a", "e", -1)]),
        token_of([("a", "e", 2**63)]),
        token_of([("a", "e")]),
        token_of({"a": 1}),
    ],
)
def test_cursor_refuses_damaged_tokens(damaged: str) -> None:
    """A damaged token is named so, is no longer than it must be, and the message says what to do."""
    with pytest.raises(InvalidCursor, match="start without one") as caught:
        Cursor.parse(damaged)
    assert isinstance(caught.value, ChannelsException)
    assert len(str(caught.value)) < 300


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_cursor_finds_every_changed_byte(where: int, change: int) -> None:
    """No single changed byte gives another cursor."""
    token = str(Cursor({"news": Position("epoch", 12)}))
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[where % len(raw)] ^= change
    with pytest.raises(InvalidCursor):
        Cursor.parse(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode())
