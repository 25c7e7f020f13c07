"""Envelopes: exact for every payload, unmoved by garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_core.events import Position
from channels_redis._envelope import UNPLACED, EnvelopeReader


@given(st.binary())
def test_any_payload_comes_back(data: bytes) -> None:
    """Line feeds, colons and zero bytes in a payload are just bytes."""
    envelope = EnvelopeReader().read(b"1:abc:42:1700000000000\n" + data)
    assert envelope is not None
    assert (envelope.position, envelope.time_ms, envelope.data) == (Position("abc", 42), 1_700_000_000_000, data)


@given(st.binary())
def test_a_sign_of_life_has_no_position(data: bytes) -> None:
    """The envelope of a probe gives the bare payload."""
    envelope = EnvelopeReader().read(UNPLACED + data)
    assert envelope is not None
    assert (envelope.position, envelope.data) == (None, data)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\n",
        b"plain text",
        b"2:abc:1:2\nfrom the future",
        b"1:abc:1\nno time",
        b"1:abc:1:2",
        b"1:abc:-1:2\n",
        b"1:abc:1_0:2\n",
        b"1:abc: 1:2\n",
        b"1:abc::2\n",
        b"1::7:2\n",
        b"1:abc:" + b"9" * 40 + b":2\n",
        b"1:a:b:1:2\n",
        None,
        7,
        [b"1:abc:1:2\n"],
    ],
)
def test_what_is_no_envelope_is_none(blob: object) -> None:
    """Foreign, damaged and future envelopes are told apart from events."""
    assert EnvelopeReader().read(blob) is None


@given(st.binary() | st.binary().map(lambda rest: b"1:" + rest))
def test_garbage_never_raises(blob: bytes) -> None:
    """Nothing that arrives can crash the reader."""
    envelope = EnvelopeReader().read(blob)
    assert envelope is None or blob.endswith(envelope.data)
