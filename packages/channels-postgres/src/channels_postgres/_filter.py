"""Which channels are subscribed, in a form that is small enough to go along with every read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

__all__ = ("ChannelFilter", "channel_hash")

_LEAST_BITS: Final = 1_024
_BITS_PER_CHANNEL: Final = 8
"""At least so many, at most twice as many: one event in ten of other channels is sent in vain, at the most."""


def channel_hash(name: bytes) -> int:
    """Return the hash that the server stores with each event; must agree with ``channel_hash`` in schema.sql."""
    return int.from_bytes(sha256(name).digest()[:4], "big")


class ChannelFilter:
    """A bitmap over the hashes of channels: no false negatives, few false positives, a few KB for 10,000 channels.

    Bits of channels that were removed stay until as many were removed as are left.
    """

    def __init__(self) -> None:
        self._uses: Final[Counter[int]] = Counter()  # two channels may have the same hash
        self._stale = 0
        self._bits = bytearray(_LEAST_BITS // 8)

    @property
    def bits(self) -> bytes:
        """The bitmap, in the server's order of bits: bit ``n`` is ``get_bit(bitmap, n)``."""
        return bytes(self._bits)

    @property
    def mask(self) -> int:
        """What to take of a hash to get the number of its bit."""
        return len(self._bits) * 8 - 1

    def add(self, names: Iterable[bytes]) -> None:
        """Let these channels through, none of which is there yet."""
        hashes = [channel_hash(name) for name in names]
        self._uses.update(hashes)
        if len(self._uses) * _BITS_PER_CHANNEL > len(self._bits) * 8:
            self._rebuild()
        else:
            self._set(hashes)

    def remove(self, names: Iterable[bytes]) -> None:
        """Stop letting these channels through, all of which were added, sooner or later."""
        for each in map(channel_hash, names):
            self._uses[each] -= 1
            if not self._uses[each]:
                del self._uses[each]
                self._stale += 1
        if self._stale > len(self._uses):
            self._rebuild()

    def _rebuild(self) -> None:
        size = _LEAST_BITS
        while size < len(self._uses) * _BITS_PER_CHANNEL:
            size *= 2
        self._bits = bytearray(size // 8)
        self._stale = 0
        self._set(self._uses)

    def _set(self, hashes: Iterable[int]) -> None:
        bits, mask = self._bits, self.mask
        for each in hashes:
            number = each & mask
            bits[number >> 3] |= 1 << (number & 7)
