"""Many writers with transactions of their own, readers that join at any time: nothing lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import psycopg
import pytest

from channels_core import ChannelsPlugin, Event, Gap
from channels_core.events import Position
from channels_core.registry import create_backend
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker, backend_url

from .support import DEADLINE

WRITERS: Final = 16
TRANSACTIONS: Final = 25
BATCHES: Final = 20
END: Final = b"end"


class Run:
    """One run: what was committed, what was rolled back, and what everybody received."""

    def __init__(self, seed: int, url: str, channel: str) -> None:
        self.rng = random.Random(seed)
        self.url = url
        self.channels = [f"{channel}-{name}" for name in ("hot", "warm", "cold")]
        self.committed: dict[str, set[bytes]] = defaultdict(set)
        self.writing = True

    async def write(self, number: int) -> None:
        """Publish from SQL, in transactions of 0 to 20 ms, one in five rolled back; half of the writers in reverse."""
        names = self.channels[:2] if number % 2 else self.channels[1::-1]
        connection = await psycopg.AsyncConnection.connect(self.url)
        async with connection:
            for turn in range(TRANSACTIONS):
                data = f"{number}.{turn}"
                chosen = names if self.rng.random() < 0.8 else [self.channels[2]]
                for name in chosen:
                    await connection.execute("SELECT channels.publish(%s, %s)", [name, data])
                    await asyncio.sleep(self.rng.uniform(0, 0.01))
                if self.rng.random() < 0.2:
                    await connection.rollback()
                    continue
                await connection.commit()
                for name in chosen:
                    self.committed[name].add(data.encode())

    async def publish(self, plugin: ChannelsPlugin) -> None:
        """Publish through the backend, to the same channels in the other order, in batches."""
        for turn in range(BATCHES):
            names = self.channels[1::-1] if turn % 2 else self.channels[:2]
            payloads = [f"batch.{turn}.{number}".encode() for number in range(10)]
            await asyncio.gather(*(plugin.wait_published(data, names) for data in payloads))
            for name in names:
                self.committed[name].update(payloads)
            await asyncio.sleep(self.rng.uniform(0, 0.01))

    async def come_and_go(self, plugin: ChannelsPlugin) -> None:
        """Join with history at random, also right behind another channel's join, and check each short stream."""
        while self.writing:
            name = self.rng.choice(self.channels)
            await plugin.subscribe([f"other-{self.rng.random()}"])
            async with plugin.start_subscription([name], history=self.rng.choice([0, 1, 20, 1_000])) as subscriber:
                heads: dict[str, Position] = {}
                for _ in range(self.rng.randrange(1, 30)):
                    try:
                        async with asyncio.timeout(0.5):  # a channel may be silent; the next join is due then
                            self.check(await anext(subscriber), heads)
                    except TimeoutError:
                        break

    def check(self, item: Event | Gap, heads: dict[str, Position]) -> None:
        """Check that an event stands right behind the one before."""
        assert isinstance(item, Event), item
        assert item.position is not None
        assert item.data == END or item.data in self.committed[item.channel] or self.writing
        head = heads.get(item.channel)
        assert head is None or item.position == Position(head.epoch, head.offset + 1), (head, item)
        heads[item.channel] = item.position

    async def follow(self, events: AsyncIterator[Event | Gap]) -> dict[str, list[bytes]]:
        """Read everything up to the end of each channel, from a subscriber or from a bare backend."""
        received: dict[str, list[bytes]] = {name: [] for name in self.channels}
        heads: dict[str, Position] = {}
        unfinished = set(self.channels)
        async for item in events:
            self.check(item, heads)
            assert isinstance(item, Event)
            if item.data == END:
                unfinished.discard(item.channel)
                if not unfinished:
                    break
            else:
                received[item.channel].append(item.data)
        return received


@pytest.mark.parametrize("seed", range(10))
async def test_nothing_is_lost_doubled_or_reordered(
    seed: int, driver: str, channel: str, postgres_broker: Broker
) -> None:
    """16 writers with rollbacks, idle transactions and opposite orders; readers who join at random."""
    run = Run(seed, postgres_broker.url, channel)
    url = backend_url(postgres_broker.url, driver, history=5_000)
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(ChannelsPlugin(url, arbitrary_channels_allowed=True)) for _ in range(2)
        ]
        # Right after the start: whoever joins now must miss nothing.
        streams = [await plugin.subscribe(run.channels) for plugin in (first, second)]
        followers = [asyncio.create_task(run.follow(aiter(stream))) for stream in streams]
        # A plugin would repair what its backend leaves out, so there is a bare backend, too.
        bare = create_backend(url)
        stack.push_async_callback(bare.on_shutdown)
        await bare.on_startup()
        followers.append(asyncio.create_task(run.follow(bare.stream_events())))
        await bare.subscribe(run.channels)
        admin = PostgresAdmin(postgres_broker.url)
        stack.enter_context(admin.open_transaction(f"SELECT channels.publish('{run.channels[0]}', 'never')"))
        stack.enter_context(admin.open_transaction())
        guests = [asyncio.create_task(run.come_and_go(plugin)) for plugin in (first, second)]
        for task in (*followers, *guests):
            stack.callback(task.cancel)
        await asyncio.gather(*(run.write(number) for number in range(WRITERS)), run.publish(first))
        run.writing = False
        await first.wait_published(END, run.channels)
        async with asyncio.timeout(DEADLINE):
            received = await asyncio.gather(*followers)
            await asyncio.gather(*guests)
    for each in received:
        for name in run.channels:
            assert len(each[name]) == len(set(each[name])), "doubled"
            assert set(each[name]) == run.committed[name], "lost, or published by a transaction that was rolled back"
            assert_in_order(each[name])


def assert_in_order(payloads: list[bytes]) -> None:
    """Each writer's events stand in the order in which it committed them."""
    last: dict[bytes, int] = {}
    for data in payloads:
        if not data.startswith(b"batch"):
            writer, _, turn = data.partition(b".")
            assert last.get(writer, -1) < int(turn), "reordered"
            last[writer] = int(turn)
