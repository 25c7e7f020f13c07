"""The parent's side of a pair of processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import psutil

from channels_harness.twoprocess.verdict import Verdict
from channels_harness.twoprocess.wire import Item, Published, Ready, Setup

__all__ = ("Pair",)

_DEADLINE: Final = 90.0
"""Seconds for a step of a run; only against hanging."""

_LINE_BYTES: Final = 1024 * 1024

_DRIVER_NOISE: Final = "finished exception=ConnectionError('unexpected connection_lost() call')"
"""asyncpg says so when its TLS negotiation is cut in the very turn in which connecting was cancelled."""

Message = Ready | Item | Published

_T = TypeVar("_T")

_decode: Final[Callable[[bytes], Message]] = msgspec.json.Decoder(Message).decode


class Child:
    """One of the two processes."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process: Final = process
        self._errors: Final = errors

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, role: str, setup: Setup) -> AsyncIterator[Child]:
        """Run a module of this package; kill it at the end if it still runs."""
        with tempfile.TemporaryDirectory() as folder:
            errors = Path(folder) / "stderr"
            command = ["-W", "always::ResourceWarning", "-m", f"channels_harness.twoprocess.{role}"]
            with errors.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, *command, msgspec.json.encode(setup).decode(),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output, limit=_LINE_BYTES,
                )  # fmt: skip
            try:
                yield cls(process, errors)
            finally:
                await _end(process)

    async def hear(self) -> Message:
        """Return the next message."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the process ended:\n{self.errors()}")
        return _decode(line)

    async def messages(self) -> AsyncIterator[Message]:
        """Give all messages until the process closes its output."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            yield _decode(line)

    async def tell(self) -> None:
        """Say that it may go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def leave(self) -> None:
        """Wait until it has ended by itself, in good order."""
        status = await self.process.wait()
        assert status == 0, f"exit status {status}:\n{self.errors()}"
        assert "ResourceWarning" not in self.errors(), self.errors()
        assert self.errors().count("never retrieved") == self.errors().count(_DRIVER_NOISE), self.errors()

    def errors(self) -> str:
        """Return what it has logged."""
        return self._errors.read_text("utf-8", "replace")[-8_000:]

    def ports(self) -> set[int]:
        """Return the local ports of its connections."""
        return {int(connection.laddr.port) for connection in psutil.Process(self.process.pid).net_connections("tcp")}


class Pair:
    """A publisher and a subscriber on one broker.

    Example::

        async with Pair.started(Setup(url)) as pair:
            await pair.received(500)
            ...  # break something
            verdict = await pair.finish()
    """

    def __init__(self, setup: Setup, publisher: Child, subscriber: Child) -> None:
        self.publisher: Final = publisher
        self.subscriber: Final = subscriber
        self._setup: Final = setup
        self._items: Final[list[Item]] = []
        self._progress: Final = asyncio.Condition()
        self._reading: Final = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, setup: Setup) -> AsyncIterator[Pair]:
        """Start both, and publish as soon as the subscriber has its confirmation."""
        async with Child.started("subscriber", setup) as subscriber, Child.started("publisher", setup) as publisher:
            async with asyncio.timeout(_DEADLINE):
                for child in (subscriber, publisher):
                    assert isinstance(await child.hear(), Ready)
            pair = cls(setup, publisher, subscriber)
            try:
                await publisher.tell()
                yield pair
            finally:
                pair._reading.cancel()
                await asyncio.gather(pair._reading, return_exceptions=True)

    async def received(self, count: int) -> None:
        """Return when the subscriber has received so many items, or has ended."""
        await self._in_time(self._until_received(count))

    async def finish(self) -> Verdict:
        """Wait for the end of the stream, let both processes end, and return what was received."""
        published = await self._in_time(self._until_ended())
        return Verdict(self._setup, tuple(self._items), frozenset(published.accepted), published.failed)

    async def _read(self) -> None:
        async for message in self.subscriber.messages():
            assert isinstance(message, Item)
            async with self._progress:
                self._items.append(message)
                self._progress.notify_all()

    async def _until_received(self, count: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: len(self._items) >= count)

    async def _until_ended(self) -> Published:
        await self._reading
        await self.subscriber.leave()
        await self.publisher.tell()
        published = await self.publisher.hear()
        assert isinstance(published, Published)
        await self.publisher.leave()
        return published

    async def _in_time(self, step: Coroutine[None, None, _T]) -> _T:
        try:
            return await asyncio.wait_for(step, _DEADLINE)
        except TimeoutError:
            raise AssertionError(
                f"stuck with {len(self._items)} items received, the last: {self._items[-1:]}\n"
                f"publisher: {self.publisher.errors()}\nsubscriber: {self.subscriber.errors()}"
            ) from None


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
