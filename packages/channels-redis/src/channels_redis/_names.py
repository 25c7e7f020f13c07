"""What a channel is called on the server: byte-exact, and no two prefixes ever share a name."""

from __future__ import annotations

import binascii
from typing import Final

from channels_core.exceptions import ImproperlyConfigured

__all__ = ("DEFAULT_PREFIX", "checked_prefix", "encode_name", "pubsub_name", "slot_of", "stream_tag")

DEFAULT_PREFIX: Final = "channels"
"""The prefix of every name on the server unless another is asked for."""

SLOTS: Final = 16_384
"""How many hash slots a cluster has (Redis cluster specification)."""

_FORBIDDEN: Final = ":{}"
# A colon ends the prefix: were it allowed inside, prefix "a" with channel "b:c" and prefix "a:b" with channel "c"
# would be one name. Braces decide which part of a key a cluster hashes.


def checked_prefix(prefix: str) -> str:
    """Return the prefix.

    Raises:
        ImproperlyConfigured: It is empty, or could collide with another prefix.
    """
    if not prefix or any(character in _FORBIDDEN for character in prefix):
        raise ImproperlyConfigured(
            f"key_prefix {prefix!r} must be a text without ':', '{{' and '}}', for example 'app.prod'"
        )
    return prefix


def encode_name(name: str) -> bytes:
    """Return the bytes of a name; every name has its own."""
    # A lone surrogate is no text that Redis must understand, but it must not be another channel either.
    return name.encode("utf-8", "surrogatepass")


def pubsub_name(prefix: str, channel: str) -> bytes:
    """Return the Redis channel that carries the events of a Pub/Sub backend: ``PREFIX:CHANNEL``."""
    return encode_name(f"{prefix}:{channel}")


def stream_tag(prefix: str, channel: str) -> bytes:
    """Return what all keys of one channel begin with, ``{PREFIX:CHANNEL}``: one hash slot, whatever the name holds."""
    return encode_name(f"{{{prefix}:{channel}}}")


def slot_of(key: bytes) -> int:
    """Return the hash slot of a key.

    Source: Redis cluster specification, "Hash tags": what stands between the first ``{`` and the first ``}`` after it
    is hashed if there is any, otherwise the whole key; CRC-16/XMODEM modulo 16384.
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS
