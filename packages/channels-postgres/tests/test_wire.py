"""The binary format that the psycopg backend speaks."""

from __future__ import annotations

import pytest
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.array import ListBinaryDumper

from channels_postgres._wire import decode_bytes, encode_argument


@pytest.mark.parametrize("value", [b"", b"\0\xff", "", "ü", 0, -1, 2**62, 1.5])
def test_scalars(value: bytes | str | int | float) -> None:
    """Scalars have the widths that our casts expect."""
    encoded = encode_argument(value)
    if isinstance(value, (int, float)):
        assert len(encoded) == 8
    else:
        assert encoded == (value if isinstance(value, bytes) else value.encode())


@pytest.mark.parametrize("value", [[b"a", b"", b"\0\xff"], ["a", "ü"], [2**40, -(2**40)]])
def test_arrays_are_written_as_psycopg_does(value: list[bytes] | list[str] | list[int]) -> None:
    """Our few lines agree with the driver's own adapter."""
    expected = ListBinaryDumper(list, Transformer())
    dumper = expected.upgrade(value, PyFormat.BINARY)
    assert encode_argument(value) == dumper.dump(value)


@pytest.mark.parametrize("value", [[b"a", b"", b"\0\xff"], [b""]])
def test_arrays_of_bytes_are_read_as_they_are_written(value: list[bytes]) -> None:
    """What the server sends has the form of what it is sent."""
    assert decode_bytes(encode_argument(value)) == value
