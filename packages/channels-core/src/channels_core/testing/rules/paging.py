"""History is read page by page, from any position."""

from __future__ import annotations

from channels_core.events import ORIGIN, Event, Position
from channels_core.testing.registry import check, rule
from channels_core.testing.rules.history import numbers, position_of, positions_of, publish_numbers
from channels_core.testing.stage import Instance, Stage


@rule(history=True)
async def after_gives_the_oldest_that_follow(stage: Stage) -> None:
    """With `after`, the *oldest* `limit` events behind that position come, and `top` is still the newest.

    Troubleshooting: without `after` the newest are wanted, with it the oldest; these are two queries.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 10)
    positions = positions_of((await receiving.history(channel)).events)
    for offset, limit, expected in ((3, None, range(3, 10)), (3, 2, range(3, 5)), (9, 5, [9]), (3, 0, [])):
        page = await receiving.history(channel, limit, after=positions[offset - 1])
        check(numbers(page.events) == list(expected), f"after {offset}, limit {limit}: {numbers(page.events)}")
        check(page.top == positions[-1], f"top is {page.top} behind {positions[-1]}")


@rule(history=True)
async def nothing_follows_the_top(stage: Stage) -> None:
    """`after` at the top gives none, and so does a position beyond it in the same epoch.

    Troubleshooting: compare offsets with "greater"; do not judge positions, the plugin does.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 3)
    top = (await receiving.history(channel, 0)).top
    for after in (top, Position(top.epoch, top.offset + 1), Position(top.epoch, top.offset + 1000)):
        page = await receiving.history(channel, after=after)
        check(not page.events and page.top == top, f"after {after}, with top {top}, comes {page}")


@rule(history=True)
async def the_origin_is_before_everything(stage: Stage) -> None:
    """`after=ORIGIN` gives everything from the oldest stored event; of an unused channel nothing.

    Troubleshooting: the origin's epoch is the empty text; it is not one of the broker's.
    """
    publishing, receiving = await stage.pair()
    used, unused = stage.channels(2)
    await publish_numbers(publishing, used, 5)
    check(numbers((await receiving.history(used, after=ORIGIN)).events) == [0, 1, 2, 3, 4], "not all came")
    check(numbers((await receiving.history(used, 2, after=ORIGIN)).events) == [0, 1], "not the oldest came")
    page = await receiving.history(unused, after=ORIGIN)
    check(not page.events and page.top == ORIGIN, f"an unused channel has {page}")


@rule(history=True)
async def an_unknown_epoch_is_before_everything(stage: Stage) -> None:
    """`after` in an epoch that the broker does not know gives everything that is stored.

    Troubleshooting: compare offsets inside one epoch only.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 5)
    for offset in (0, 3, 1000):
        page = await receiving.history(channel, after=Position("of-another-broker", offset))
        check(numbers(page.events) == [0, 1, 2, 3, 4], f"behind an unknown epoch come {numbers(page.events)}")


@rule(history=True)
async def pages_add_up(stage: Stage) -> None:
    """Page by page with `after` and `limit`, every event comes once and in order, whatever the page's size.

    Troubleshooting: the next page begins behind the last event of this one, not behind its `top`.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 23)
    for size in (1, 7, 23, 50):
        events = await _pages(receiving, channel, ORIGIN, size)
        check(numbers(events) == list(range(23)), f"pages of {size} add up to {numbers(events)}")


@rule(history=True, hooks=("trim",))
async def pages_begin_where_history_does(stage: Stage) -> None:
    """`after` a position that was trimmed gives the oldest that is still stored; the plugin sees the hole.

    Troubleshooting: no error and no empty answer; a backend never judges gaps.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 10)
    first = position_of((await receiving.history(channel)).events[0])
    await stage.trim(channel, 4)
    check(numbers(await _pages(receiving, channel, first, 3)) == [6, 7, 8, 9], "the stored events did not come")


@rule(history=True, hooks=("lose_memory",))
async def pages_go_on_behind_lost_memory(stage: Stage) -> None:
    """From a position of before, paging gives every event since the broker lost its memory.

    Troubleshooting: an epoch that is not the current one, and not stored, lies before everything.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 5)
    old = positions_of((await receiving.history(channel)).events)
    await stage.lose_memory()
    await publish_numbers(publishing, channel, 7, first=100)
    for after in (old[1], old[4], Position(old[0].epoch, 1000)):
        events = await _pages(receiving, channel, after, 3)
        check(numbers(events)[-7:] == list(range(100, 107)), f"behind {after} come {numbers(events)}")


@rule(history=True, hooks=("change_incarnation",))
async def pages_cross_an_epoch_border(stage: Stage) -> None:
    """Paging from the old epoch into the new one gives every event once and in order, whatever the page's size.

    Troubleshooting: order by the offset, which goes on at the border; `after` counts in its own epoch only.
    """
    publishing = await stage.instance()
    channel = stage.channel()
    await publish_numbers(publishing, channel, 6)
    await stage.change_incarnation()
    fresh = await stage.instance()
    await publish_numbers(fresh, channel, 6, first=6)
    positions = positions_of((await fresh.history(channel)).events)
    check(len({position.epoch for position in positions}) == 2, f"no border in {positions}")
    for size in (1, 4, 20):
        for start, after in enumerate([ORIGIN, *positions]):
            events = await _pages(fresh, channel, after, size)
            check(numbers(events) == list(range(start, 12)), f"behind {after}, by {size}: {numbers(events)}")


async def _pages(instance: Instance, channel: str, after: Position, size: int) -> list[Event]:
    events: list[Event] = []
    while page := (await instance.history(channel, size, after=after)).events:
        check(len(page) <= size, f"limit {size} gave {len(page)} events")
        events += page
        after = position_of(page[-1])
        check(len(events) <= 1000, "paging does not come to an end: the same events come again")
    return events
