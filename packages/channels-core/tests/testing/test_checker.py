"""The checker finds each kind of broken promise, and nothing where there is none."""

from __future__ import annotations

import pytest

from channels_core.events import ORIGIN, Event, Gap, Position
from channels_core.testing import Checker
from channels_core.testing.checker import FindingKind


def at(offset: int, epoch: str = "e") -> Position:
    return Position(epoch, offset)


def received(checker: Checker, *offsets: int) -> None:
    for offset in offsets:
        checker.received("s", "c", at(offset), b"%d" % offset)


def sent(checker: Checker, *numbers: int) -> None:
    for number in numbers:
        checker.published("c", b"%d" % number)


def kinds(checker: Checker) -> list[FindingKind]:
    return [finding.kind for finding in checker.findings()]


def test_a_complete_stream_has_no_findings() -> None:
    """Everything in order and once is well."""
    checker = Checker()
    checker.joined("s", "c")
    sent(checker, 1, 2, 3)
    received(checker, 1, 2, 3)
    checker.verify()


def test_what_was_accepted_and_did_not_come_is_lost() -> None:
    """A missing payload is lost, at the end too; one whose publication failed is not."""
    checker = Checker()
    checker.joined("s", "c")
    sent(checker, 1, 2)
    checker.publishing("c", b"failed")
    sent(checker, 3)
    checker.received("s", "c", None, b"1")
    assert [finding.detail[:4] for finding in checker.findings()] == ["b'2'", "b'3'"]


def test_a_gap_excuses_only_what_is_missing_where_it_stands() -> None:
    """A gap before one missing payload does not cover another one elsewhere."""
    checker = Checker()
    checker.joined("s", "c")
    sent(checker, 1, 2, 3, 4, 5)
    checker.received("s", "c", None, b"1")
    checker.gap("s", Gap("c", "disconnected"))
    checker.received("s", "c", None, b"3")
    checker.received("s", "c", None, b"5")
    assert [finding.detail[:4] for finding in checker.findings()] == ["b'4'"]


def test_what_was_published_before_the_join_need_not_come() -> None:
    """A subscriber owes nothing that is older than itself, in history it may come all the same."""
    checker = Checker()
    sent(checker, 1, 2)
    checker.joined("s", "c")
    sent(checker, 3)
    received(checker, 2, 3)
    checker.verify()


def test_the_same_payload_twice_is_a_duplicate() -> None:
    """An event comes once, unless the backend only promises at least once."""
    strict, lenient = Checker(), Checker(at_least_once=True)
    for checker in (strict, lenient):
        checker.joined("s", "c")
        sent(checker, 1)
        checker.received("s", "c", None, b"1")
        checker.received("s", "c", None, b"1")
    assert kinds(strict) == ["duplicated"]
    assert kinds(lenient) == []


def test_the_same_position_twice_is_a_duplicate() -> None:
    """Positions are judged without knowing what was published."""
    checker = Checker()
    received(checker, 1, 2, 2)
    assert kinds(checker) == ["duplicated"]


def test_a_payload_behind_a_newer_one_of_its_publisher_is_reordered() -> None:
    """Order is judged per publisher, and what came late is not lost as well."""
    checker = Checker()
    checker.joined("s", "c")
    sent(checker, 1, 2)
    checker.published("c", b"other", publisher="p")
    for data in (b"other", b"2", b"1"):
        checker.received("s", "c", None, data)
    assert kinds(checker) == ["reordered"]


def test_a_lower_position_is_reordered() -> None:
    """Offsets of one epoch ascend, and an epoch that has ended does not return."""
    checker = Checker()
    received(checker, 5, 6, 4)
    checker.received("other", "c", at(1, "old"), b"x")
    checker.gap("other", Gap("c", "epoch"))
    checker.received("other", "c", at(2, "new"), b"y")
    checker.received("other", "c", at(3, "old"), b"z")
    assert kinds(checker) == ["reordered", "reordered"]


def test_a_hole_without_a_gap_is_unannounced() -> None:
    """A jump in offsets or in epochs needs a gap right there."""
    checker = Checker()
    checker.joined("s", "c", after=at(3))
    received(checker, 5)
    checker.received("other", "c", at(1), b"x")
    checker.received("other", "c", at(2, "new"), b"y")
    assert kinds(checker) == ["unannounced gap", "unannounced gap"]


def test_an_exact_gap_is_no_finding() -> None:
    """A gap between the events around it is well."""
    checker = Checker()
    checker.joined("s", "c")
    sent(checker, *range(1, 8))
    received(checker, 1, 2)
    checker.item("s", Gap("c", "backlog", at(2), at(5), 3))
    checker.item("s", Event("c", b"6", at(6)))
    received(checker, 7)
    checker.verify()


@pytest.mark.parametrize(
    "gap",
    [
        Gap("c", "backlog", at(2), at(4), 2),
        Gap("c", "backlog", at(1), at(5), 4),
        Gap("c", "backlog", at(2), at(5), 4),
    ],
    ids=["until", "after", "missed"],
)
def test_a_gap_that_contradicts_its_neighbours_is_wrong(gap: Gap) -> None:
    """``after``, ``until`` and ``missed`` must fit the events around."""
    checker = Checker()
    received(checker, 1, 2)
    checker.gap("s", gap)
    received(checker, 6)
    assert kinds(checker) == ["wrong gap"]


@pytest.mark.parametrize(
    "gap",
    [
        Gap("c", "backlog", at(2), at(5), 3),
        Gap("c", "backlog", None, at(5), None),
        Gap("c", "backlog", None, None, 3),
    ],
    ids=["all", "until", "missed"],
)
def test_a_gap_where_nothing_is_missing_is_wrong(gap: Gap) -> None:
    """A gap that names events as missing stands between two that follow each other."""
    checker = Checker()
    received(checker, 1, 2)
    checker.gap("s", gap)
    received(checker, 3, 4)
    assert kinds(checker) == ["wrong gap"]


def test_a_gap_that_names_nothing_may_stand_anywhere() -> None:
    """Something may be missing: that is no claim that something is."""
    checker = Checker()
    received(checker, 1, 2)
    checker.gap("s", Gap("c", "disconnected", at(2)))
    received(checker, 3)
    checker.verify()


def test_a_gap_at_the_beginning_must_fit_what_follows() -> None:
    """Also where nothing stands before it."""
    checker = Checker()
    checker.gap("s", Gap("c", "trimmed", None, at(5), None))
    received(checker, 4)
    assert kinds(checker) == ["wrong gap"]


def test_before_anything_comes_the_first_offset_of_any_epoch() -> None:
    """From the origin offset 1 is next, and anything else is a hole."""
    checker = Checker()
    checker.joined("s", "c", after=Position("", 0))
    checker.joined("t", "c", after=Position("", 0))
    checker.received("s", "c", at(1), b"x")
    checker.received("t", "c", at(2), b"y")
    assert [(finding.subscriber, finding.kind) for finding in checker.findings()] == [("t", "unannounced gap")]


def test_what_stands_before_after_need_not_come() -> None:
    """Who resumes has had the events up to there; what comes first is where the rest must go on."""
    checker = Checker()
    sent(checker, 1, 2, 3)
    checker.joined("s", "c", after=at(2))
    received(checker, 3)
    checker.verify()
    sent(checker, 4)
    assert [str(finding) for finding in checker.findings()] == [
        "lost: subscriber 's', channel 'c': b'4' was accepted, and no gap stands there"
    ]


def test_what_follows_the_first_event_of_a_resume_must_come() -> None:
    """Also when it was published before the subscriber joined."""
    checker = Checker()
    sent(checker, 1, 2, 3, 4)
    checker.joined("s", "c", after=at(1))
    received(checker, 2)
    checker.received("s", "c", None, b"4")
    assert [finding.detail[:4] for finding in checker.findings()] == ["b'3'"]


def test_who_resumes_before_anything_misses_nothing() -> None:
    """Nothing stands before the origin, so that all must come."""
    checker = Checker()
    sent(checker, 1)
    checker.joined("s", "c", after=ORIGIN)
    assert kinds(checker) == ["lost"]


@pytest.mark.parametrize("after", [None, at(2)])
def test_joining_a_second_time_is_refused(after: Position | None) -> None:
    """It would forget the findings so far."""
    checker = Checker()
    checker.joined("s", "c")
    received(checker, 1, 1)
    with pytest.raises(ValueError, match="a stream that is resumed goes on without"):
        checker.joined("s", "c", after=after)
    assert kinds(checker) == ["duplicated"]


def test_a_payload_that_nobody_published_is_judged_by_its_position() -> None:
    """A sentinel needs no announcement; a damaged payload is missed in its place."""
    checker = Checker()
    checker.joined("s", "c")
    sent(checker, 1, 2)
    for offset, data in enumerate((b"1", b"damaged", b"sentinel"), 1):
        checker.received("s", "c", at(offset), data)
    assert [finding.detail[:4] for finding in checker.findings()] == ["b'2'"]


def test_payloads_must_be_unique() -> None:
    """Two equal payloads could not be told apart, so the checker refuses them."""
    checker = Checker()
    sent(checker, 1)
    with pytest.raises(ValueError, match="unique"):
        sent(checker, 1)


def test_verify_raises_with_the_findings() -> None:
    """A finding fails the test that asks, with the place in the message."""
    checker = Checker()
    received(checker, 1, 3)
    with pytest.raises(AssertionError, match=r"unannounced gap: subscriber 's', channel 'c': position e:3 behind e:1"):
        checker.verify()
