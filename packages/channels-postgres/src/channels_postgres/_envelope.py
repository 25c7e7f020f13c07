"""Events in notifications: any bytes, any name, any size, through payloads of text shorter than 8,000 bytes.

The events of one transaction for one bucket are packed into one MessagePack list of channels, each with its events,
written as base64 and cut into as many notifications as it takes. They arrive together and in order, because a
transaction's notifications do.
Each part is ``1<batch>.<number>.<total>.<text>``: the version of this format, and a number that no other part has,
because the server folds identical notifications of one transaction into one.

Source: PostgreSQL 18 manual, NOTIFY.
"""

from __future__ import annotations

import base64
import itertools
import logging
import secrets
from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec

__all__ = ("BUCKETS", "Assembler", "Group", "Packer", "bucket_of", "name_bytes", "name_text")

BUCKETS: Final = 64
"""Physical channels that names are hashed to. All processes must agree on it.

The server walks a list of the names that a session listens to for every notification, so thousands of names would
slow down everybody's NOTIFY; and the fewer the buckets, the more events fit into one notification.
"""

_logger: Final = logging.getLogger("channels_postgres")

_VERSION: Final = "1"

_PART_BYTES: Final = 7_900
"""The server takes at most 7,999 bytes with its default block size; the rest is for the header."""

Group = tuple[bytes, list[bytes]]
"""Channel name and the data of its events: a name once per batch, and little work per event."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Group]).decode


def name_bytes(channel: str) -> bytes:
    """Return a channel's name as it is kept and sent; every string has one, lone surrogates included."""
    return channel.encode("utf-8", "surrogatepass")


def name_text(name: bytes) -> str:
    """Undo `name_bytes`."""
    return name.decode("utf-8", "surrogatepass")


def bucket_of(name: bytes) -> int:
    """Return the bucket of a channel's name."""
    return crc32(name) % BUCKETS


class Packer:
    """Writes events into notification payloads."""

    def __init__(self) -> None:
        self._sender: Final = _VERSION + secrets.token_hex(6)
        self._numbers: Final = itertools.count()

    def pack(self, groups: Sequence[Group]) -> list[str]:
        """Return the payloads that carry these events, in the order in which they must be sent."""
        text = base64.b64encode(_encode(groups)).decode("ascii")
        total = -(-len(text) // _PART_BYTES)
        head = f"{self._sender}{next(self._numbers)}"
        return [f"{head}.{part}.{total}.{text[part * _PART_BYTES : (part + 1) * _PART_BYTES]}" for part in range(total)]

    def pack_by_bucket(self, groups: Iterable[Group]) -> tuple[list[int], list[str]]:
        """Return buckets and payloads, side by side, for events of any channels."""
        by_bucket: dict[int, list[Group]] = {}
        for group in groups:
            by_bucket.setdefault(bucket_of(group[0]), []).append(group)
        buckets: list[int] = []
        payloads: list[str] = []
        for bucket, members in by_bucket.items():
            parts = self.pack(members)
            buckets += [bucket] * len(parts)
            payloads += parts
        return buckets, payloads


class Assembler:
    """Reads what `Packer` wrote, from one physical channel.

    Attributes:
        damaged: How many notifications could not be read: written by something else, or with parts missing.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._head = ""
        self._parts: list[str] = []

    def feed(self, payload: str) -> list[Group]:
        """Return the events that this payload completes, mostly all of them or, of a large batch, none yet."""
        try:
            head, part, total, text = payload.split(".", 3)
            return self._take(head, int(part), int(total), text)
        except (ValueError, msgspec.DecodeError):
            self.damaged += 1
            if self.damaged == 1:
                _logger.warning("skipped a notification that is no event of ours; further ones are only counted")
            self._parts = []
            return []

    def _take(self, head: str, part: int, total: int, text: str) -> list[Group]:
        if not head.startswith(_VERSION):
            raise ValueError("another version")
        if part == 0:
            self._head, self._parts = head, []
        if head != self._head or part != len(self._parts):
            raise ValueError("a part is missing")
        self._parts.append(text)
        if part + 1 < total:
            return []
        whole, self._parts = "".join(self._parts), []
        return _decode(base64.b64decode(whole, validate=True))
