from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from core_stage import event, turns

from channels_core import Event
from channels_core._intake import Intake


class Source:
    """A stream that gives what is put into it, and then waits or fails."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.more = asyncio.Event()

    def put(self, *offsets: int) -> None:
        self.events += [event(offset) for offset in offsets]
        self.more.set()

    async def stream(self) -> AsyncIterator[Event]:
        while True:
            while self.events:
                yield self.events.pop(0)
            if self.error is not None:
                raise self.error
            self.more.clear()
            await self.more.wait()


class Sink:
    """Notes the offsets that it is handed, call by call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.fails = False

    def __call__(self, events: Sequence[Event]) -> None:
        if self.fails and self.calls:
            raise ValueError("a bug")
        self.calls.append([each.position.offset for each in events if each.position is not None])


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def test_the_first_of_a_burst_goes_on_at_once_and_the_rest_together() -> None:
    """Nobody waits for what may never come, and what came together is handed on together."""
    source, sink = Source(), Sink()
    intake = Intake(sink, 256)
    task = asyncio.create_task(intake.run(source.stream()))
    for burst in ((1, 2, 3), (4,), (5, 6)):
        source.put(*burst)
        await turns()
    assert sink.calls == [[1], [2, 3], [4], [5], [6]]
    assert intake.received == 6
    await end(task)


async def test_the_loop_gets_a_turn_after_so_many_events() -> None:
    """A flood is handed on in portions, and others run between them."""
    source, sink = Source(), Sink()
    source.put(*range(1, 9))
    task = asyncio.create_task(Intake(sink, 3).run(source.stream()))
    await asyncio.sleep(0)
    assert sink.calls == [[1], [2, 3]]
    await turns()
    assert [offset for call in sink.calls for offset in call] == list(range(1, 9))
    await end(task)


async def test_a_burst_of_one_gives_a_turn_after_each_event() -> None:
    """With a backlog of one event, its consumer gets a turn after each."""
    source, sink = Source(), Sink()
    source.put(1, 2)
    task = asyncio.create_task(Intake(sink, 1).run(source.stream()))
    await asyncio.sleep(0)
    assert sink.calls == [[1]]
    await turns()
    assert sink.calls == [[1], [2]]
    await end(task)


async def test_what_came_before_a_failure_is_handed_on() -> None:
    """The stream's failure comes after its events."""
    source, sink = Source(), Sink()
    source.put(1, 2, 3)
    source.error = ConnectionError("lost")
    with pytest.raises(ConnectionError, match="lost"):
        await Intake(sink, 256).run(source.stream())
    assert sink.calls == [[1], [2, 3]]


async def test_a_failure_to_hand_on_fails_the_reader() -> None:
    """A bug behind the intake does not make the plugin deaf in silence."""
    source, sink = Source(), Sink()
    sink.fails = True
    source.put(1, 2)
    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="a bug"):
            await Intake(sink, 256).run(source.stream())
