"""Events through notification payloads and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from channels_postgres._envelope import BUCKETS, Assembler, Group, Packer, bucket_of, name_bytes, name_text

EVENTS = st.lists(st.binary(max_size=9_000), min_size=1, max_size=5)
GROUPS = st.lists(st.tuples(st.binary(max_size=200), EVENTS), min_size=1, max_size=9)


@given(GROUPS)
def test_what_is_packed_comes_out(groups: list[Group]) -> None:
    """Any bytes come out unchanged and in order."""
    assembler = Assembler()
    received = [group for payload in Packer().pack(groups) for group in assembler.feed(payload)]
    assert received == groups
    assert assembler.damaged == 0


@given(GROUPS)
def test_payloads_suit_the_server(groups: list[Group]) -> None:
    """A payload is shorter than 8,000 bytes and plain ASCII, whatever the server's encoding."""
    for payload in Packer().pack(groups):
        assert len(payload) < 8_000
        assert payload.isascii()
        assert "\0" not in payload


def test_no_two_payloads_are_equal() -> None:
    """Equal events make different payloads, which the server does not fold."""
    packer = Packer()
    payloads = [payload for _ in range(3) for payload in packer.pack([(b"a", [bytes(100_000)])])]
    assert len(set(payloads)) == len(payloads) > 3


def test_channels_are_sent_in_their_buckets() -> None:
    """Each bucket gets the events of its channels, in the order in which they were given."""
    groups = [(b"c%d" % number, [b"1", b"2"]) for number in range(500)]
    received: dict[int, list[Group]] = {}
    assembler = Assembler()
    for bucket, payload in zip(*Packer().pack_by_bucket(groups), strict=True):
        received.setdefault(bucket, []).extend(assembler.feed(payload))
    assert len(received) == BUCKETS
    for bucket, members in received.items():
        assert members == [group for group in groups if bucket_of(group[0]) == bucket]


@given(st.text())
def test_damage_is_counted_and_survived(payload: str) -> None:
    """A payload that is none of ours changes nothing but the counter."""
    assembler = Assembler()
    assert assembler.feed(payload) == []
    assert assembler.damaged == 1
    (good,) = Packer().pack([(b"a", [b"b"])])
    assert assembler.feed(good) == [(b"a", [b"b"])]


def test_a_missing_part_loses_its_batch_only() -> None:
    """Without one of its parts a batch is dropped, counted, and the next one comes through."""
    packer, assembler = Packer(), Assembler()
    first, _lost, third = packer.pack([(b"a", [bytes(15_000)])])
    assert assembler.feed(first) == assembler.feed(third) == []
    assert assembler.damaged == 1
    assert [record for payload in packer.pack([(b"a", [b"b"])]) for record in assembler.feed(payload)] == [
        (b"a", [b"b"])
    ]


@given(st.text(st.characters()))
def test_every_name_has_bytes(name: str) -> None:
    """Any string, with NUL or lone surrogates, is a channel's name."""
    assert name_text(name_bytes(name)) == name
    assert 0 <= bucket_of(name_bytes(name)) < BUCKETS
