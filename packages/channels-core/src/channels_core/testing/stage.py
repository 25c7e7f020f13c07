"""What one run of one rule works with: started backends whose streams are read, and fresh channel names."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TypeVar

from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError
from channels_core.testing.registry import NotProved, RuleBroken, check
from channels_core.testing.subject import Subject

__all__ = ("Instance", "Stage", "turns")

_T = TypeVar("_T")


async def turns(count: int = 5) -> None:
    """Let the event loop do what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


class Instance:
    """A started backend; a task reads its stream as the plugin would."""

    def __init__(self, backend: ChannelsBackend, timeout: float) -> None:
        self.backend = backend
        self.failure: BaseException | None = None
        self._timeout = timeout
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start up and begin to read, in the order that the contract gives."""
        await self._within(self.backend.on_startup(), "on_startup")
        self.failure = None
        self._arrived = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        await turns()

    async def stop(self) -> None:
        """End reading, then shut down."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])
        await self._within(self.backend.on_shutdown(), "on_shutdown")

    async def subscribe(self, *channels: str) -> None:
        await self._within(self.backend.subscribe(channels), "subscribe")

    async def unsubscribe(self, *channels: str) -> None:
        await self._within(self.backend.unsubscribe(channels), "unsubscribe")

    async def publish(self, data: bytes, *channels: str, key: Key | None = None) -> None:
        await self._within(self.backend.publish(data, channels, key=key), "publish")

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await self._within(self.backend.publish_batch(batch), "publish_batch")

    async def publish_probe(self, data: bytes, channel: str) -> None:
        await self._within(self.backend.publish_probe(channel, data), "publish_probe")

    async def history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await self._within(self.backend.get_history(channel, limit, after=after), "get_history")

    async def tops(self, *channels: str) -> dict[str, Position]:
        return await self._within(self.backend.get_tops(channels), "get_tops")

    async def take(self, count: int) -> list[Event]:
        """Wait for the next events of the stream."""
        return [await self._next(f"event {number + 1} of {count}") for number in range(count)]

    async def take_until(self, data: bytes) -> list[Event]:
        """Wait for the event with this payload; gives what came before it."""
        before: list[Event] = []
        while (event := await self._next(f"the sentinel {data!r}, behind {len(before)} others")).data != data:
            before.append(event)
        return before

    async def broken(self) -> BaseException:
        """Wait until the stream has ended; gives what it raised."""
        if self._reader is None:
            raise RuntimeError("the instance is not started")
        done, _ = await asyncio.wait([self._reader], timeout=self._timeout)
        check(bool(done), f"stream_events went on in silence for {self._timeout} s after the connection broke")
        check(self.failure is not None, "stream_events ended by itself; it must raise BackendConnectionError")
        return self.failure or RuleBroken()

    async def _next(self, what: str) -> Event:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._pop(what)
        except TimeoutError:
            raise RuleBroken(f"{what} did not arrive within {self._timeout} s") from None

    async def _pop(self, what: str) -> Event:
        while not self._events:
            if self._reader is None or self._reader.done():
                raise RuleBroken(f"the stream ended before {what}: {self.failure!r}") from self.failure
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

    async def _read(self) -> None:
        try:
            async with aclosing(_as_generator(self.backend.stream_events())) as events:
                async for event in events:
                    self._events.append(event)
                    self._arrived.set()
        except Exception as exc:
            self.failure = exc
        finally:
            self._arrived.set()

    async def _within(self, call: Awaitable[_T], name: str) -> _T:
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                return await call
        except TimeoutError as exc:
            if not deadline.expired():
                raise
            raise RuleBroken(f"{name} did not return within {self._timeout} s") from exc


class Stage:
    """Hands a rule its instances and names, and clears up after it.

    Attributes:
        subject: The backend and its broker.
        several: Whether publishing goes through another instance than receiving, and who is alone has company.
    """

    def __init__(self, subject: Subject, *, several: bool) -> None:
        self.subject = subject
        self.several = several
        self._prefix = f"kit-{secrets.token_hex(5)}"
        self._names = 0
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def enter(self, instance: Instance) -> Instance:
        """Start an instance and stop it at the end."""
        self._exit.push_async_callback(instance.stop)
        await instance.start()
        return instance

    async def instance(self) -> Instance:
        """Give a fresh instance, started."""
        return await self.enter(self.unstarted())

    def unstarted(self) -> Instance:
        """Give a fresh instance that the rule starts and stops itself."""
        return Instance(self.subject.make_backend(), self.subject.call_timeout)

    async def pair(self) -> tuple[Instance, Instance]:
        """Give the publishing and the receiving instance: one and the same, or two."""
        receiving = await self.instance()
        return (await self.instance() if self.several else receiving), receiving

    async def company(self) -> None:
        """With several instances, start one that stands by: what a rule asks of another one must hold beside it."""
        if self.several:
            bystander = await self.instance()
            await bystander.subscribe(self.channel("-company"))

    def channel(self, suffix: str = "") -> str:
        """Give a name that nobody has used before."""
        self._names += 1
        return f"{self._prefix}-{self._names}{suffix}"

    def channels(self, count: int) -> list[str]:
        """Give several names."""
        return [self.channel() for _ in range(count)]

    async def lose_memory(self) -> None:
        """Call the subject's hook."""
        await _required(self.subject.lose_memory)()

    async def cut_connections(self) -> None:
        """Call the subject's hook."""
        await _required(self.subject.cut_connections)()

    async def change_incarnation(self) -> None:
        """Call the subject's hook."""
        await _required(self.subject.change_incarnation)()

    async def trim(self, channel: str, keep: int) -> None:
        """Call the subject's hook."""
        await _required(self.subject.trim)(channel, keep)

    async def connection_count(self) -> int:
        """Call the subject's hook."""
        return await _required(self.subject.connection_count)()

    @asynccontextmanager
    async def broker_stopped(self) -> AsyncIterator[None]:
        """Keep the broker unreachable; it is back at the end, whatever happens."""
        start = _required(self.subject.start_broker)
        await _required(self.subject.stop_broker)()
        try:
            yield
        finally:
            await start()

    async def fails(self, call: Awaitable[object], what: str) -> None:
        """Expect a call to raise `BackendConnectionError`, or to hang until the plugin's deadline cancels it."""
        deadline = asyncio.timeout(self.subject.call_timeout)
        try:
            async with deadline:
                await call
        except BackendConnectionError:
            return
        except Exception as exc:
            # A TimeoutError of the backend's own is no deadline of the plugin.
            if isinstance(exc, TimeoutError) and deadline.expired():
                return
            raise RuleBroken(f"{what} raised {exc!r} instead of BackendConnectionError") from exc
        raise RuleBroken(f"{what} returned as if all were well")


def _required(hook: _T | None) -> _T:
    if hook is None:
        raise NotProved("the rule used a hook that it did not declare")
    return hook


async def _as_generator(events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """Close the iterator where it can be closed: the contract asks for an iterator, most are generators."""
    try:
        async for event in events:
            yield event
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
