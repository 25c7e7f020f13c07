"""Cutting a batch into what one statement publishes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from channels_core.backend import Publication
from channels_postgres._envelope import name_bytes

__all__ = ("Portion", "portions_of")

PORTION_BYTES: Final = 16 * 1024 * 1024
"""Payload bytes after which a batch goes on in another statement; only events with very many channels reach it."""


class Portion(msgspec.Struct):
    """Rows of one lane, side by side; the lane is ``""`` for events that nobody retries."""

    lane: str
    names: list[bytes] = msgspec.field(default_factory=list)
    numbers: list[int] = msgspec.field(default_factory=list)
    payloads: list[bytes] = msgspec.field(default_factory=list)
    size: int = 0

    def add(self, name: bytes, number: int, payload: bytes) -> None:
        """Append a row."""
        self.names.append(name)
        self.numbers.append(number)
        self.payloads.append(payload)
        self.size += len(payload)


def portions_of(batch: Iterable[Publication]) -> Iterator[Portion]:
    """Yield portions in the order of the batch; numbers that do not ascend in their channel and lane are left out."""
    highest: dict[tuple[str, bytes], int] = {}
    portion = Portion("")
    for publication in batch:
        lane, number = publication.key or ("", 0)
        for name in map(name_bytes, dict.fromkeys(publication.channels)):
            if lane and number <= highest.get((lane, name), number - 1):
                continue
            highest[lane, name] = number
            if portion.lane != lane or portion.size > PORTION_BYTES:
                if portion.names:
                    yield portion
                portion = Portion(lane)
            portion.add(name, number, publication.data)
    if portion.names:
        yield portion
