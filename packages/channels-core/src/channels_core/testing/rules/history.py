"""Positions are consecutive, history is what was delivered, and lost memory shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from channels_core.backend import Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.testing.registry import check, rule
from channels_core.testing.stage import Instance, Stage

CONCURRENT: Final = 150
"""Events published while history is read."""


@rule(history=True)
async def positions_are_consecutive_across_instances(stage: Stage) -> None:
    """Offsets of a channel begin at 1 and have no hole, whichever instance published, alone or in batches.

    Troubleshooting: count in the broker, in the same atomic step that stores the event.
    """
    publishing, receiving = await stage.pair()
    third = await stage.instance()
    channel, other = stage.channels(2)
    await receiving.subscribe(channel)
    for publisher in (publishing, third, receiving):
        await publisher.publish(b"one", channel)
        await publisher.publish_batch([Publication(b"batch", (name,)) for name in (channel, other, channel)])
    positions = positions_of(await receiving.take(9))
    check([position.offset for position in positions] == list(range(1, 10)), f"offsets are {positions}")
    check(len({position.epoch for position in positions}) == 1, f"epochs differ: {positions}")


@rule(history=True)
async def history_is_what_was_delivered(stage: Stage) -> None:
    """History holds the events that were delivered live: same channel, data and position, oldest first.

    Troubleshooting: position and payload of the live event must come from the step that stored it.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    for number in range(20):
        await publishing.publish(b"%d" % number, channel)
    live = await receiving.take(20)
    page = await receiving.history(channel)
    check(list(page.events) == live, f"live: {live[:3]} …, history: {list(page.events)[:3]} …")
    check(page.top == live[-1].position, f"top is {page.top}, the newest event has {live[-1].position}")


@rule(history=True)
async def history_gives_the_newest_up_to_a_limit(stage: Stage) -> None:
    """`limit` gives the newest events, oldest first; 0 gives none and the top; None gives all.

    Troubleshooting: read from the newest end and turn the result around.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 10)
    for limit, expected in ((3, [7, 8, 9]), (1, [9]), (0, []), (10, list(range(10))), (50, list(range(10)))):
        page = await receiving.history(channel, limit)
        check(numbers(page.events) == expected, f"limit {limit} gives {numbers(page.events)}")
        check(page.top.offset == 10, f"limit {limit} says top {page.top} of 10 events")
    check(numbers((await receiving.history(channel)).events) == list(range(10)), "without limit not all came")


@rule(history=True)
async def tops_are_those_of_history(stage: Stage) -> None:
    """`get_tops` answers for every channel asked for, with the top that `get_history` says.

    Troubleshooting: a channel without events has `ORIGIN`; it must not be left out.
    """
    publishing, receiving = await stage.pair()
    names = stage.channels(5)
    for count, name in enumerate(names):
        await publish_numbers(publishing, name, count)
    tops = await receiving.tops(*names)
    check(set(tops) == set(names), f"{len(names)} channels were asked for, {len(tops)} answered")
    for name in names:
        check(tops[name] == (await receiving.history(name, 0)).top, f"get_tops differs from get_history for {name}")
    check(tops[names[0]] == ORIGIN, f"an unused channel has {tops[names[0]]}")
    check(await receiving.tops() == {}, "get_tops of no channels is not empty")


@rule(history=True)
async def top_is_read_together_with_history(stage: Stage) -> None:
    """While somebody publishes, the last event of every read to the end is its `top`: both come from one atomic read.

    Troubleshooting: one script, transaction or statement for both; two reads one after the other are not enough.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    publisher = asyncio.create_task(_publish_in_turns(publishing, channel, CONCURRENT))
    middle: Position | None = None
    try:
        while not publisher.done():
            for limit, after in ((5, None), (None, None), (None, ORIGIN), (None, middle)):
                page = await receiving.history(channel, limit, after=after)
                positions = positions_of(page.events)
                last = positions[-1] if positions else after or ORIGIN
                check(last == page.top, f"limit {limit}, after {after}: the last event has {last}, top says {page.top}")
                middle = positions[len(positions) // 2] if positions else middle
            await asyncio.sleep(0)
    finally:
        await publisher


@rule(history=True)
async def what_was_accepted_is_in_history_at_once(stage: Stage) -> None:
    """When `publish` has returned, the event is in the history that any instance reads.

    Troubleshooting: return after the commit; read on the primary, not on a replica.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    for number in range(20):
        await publishing.publish(b"%d" % number, channel)
        page = await receiving.history(channel, 1)
        check(numbers(page.events) == [number], f"event {number} was accepted, the newest is {numbers(page.events)}")


@rule(history=True)
async def events_received_are_in_history(stage: Stage) -> None:
    """When an event was received, a read of history reaches it: `top` is never behind the live stream.

    Troubleshooting: hand over after storing, not before; read where is written.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    publisher = asyncio.create_task(publish_numbers(publishing, channel, 50))
    try:
        for _ in range(50):
            (event,) = await receiving.take(1)
            top = (await receiving.tops(channel))[channel]
            check(position_of(event).offset <= top.offset, f"received {event.position}, top is {top}")
    finally:
        await publisher


@rule(history=True, hooks=("trim",))
async def trimmed_history_starts_later(stage: Stage) -> None:
    """Trimming removes the oldest events only: the newest stay, top and the next offset are not touched.

    Troubleshooting: keep the counter apart from the events.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 10)
    await stage.trim(channel, 3)
    page = await receiving.history(channel)
    check(numbers(page.events) == [7, 8, 9], f"trimmed to 3 of 10, history holds {numbers(page.events)}")
    check(page.top.offset == 10, f"after trimming top is {page.top}")
    await stage.trim(channel, 0)
    check((await receiving.history(channel)).top == page.top, "an empty history forgot its top")
    await publishing.publish(b"10", channel)
    page = await receiving.history(channel)
    check([position.offset for position in positions_of(page.events)] == [11], f"after trimming comes {page.events}")


@rule(history=True, hooks=("lose_memory",))
async def lost_memory_starts_a_new_epoch(stage: Stage) -> None:
    """After the broker lost its memory, no position of before is given again: the epoch is a new one.

    Troubleshooting: name the epoch at random when the channel's record is created, not by a constant or a counter.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 3)
    before = positions_of((await receiving.history(channel)).events)
    epochs = {before[0].epoch}
    for _ in range(2):
        await stage.lose_memory()
        await publish_numbers(publishing, channel, 4)
        after = positions_of((await receiving.history(channel)).events)[-4:]
        reused = sorted(epochs & {position.epoch for position in after})
        check(not reused, f"epochs {reused} go on after the broker lost its memory")
        check([p.offset for p in after] == list(range(after[0].offset, after[0].offset + 4)), f"offsets: {after}")
        epochs.add(after[0].epoch)


@rule(history=True, hooks=("lose_memory",))
async def live_events_after_lost_memory_have_the_new_epoch(stage: Stage) -> None:
    """Who was subscribed when the broker lost its memory receives what comes after, in the new epoch.

    Troubleshooting: take the epoch from each event, do not remember it from the subscription.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    await publishing.publish(b"before", channel)
    (before,) = await receiving.take(1)
    await stage.lose_memory()
    await publishing.publish(b"after", channel)
    (after,) = await receiving.take(1)
    check(after.data == b"after", f"received {after.data!r}")
    check(position_of(after).epoch != position_of(before).epoch, f"{after.position} follows {before.position}")


@rule(history=True, hooks=("change_incarnation",))
async def another_incarnation_starts_a_new_epoch_at_the_next_offset(stage: Stage) -> None:
    """After a restart or failover with its data, the broker keeps the events and goes on in a new epoch.

    Troubleshooting: note the broker's incarnation with the channel and compare it inside the publishing step.
    """
    publishing = await stage.instance()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 3)
    await stage.change_incarnation()
    fresh = await stage.instance()
    await publish_numbers(fresh, channel, 2, first=3)
    page = await fresh.history(channel)
    positions = positions_of(page.events)
    check(numbers(page.events) == [0, 1, 2, 3, 4], f"history holds {numbers(page.events)}")
    check([position.offset for position in positions] == [1, 2, 3, 4, 5], f"positions are {positions}")
    epochs = [position.epoch for position in positions]
    check(len(set(epochs[:3])) == 1 and len(set(epochs[3:])) == 1, f"epochs are {epochs}")
    check(epochs[2] != epochs[3], f"epoch {epochs[2]} goes on under another incarnation")
    check(page.top == positions[-1], f"top is {page.top}")


def numbers(events: Iterable[Event]) -> list[int]:
    """Give the payloads as numbers."""
    return [int(event.data) for event in events]


def position_of(event: Event) -> Position:
    """Give the position that an event must have where history is kept."""
    check(event.position is not None, f"an event has no position: {event}")
    return event.position or ORIGIN


def positions_of(events: Iterable[Event]) -> list[Position]:
    """Give the positions that events must have where history is kept."""
    return [position_of(event) for event in events]


async def publish_numbers(instance: Instance, channel: str, count: int, *, first: int = 0) -> None:
    """Publish consecutive numbers, one by one."""
    for number in range(first, first + count):
        await instance.publish(b"%d" % number, channel)


async def _publish_in_turns(instance: Instance, channel: str, count: int) -> None:
    """Let others run between any two events, also where publishing itself never waits."""
    for number in range(count):
        await instance.publish(b"%d" % number, channel)
        await asyncio.sleep(0)
