"""Subscribing is confirmed, leaving is final, and neither disturbs other channels."""

from __future__ import annotations

import asyncio
from typing import Final

from channels_core.events import Event
from channels_core.testing.registry import RuleBroken, check, rule
from channels_core.testing.stage import Instance, Stage

ROUNDS: Final = 100

CHURN: Final = 200
"""Events published to a steady channel while others come and go."""


@rule()
async def the_first_event_after_subscribing_arrives(stage: Stage) -> None:
    """What is published right after `subscribe` returned arrives, from its first event on.

    Troubleshooting: wait for the broker's confirmation before returning, and do not skip what comes first.
    """
    publishing, receiving = await stage.pair()
    for number in range(10):
        channel = stage.channel()
        await receiving.subscribe(channel)
        expected = [b"%d-%d" % (number, part) for part in range(3)]
        for data in expected:
            await publishing.publish(data, channel)
        seen = [event.data for event in await receiving.take(3)]
        check(seen == expected, f"published {expected}, received {seen}")


@rule()
async def subscribe_returns_when_it_is_confirmed(stage: Stage) -> None:
    """However fast somebody publishes after `subscribe` returned, nothing is lost, 100 times in a row.

    Troubleshooting: the request was sent, but its answer not awaited; the event overtakes the subscription.
    """
    publishing, receiving = await stage.pair()
    await receiving.subscribe(end := stage.channel())
    expected: list[bytes] = []
    for number in range(ROUNDS):
        channel = stage.channel()
        await receiving.subscribe(channel)
        await publishing.publish(b"%d" % number, channel)
        expected.append(b"%d" % number)
    await publishing.publish(b"end", end)
    seen = {event.data for event in await receiving.take_until(b"end")}
    lost = [data for data in expected if data not in seen]
    check(not lost, f"{len(lost)} of {ROUNDS} events published right after subscribe are lost")


@rule()
async def a_thousand_channels_in_one_call(stage: Stage) -> None:
    """One `subscribe` takes 1,000 names, and one `unsubscribe` gives them back.

    Troubleshooting: one round trip for all names; look for a limit on arguments or statement size.
    """
    publishing, receiving = await stage.pair()
    names = stage.channels(1000)
    end = stage.channel()
    await receiving.subscribe(*names, end)
    for name in names[::100]:
        await publishing.publish(name.encode(), name)
    seen = sorted(event.channel for event in await receiving.take(10))
    check(seen == sorted(names[::100]), f"10 of 1,000 channels were published to, {len(set(seen))} received")
    await receiving.unsubscribe(*names)
    await publishing.publish(b"late", *names[::100])
    await publishing.publish(b"end", end)
    check(not await receiving.take_until(b"end"), "events arrived after one unsubscribe from 1,000 channels")


@rule()
async def subscribing_twice_delivers_once(stage: Stage) -> None:
    """Subscribing again is no error and changes nothing: every event still comes once.

    Troubleshooting: keep subscribed names in a set.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    await receiving.subscribe(channel, channel)
    await publishing.publish(b"once", channel)
    await publishing.publish(b"end", channel)
    seen = [event.data for event in await receiving.take_until(b"end")]
    check(seen == [b"once"], f"subscribed twice, one event came as {seen}")


@rule()
async def nothing_arrives_after_unsubscribing(stage: Stage) -> None:
    """What is published after `unsubscribe` returned does not arrive; other channels go on.

    Troubleshooting: await the broker's confirmation, and check local tables that deliver by name.
    """
    publishing, receiving = await stage.pair()
    left, kept = stage.channels(2)
    await receiving.subscribe(left, kept)
    await publishing.publish(b"before", left)
    await receiving.take(1)
    await receiving.unsubscribe(left)
    await publishing.publish(b"after", left)
    await publishing.publish(b"sentinel", kept)
    before = await receiving.take_until(b"sentinel")
    check(not before, f"after unsubscribe returned came {before}")


@rule()
async def leaving_is_for_oneself_only(stage: Stage) -> None:
    """When one instance leaves a channel, another one still receives it.

    Troubleshooting: subscriptions belong to a connection, not to the broker.
    """
    leaving, staying = await stage.instance(), await stage.instance()
    channel = stage.channel()
    await staying.subscribe(channel)
    await leaving.subscribe(channel)
    await leaving.unsubscribe(channel)
    await leaving.publish(b"still", channel)
    await staying.take(1)


@rule()
async def unsubscribing_the_unknown_is_no_error(stage: Stage) -> None:
    """Leaving a channel that was never joined, or twice, does nothing.

    Troubleshooting: discard names from tables, do not remove them.
    """
    await stage.company()
    instance = await stage.instance()
    known, unknown = stage.channels(2)
    await instance.unsubscribe(unknown)
    await instance.subscribe(known)
    await instance.unsubscribe(known, unknown)
    await instance.unsubscribe(known)


@rule()
async def joining_again_replays_nothing(stage: Stage) -> None:
    """After leaving and joining again come only the events published since, none of those missed or seen.

    Troubleshooting: live events start at the broker's newest position, also where history is kept.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publishing.publish(b"before", channel)
    await receiving.subscribe(channel)
    await receiving.unsubscribe(channel)
    await publishing.publish(b"meanwhile", channel)
    await receiving.subscribe(channel)
    await publishing.publish(b"sentinel", channel)
    before = await receiving.take_until(b"sentinel")
    check(not before, f"joining again brought {before}")


@rule()
async def churn_loses_nothing(stage: Stage) -> None:
    """While channels come and go, a steady one loses nothing, and those that came receive at once.

    Troubleshooting: subscribing must not interrupt the reader; look for a reconnect or a restart of the loop.
    """
    publishing, receiving = await stage.pair()
    steady = stage.channel("-steady")
    await receiving.subscribe(steady)
    publisher = asyncio.create_task(_numbers(publishing, steady))
    try:
        passed = await _come_and_go(stage, publishing, receiving, publisher)
    finally:
        await publisher
    await publishing.publish(b"end", steady)
    events = passed + await receiving.take_until(b"end")
    seen = [event.data for event in events if event.channel == steady]
    check(seen == [b"%d" % number for number in range(CHURN)], f"of {CHURN} events {len(seen)} came, or in disorder")


async def _numbers(publishing: Instance, channel: str) -> None:
    for number in range(CHURN):
        await publishing.publish(b"%d" % number, channel)
        await asyncio.sleep(0)


async def _come_and_go(
    stage: Stage, publishing: Instance, receiving: Instance, publisher: asyncio.Task[None]
) -> list[Event]:
    """Join and leave while the publisher runs, at least once; gives the events that came meanwhile."""
    events: list[Event] = []
    while not events or not publisher.done():
        names = stage.channels(5)
        await receiving.subscribe(*names)
        await publishing.publish(b"come", *names)
        events += await _all_came(receiving, names)
        await receiving.unsubscribe(*names)
        await asyncio.sleep(0)
    return events


async def _all_came(receiving: Instance, names: list[str]) -> list[Event]:
    events: list[Event] = []
    while missing := set(names) - {event.channel for event in events}:
        try:
            events += await receiving.take(1)
        except RuleBroken as exc:
            raise RuleBroken(f"{len(missing)} of {len(names)} channels that came received nothing: {exc}") from exc
    return events
