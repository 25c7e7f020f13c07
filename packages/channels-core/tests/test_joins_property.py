"""Joins, repairs, overflows and catching up are exact, whatever happens in whatever order.

Two plugins on one broker (another process each, as far as the rules go) join, leave, resume from each other's
cursors and consume at random, while events are published, lost on their way, trimmed, and the broker breaks and
forgets. Each stream is then judged by the arithmetic of its offsets and by what the broker really stored.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from faulty import FaultyBackend, RecordingBroker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels_core import ChannelsPlugin, Cursor, Event, Gap, Position, Subscriber
from channels_core._history import follows
from channels_core.backlog import BacklogStrategy, Mark
from channels_core.events import ORIGIN
from channels_core.exceptions import BacklogOverflow, ChannelsException

NAMES = ("a", "b")
SETTLE_TURNS = 400


class Watcher:
    """Consumes one stream and judges it."""

    def __init__(self, broker: RecordingBroker) -> None:
        self.broker = broker
        self.stream: Subscriber | None = None
        self.last: dict[str, Position] = {}
        self.overflowed = False

    def begin(self, stream: Subscriber) -> None:
        self.stream = stream
        for channel, position in stream.cursor.items():
            self.last.setdefault(channel, position)

    def take(self, item: Event | Gap) -> None:
        if isinstance(item, Gap):
            self.take_gap(item)
        else:
            self.take_event(item)

    def take_event(self, event: Event) -> None:
        assert event.position is not None
        last = self.last[event.channel]
        assert follows(last, event.position), f"{event} does not follow {last}"
        assert event in self.broker.log[event.channel], f"{event} was never published"
        self.last[event.channel] = event.position

    def take_gap(self, gap: Gap) -> None:
        assert not self.another_gap_follows(gap.channel), f"two gaps between two events: {gap}"
        assert gap.after is not None
        last = self.last[gap.channel]
        assert gap.after == last or gap.after.offset == last.offset == 0, f"{gap} does not begin at {last}"
        if gap.until is None:
            assert gap.reason == "epoch", gap
            return
        merged_with_epoch = gap.missed is None and self.broker.has_lost_memory
        if gap.reason in ("backlog", "trimmed") and not merged_with_epoch:
            assert gap.missed == gap.until.offset - gap.after.offset > 0, gap
        if gap.reason == "epoch":
            assert gap.missed is None, gap
            assert self.broker.has_lost_memory, gap
        self.last[gap.channel] = gap.until

    def another_gap_follows(self, channel: str) -> bool:
        """Tell whether the next thing of the channel that waits is a gap again."""
        assert self.stream is not None
        backlog = self.stream._backlog
        waiting = (*(backlog._front or ()), *(backlog._head or {}).values(), *backlog._live)
        following = next((item for item in waiting if item.channel == channel), None)
        return isinstance(following, Mark)

    async def consume(self, most: int) -> None:
        """Take what is there, without waiting."""
        for _ in range(most):
            if self.stream is None or not await self.consume_one():
                return

    async def consume_one(self) -> bool:
        assert self.stream is not None
        following = asyncio.ensure_future(anext(self.stream))
        await asyncio.sleep(0)
        if not following.done():
            following.cancel()
            await asyncio.wait((following,))
        if following.cancelled():
            return False
        try:
            self.take(following.result())
        except StopAsyncIteration:
            self.stream = None
            return False
        except BacklogOverflow:
            self.overflowed = True
            self.stream = None
            return False
        return True


class World:
    """Two plugins on one broker, and what a schedule does to them."""

    def __init__(self, strategy: BacklogStrategy, max_backlog: int | None, seed: int) -> None:
        self.random = Random(seed)
        self.broker = RecordingBroker(history=8)
        self.backends = [FaultyBackend(self.broker, random=Random(seed + n)) for n in range(2)]
        self.plugins = [
            ChannelsPlugin(
                backend,
                channels=NAMES,
                max_backlog=max_backlog,
                backlog_strategy=strategy,
                probe_interval=None,
            )
            for backend in self.backends
        ]
        self.watchers: list[tuple[ChannelsPlugin, Watcher]] = []
        self.cursors: list[Cursor] = [Cursor({"a": ORIGIN})]
        self.joins: list[asyncio.Task[None]] = []
        self.number = 0

    async def publish(self, channel: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.broker.publish_now(channel, b"%d" % self.number)

    async def publish_through(self, which: int, channel: str) -> None:
        self.number += 1
        self.plugins[which].publish(b"%d" % self.number, channel)

    async def join(self, which: int, channels: tuple[str, ...], start: int | str | None) -> None:
        self.joins.append(asyncio.create_task(self._join(self.plugins[which], channels, start)))

    async def _join(self, plugin: ChannelsPlugin, channels: tuple[str, ...], start: int | str | None) -> None:
        watcher = Watcher(self.broker)
        if start == "after":
            stream = await plugin.subscribe(channels, after=self.random.choice(self.cursors), history=2)
        else:
            stream = await plugin.subscribe(channels, history=start if isinstance(start, int) else None)
        watcher.begin(stream)
        self.watchers.append((plugin, watcher))

    async def join_more(self, index: int, channel: str, history: int | None) -> None:
        found = self.watcher(index)
        if found is None:
            return
        plugin, watcher = found
        stream = watcher.stream
        assert stream is not None
        if channel in stream.channels:
            return
        watcher.last.pop(channel, None)
        with suppress(ChannelsException):  # the stream may end while it joins
            await plugin.subscribe(channel, subscriber=stream, history=history)
        watcher.begin(stream)

    async def cancel_join(self) -> None:
        for task in self.joins:
            if not task.done():
                task.cancel()
                return

    async def leave(self, index: int, channel: str | None) -> None:
        found = self.watcher(index)
        if found is not None and found[1].stream is not None:
            plugin, watcher = found
            assert watcher.stream is not None
            await plugin.unsubscribe(watcher.stream, channel)
            if not watcher.stream.channels:
                watcher.stream = None

    async def consume(self, index: int, most: int) -> None:
        found = self.watcher(index)
        if found is not None:
            await found[1].consume(most)
            if found[1].stream is not None:
                self.cursors.append(found[1].stream.cursor)

    async def turn(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def lose(self, which: int, count: int) -> None:
        self.backends[which].loses += count

    async def cut(self, which: int) -> None:
        self.backends[which].cut()

    async def reincarnate(self) -> None:
        self.broker.reincarnate()

    async def forget(self) -> None:
        self.broker.forget()

    async def trim(self, channel: str, keep: int) -> None:
        self.broker.trim(channel, keep)

    def watcher(self, index: int) -> tuple[ChannelsPlugin, Watcher] | None:
        alive = [found for found in self.watchers if found[1].stream is not None]
        return alive[index % len(alive)] if alive else None

    async def settle(self) -> None:
        """Let everything arrive, with one more event per channel to show what was lost before it."""
        for backend in self.backends:
            backend.loses = 0
        await asyncio.gather(*self.joins, return_exceptions=True)
        await self.turn(SETTLE_TURNS)
        for name in NAMES:
            await self.publish(name, 1)
        for _ in range(SETTLE_TURNS):
            for _, watcher in self.watchers:
                await watcher.consume(100)
            if self.all_arrived():
                return

    def all_arrived(self) -> bool:
        tops = self.broker.tops(NAMES)
        return all(
            watcher.last[channel] == tops[channel]
            for _, watcher in self.watchers
            if watcher.stream is not None
            for channel in watcher.stream.channels
        )

    def judge(self) -> None:
        tops = self.broker.tops(NAMES)
        for _, watcher in self.watchers:
            for channel in watcher.stream.channels if watcher.stream is not None else ():
                assert watcher.last[channel] == tops[channel], f"{channel} ends too early"
        for task in self.joins:
            if not task.cancelled():
                task.result()


channel = st.sampled_from(NAMES)
which = st.integers(0, 1)
index = st.integers(0, 5)
operations = st.one_of(
    st.tuples(st.just("publish"), channel, st.integers(1, 12)),
    st.tuples(st.just("publish"), channel, st.integers(1, 3)),
    st.tuples(st.just("publish_through"), which, channel),
    st.tuples(
        st.just("join"),
        which,
        st.sampled_from([("a",), ("b",), ("a", "b")]),
        st.sampled_from([None, 1, 3, 20, "after", "after"]),
    ),
    st.tuples(st.just("join_more"), index, channel, st.sampled_from([None, 3])),
    st.tuples(st.just("cancel_join")),
    st.tuples(st.just("leave"), index, st.sampled_from([None, "a", "b"])),
    st.tuples(st.just("consume"), index, st.integers(1, 6)),
    st.tuples(st.just("turn"), st.integers(1, 8)),
    st.tuples(st.just("turn"), st.integers(1, 30)),
    st.tuples(st.just("lose"), which, st.integers(1, 3)),
    st.tuples(st.just("cut"), which),
    st.tuples(st.just("reincarnate")),
    st.tuples(st.just("forget")),
    st.tuples(st.just("trim"), channel, st.integers(0, 3)),
)


async def play(strategy: BacklogStrategy, max_backlog: int | None, schedule: list[tuple[Any, ...]], seed: int) -> World:
    world = World(strategy, max_backlog, seed)
    async with world.plugins[0], world.plugins[1]:
        for name, *arguments in schedule:
            await getattr(world, name)(*arguments)
        await world.settle()
        world.judge()
        for plugin, watcher in world.watchers:
            if watcher.stream is not None:
                await plugin.unsubscribe(watcher.stream)
        await world.turn(100)
        assert [plugin.stats().channels for plugin in world.plugins] == [0, 0]
    return world


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels_core._link.FIRST_DELAY", 0.0)


LIMITS: list[tuple[BacklogStrategy, int | None]] = [
    ("backoff", None),
    ("backoff", 3),
    ("dropleft", 1),
    ("dropleft", 4),
    ("close", 3),
    ("catchup", 1),
    ("catchup", 5),
]


def random_operation(random: Random) -> tuple[Any, ...]:
    """Draw one step; publishing, joining, consuming and turns of the loop are what races are made of."""
    name, which, index = random.choice("ab"), random.randrange(2), random.randrange(6)
    return random.choice(
        [
            *[("publish", name, random.randint(1, 12))] * 4,
            ("publish_through", which, name),
            *[
                (
                    "join",
                    which,
                    random.choice([("a",), ("b",), ("a", "b")]),
                    random.choice([None, 1, 3, 20, "after", "after"]),
                )
            ]
            * 3,
            ("join_more", index, name, random.choice([None, 3])),
            ("cancel_join",),
            ("leave", index, random.choice([None, "a", "b"])),
            *[("consume", index, random.randint(1, 6))] * 3,
            *[("turn", random.randint(1, 30))] * 3,
            ("lose", which, random.randint(1, 3)),
            ("cut", which),
            ("reincarnate",),
            ("forget",),
            ("trim", name, random.randint(0, 3)),
        ]
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(8))
def test_long_schedules_are_exact(seed: int) -> None:
    """The same for long schedules, which meet races that small ones do not; the seed replays them.

    Hypothesis tries small schedules first. A hold that loses an event when another stream begins to lag got past 300
    of its examples, and is met by about every sixtieth of these.
    """
    random = Random(seed)
    for number in range(100):
        strategy, max_backlog = random.choice(LIMITS)
        schedule = [random_operation(random) for _ in range(random.randint(5, 60))]
        try:
            asyncio.run(play(strategy, max_backlog, schedule, seed))
        except BaseException as exc:
            exc.add_note(f"schedule {number} of seed {seed}: {strategy}, {max_backlog}, {schedule}")
            raise


@pytest.mark.timeout(300)
@given(
    limits=st.sampled_from(LIMITS),
    schedule=st.lists(operations, min_size=5, max_size=60),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_stream_is_exact(
    limits: tuple[BacklogStrategy, int | None], schedule: list[tuple[Any, ...]], seed: int
) -> None:
    """No unannounced gap, no duplicate, no reordering, whatever happens."""
    strategy, max_backlog = limits
    asyncio.run(play(strategy, max_backlog, schedule, seed))
