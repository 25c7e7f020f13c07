"""Cutting a batch into what one statement publishes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from typing import Final

import msgspec

from channels_core.backend import Publication
from channels_postgres._envelope import name_bytes

__all__ = ("Portion", "portions_of")

PORTION_BYTES: Final = 16 * 1024 * 1024
"""Payload bytes after which a batch goes on in another statement; only events with very many channels reach it."""


class Chunk(msgspec.Struct):
    """Events of one channel, side by side with their numbers in the lane."""

    numbers: list[int]
    payloads: list[bytes]


class Portion(msgspec.Struct):
    """Events of one lane by channel; the lane is ``""`` for events that nobody retries."""

    lane: str
    chunks: dict[str, Chunk] = msgspec.field(default_factory=dict)
    size: int = 0

    @property
    def names(self) -> list[bytes]:
        """The channels, as they are kept."""
        return [name_bytes(channel) for channel in self.chunks]

    @property
    def ends(self) -> list[int]:
        """Where each channel's events end in `numbers` and `payloads`."""
        return list(accumulate(len(chunk.payloads) for chunk in self.chunks.values()))

    @property
    def numbers(self) -> list[int]:
        """The number of each event in the lane."""
        return list(chain.from_iterable(chunk.numbers for chunk in self.chunks.values()))

    @property
    def payloads(self) -> list[bytes]:
        """The events themselves."""
        return list(chain.from_iterable(chunk.payloads for chunk in self.chunks.values()))

    def add(self, channel: str, number: int, payload: bytes) -> None:
        """Append an event, unless it has come already."""
        chunk = self.chunks.get(channel)
        if chunk is None:
            self.chunks[channel] = Chunk([number], [payload])
        elif number > chunk.numbers[-1] or not self.lane:
            chunk.numbers.append(number)
            chunk.payloads.append(payload)
        else:
            return
        self.size += len(payload)


def portions_of(batch: Iterable[Publication]) -> Iterator[Portion]:
    """Yield portions, in the order of the batch for each channel; what does not ascend in its lane is left out."""
    portion = Portion("")
    for publication in batch:
        data, channels = publication.data, publication.channels
        lane, number = publication.key or ("", 0)
        for channel in channels if len(channels) == 1 else dict.fromkeys(channels):
            if portion.lane != lane or portion.size > PORTION_BYTES:
                if portion.chunks:
                    yield portion
                portion = Portion(lane)
            portion.add(channel, number, data)
    if portion.chunks:
        yield portion
