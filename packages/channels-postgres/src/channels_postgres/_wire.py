"""PostgreSQL's binary format for the few types that our statements use.

Source: PostgreSQL 18, src/backend/utils/adt: int8send, byteasend, array_send.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from channels_postgres._driver import Argument

__all__ = ("BINARY", "decode_bytes", "decode_row", "encode_argument")

BINARY: Final = 1
"""libpq's number for the binary format."""

_INT8: Final = struct.Struct("!q")
_FLOAT8: Final = struct.Struct("!d")
_LENGTH: Final = struct.Struct("!i")
_ARRAY_HEAD: Final = struct.Struct("!iiIii")
"""Dimensions, whether it has nulls, the elements' type, length, first index."""

_BYTEA, _BIGINT, _TEXT, _BYTEA_ARRAY = 17, 20, 25, 1001


def decode_bytes(raw: bytes) -> list[bytes]:
    """Return the elements of an array of ``bytea`` without nulls."""
    elements: list[bytes] = []
    at = _ARRAY_HEAD.size
    while at < len(raw):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(raw, at)[0]
        elements.append(raw[start:at])
    return elements


_DECODERS: Final[Mapping[int, Callable[[bytes], Any]]] = {
    16: lambda raw: raw == b"\1",  # boolean
    _BYTEA: bytes,
    _BIGINT: lambda raw: _INT8.unpack(raw)[0],
    _TEXT: lambda raw: raw.decode("utf-8"),
    _BYTEA_ARRAY: decode_bytes,
    2278: lambda _raw: None,  # void
}


def encode_argument(value: Argument) -> bytes:
    """Return one argument, for a cast to ``text``, ``bytea``, ``bigint``, ``float8`` or a non-empty array of them."""
    if isinstance(value, (bytes, str, int, float)):
        return _encode_scalar(value)
    head = _ARRAY_HEAD.pack(1, 0, _element_type(value[0]), len(value), 1)
    encoded = [_encode_scalar(each) for each in value]
    parts = [part for each in encoded for part in (_LENGTH.pack(len(each)), each)]
    return b"".join((head, *parts))


def decode_row(result: PGresult, row: int) -> tuple[Any, ...]:
    """Return one row of a result that came in binary."""
    return tuple(_decode(result, row, column) for column in range(result.nfields))


def _decode(result: PGresult, row: int, column: int) -> Any:
    raw = result.get_value(row, column)
    return None if raw is None else _DECODERS[result.ftype(column)](raw)


def _encode_scalar(value: bytes | str | int | float) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    return _INT8.pack(value) if isinstance(value, int) else _FLOAT8.pack(value)


def _element_type(first: bytes | str | int) -> int:
    return _BYTEA if isinstance(first, bytes) else _TEXT if isinstance(first, str) else _BIGINT
