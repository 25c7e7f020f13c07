"""Names on the server: byte-exact, one slot per channel, no two prefixes share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from channels_core.exceptions import ImproperlyConfigured
from channels_redis._names import checked_prefix, pubsub_name, slot_of, stream_tag
from channels_redis._runs import make_keys

PREFIXES = st.text(min_size=1).filter(lambda text: not set(text) & set(":{}"))
ANY_TEXT = st.text(st.characters(codec=None))


@given(PREFIXES, ANY_TEXT, PREFIXES, ANY_TEXT)
def test_two_applications_never_share_a_name(prefix: str, channel: str, other: str, other_channel: str) -> None:
    """Different pairs of prefix and channel have different names."""
    same = (prefix, channel) == (other, other_channel)
    assert (pubsub_name(prefix, channel) == pubsub_name(other, other_channel)) == same
    assert (stream_tag(prefix, channel) == stream_tag(other, other_channel)) == same


def test_a_prefix_that_could_collide_is_refused() -> None:
    """Prefix "a" with channel "b:c" would be prefix "a:b" with channel "c"."""
    for prefix in ("", "a:b", "{a", "a}"):
        with pytest.raises(ImproperlyConfigured, match="key_prefix"):
            checked_prefix(prefix)
    assert checked_prefix("app.prod") == "app.prod"


@given(PREFIXES, ANY_TEXT)
def test_all_keys_of_a_channel_have_one_slot(prefix: str, channel: str) -> None:
    """A script may touch one slot only, whatever the name holds."""
    keys = make_keys(prefix, channel, 0)
    assert len({slot_of(key) for key in (keys.record, keys.stream, keys.live)}) == 1


@given(st.binary())
def test_slots_are_those_of_the_driver(key: bytes) -> None:
    """The hash slot agrees with an implementation that is not ours."""
    assert slot_of(key) == key_slot(key)


def test_live_events_of_databases_are_apart() -> None:
    """Redis Pub/Sub knows no databases, so the name of the live channel holds the number."""
    assert make_keys("p", "c", 0).live == b"{p:c}"
    assert make_keys("p", "c", 3).live == b"{p:c}@3"
