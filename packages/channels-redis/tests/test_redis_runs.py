"""Runs: the events of a channel travel together, their order is kept."""

from __future__ import annotations

from channels_core.backend import Publication
from channels_redis._runs import MAX_RUN, ChannelKeys, group_runs, make_keys, pack_runs


def keys_of(channel: str) -> ChannelKeys:
    return make_keys("p", channel, 0)


def publication(channel: str, lane: str | None = "L", number: int = 1) -> Publication:
    return Publication(b"x", (channel,), None if lane is None else (lane, number))


def test_the_events_of_a_channel_are_one_call() -> None:
    """Wherever they stand in the batch, in their order; one call costs a fraction of many."""
    batch = [publication(channel, number=n) for n, channel in enumerate("aabba", 1)]
    runs, indices = group_runs(batch, keys_of)
    assert [run.count for run in runs] == [3, 2]
    assert indices == [0, 0, 1, 1, 0]
    assert [run.last for run in runs] == [5, 4]


def test_lanes_do_not_mix() -> None:
    """A call has one lane or none."""
    runs, _ = group_runs([publication("a", "L"), publication("a", "M"), publication("a", None)], keys_of)
    assert [run.lane for run in runs] == ["L", "M", None]


def test_a_call_is_bounded() -> None:
    """The server does nothing else while a script runs."""
    runs, _ = group_runs([publication("a", number=n) for n in range(1, MAX_RUN + 2)], keys_of)
    assert [run.count for run in runs] == [MAX_RUN, 1]


def test_each_call_names_the_number_before_it() -> None:
    """The script can refuse to overtake a call that failed alone."""
    batch = [publication("a", number=n) for n in range(1, 2 * MAX_RUN + 2)]
    batch.insert(1, publication("b"))
    runs, _ = group_runs(batch, keys_of)
    words = [command.split(b"\r\n") for command in _commands(pack_runs(runs, b"", lambda: b"fresh"))]
    befores = [int(command[command.index(b"fresh") + 4]) for command in words]
    assert befores == [0, 0, MAX_RUN, 2 * MAX_RUN]


def _commands(packed: bytes) -> list[bytes]:
    return [b"*" + part for part in packed.split(b"*") if part]
