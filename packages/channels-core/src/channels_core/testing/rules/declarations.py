"""What a backend says of itself is true."""

from __future__ import annotations

from channels_core.events import ORIGIN
from channels_core.exceptions import HistoryNotSupported
from channels_core.testing.registry import RuleBroken, check, rule
from channels_core.testing.stage import Stage


@rule()
async def declarations_match_the_subject(stage: Stage) -> None:
    """`keeps_history` and `max_payload` of the backend are what the test suite declares.

    Troubleshooting: set both on the instance in its constructor when they depend on the URL.
    """
    backends = [stage.unstarted().backend for _ in range(2 if stage.several else 1)]
    for name in ("keeps_history", "max_payload"):
        declared = getattr(stage.subject, name)
        for seen in {getattr(backend, name) for backend in backends}:
            check(seen == declared, f"the backend says {name}={seen!r}, the suite declares {declared!r}")


@rule(history=False)
async def without_history_it_says_so(stage: Stage) -> None:
    """Without history, events have no position and `get_history` raises `HistoryNotSupported`.

    Troubleshooting: do not override `get_history` where nothing is kept; the base class raises.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    await publishing.publish(b"x", channel)
    (event,) = await receiving.take(1)
    check(event.position is None, f"an event has position {event.position}, but no history is declared")
    try:
        await receiving.history(channel)
    except HistoryNotSupported:
        return
    raise RuleBroken("get_history answered, but no history is declared")


@rule(history=True)
async def reading_creates_nothing(stage: Stage) -> None:
    """A channel that has no event yet has an empty history and the top `ORIGIN`, however often it is read.

    Troubleshooting: do not write a record for a channel in `get_history`, `get_tops` or `subscribe`.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    for _ in range(2):
        page = await receiving.history(channel)
        check(not page.events and page.top == ORIGIN, f"an unused channel has {page}")
        tops = await receiving.tops(channel)
        check(tops == {channel: ORIGIN}, f"get_tops says {tops} of an unused channel")
    await publishing.publish(b"first", channel)
    (event,) = await receiving.take(1)
    check(event.position is not None and event.position.offset == 1, f"the first event has {event.position}")
