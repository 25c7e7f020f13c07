"""A backend that breaks in every way that a broker or a network can, on purpose and on a schedule."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random

from channels_core._memory_broker import MemoryBroker
from channels_core.backend import History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError
from channels_core.memory import MemoryChannelsBackend


class RecordingBroker(MemoryBroker):
    """A memory broker that remembers every event that it ever stored or handed over, and whether it lost memory."""

    def __init__(self, history: int, max_age: float | None = None) -> None:
        super().__init__(history, max_age)
        self.log: dict[str, list[Event]] = defaultdict(list)
        self.has_lost_memory = False

    def forget(self) -> None:
        self.has_lost_memory = True
        super().forget()

    def reincarnate(self) -> None:
        self.has_lost_memory = True
        super().reincarnate()

    def _hand_over(self, events: Sequence[Event]) -> None:
        for event in events:
            self.log[event.channel].append(event)
        super()._hand_over(events)

    def publish_now(self, channel: str, data: bytes) -> None:
        """Publish as another process would."""
        self.publish([Publication(data, (channel,))])


class FaultyBackend(MemoryChannelsBackend):
    """The memory backend behind a network that does what the test says.

    Attributes:
        calls: Names of the verbs in the order of their calls.
        faults: Per verb, what the next calls do before the real work: raise, hang, or answer late.
        broken: Per verb, what all calls raise for the time being.
        loses: How many of the next live events vanish between broker and reader.
        silent: While true, live events vanish, and nothing raises.
        refuses: Tells whether the broker refuses an event for good.
    """

    def __init__(self, broker: MemoryBroker, *, random: Random | None = None) -> None:
        super().__init__()
        self._adopt(broker)
        self.broker = broker
        self.calls: list[str] = []
        self.faults: dict[str, deque[Callable[[], Awaitable[None]]]] = defaultdict(deque)
        self.broken: dict[str, BaseException] = {}
        self.loses = 0
        self.silent = False
        self.refuses: Callable[[Publication], bool] = lambda _: False
        self._random = random
        self._cut: asyncio.Future[None] | None = None

    def raises(self, verb: str, error: BaseException, times: int = 1) -> None:
        """Let the next calls of a verb raise."""

        async def fail() -> None:
            raise error

        self.faults[verb].extend([fail] * times)

    def replace(self, verb: str, function: Callable[..., object]) -> None:
        """Let a verb of this one instance do something else."""
        setattr(self, verb, function)

    def breaks(self, verb: str, error: BaseException) -> None:
        """Let all calls of a verb raise, until `mends`."""
        self.broken[verb] = error

    def mends(self, verb: str) -> None:
        """Undo `breaks`."""
        del self.broken[verb]

    def hangs(self, verb: str, times: int = 1) -> None:
        """Let the next calls of a verb wait until they are cancelled."""

        async def hang() -> None:
            await asyncio.get_running_loop().create_future()

        self.faults[verb].extend([hang] * times)

    def blocks(self, verb: str, released: asyncio.Event) -> None:
        """Let the next call of a verb wait for an event."""

        async def wait() -> None:
            await released.wait()

        self.faults[verb].append(wait)

    def cut(self) -> None:
        """Break the receiving connection."""
        if self._cut is not None and not self._cut.done():
            self._cut.set_result(None)

    async def on_startup(self) -> None:
        await self._before("on_startup")
        await super().on_startup()
        self._cut = asyncio.get_running_loop().create_future()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        await self._before("on_shutdown")

    async def stream_events(self) -> AsyncIterator[Event]:
        await self._before("stream_events")
        stream = super().stream_events()
        assert self._cut is not None
        while True:
            following = asyncio.ensure_future(anext(stream))
            try:
                await asyncio.wait((following, self._cut), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
                    await asyncio.wait((following,))
            if self._cut.done():
                raise BackendConnectionError("the connection was cut")
            await self._turns()
            event = following.result()
            if self.silent:
                continue
            if self.loses:
                self.loses -= 1
                continue
            yield event

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self._before("subscribe")
        await super().subscribe(channels)
        await self._turns()

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await self._before("unsubscribe")
        await super().unsubscribe(channels)
        await self._turns()

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await self.publish_batch((Publication(data, tuple(channels), key),))

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        await self._before("publish_batch")
        outcomes: list[BackendError | None] = []
        for publication in batch:
            if self.refuses(publication):
                outcomes.append(BackendError("refused for good"))
            else:
                self._broker.publish([publication])
                outcomes.append(None)
        await self._before("answer of publish_batch")
        return outcomes

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        await self._before("get_history")
        history = await super().get_history(channel, limit, after=after)
        await self._before("answer of get_history")
        return history

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        await self._before("get_tops")
        tops = await super().get_tops(channels)
        await self._turns()
        return tops

    async def publish_probe(self, channel: str, data: bytes) -> None:
        await self._before("publish_probe")
        await super().publish_probe(channel, data)

    async def _before(self, verb: str) -> None:
        self.calls.append(verb)
        await self._turns()
        if verb in self.broken:
            await asyncio.sleep(0)
            raise self.broken[verb]
        if self.faults[verb]:
            await self.faults[verb].popleft()()

    async def _turns(self) -> None:
        for _ in range(self._random.randrange(4) if self._random else 0):
            await asyncio.sleep(0)
