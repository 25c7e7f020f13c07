"""Keeping a backend alive: sessions, restarts, the reader, and the probe that proves delivery.

A session begins with ``on_startup`` and ends with the first failure; then everything is shut down and, after a
delay, a new session begins.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from channels_core._intake import Intake
from channels_core._link import GRACE, Backoff, Link, run_bounded
from channels_core._logging import RateLimitedLogger, logger
from channels_core.backend import ChannelsBackend
from channels_core.events import Event
from channels_core.exceptions import BackendConnectionError, BackendError, ChannelsException
from channels_core.router import Router
from channels_core.stats import Counters, Health

__all__ = ("Probe", "Supervisor")

TICKS: Final = 4
"""Looks at the traffic per probe interval: silence is noticed after at most a quarter more than the interval."""

TURNS: Final = 10
"""Turns of the event loop before a missing probe is judged: a blocked loop must not be taken for a dead broker."""

PAUSE: Final = 0.01
"""Seconds between these turns, so that sockets are read between them."""


class Probe:
    """Publishes to private channels and expects to hear it.

    Args:
        link: The way to the broker.
        log: Shared with the plugin.
        timeout: Seconds from publishing to receiving.
        count_received: Returns how many events were received so far, of any channel.

    Attributes:
        channels: One private channel for each receiving connection.
        detail: Why the last probe proved nothing; empty when it did.
    """

    def __init__(self, link: Link, log: RateLimitedLogger, timeout: float, count_received: Callable[[], int]) -> None:
        self.channels: tuple[str, ...] = ()
        self.detail = ""
        self._link: Final = link
        self._log: Final = log
        self._timeout: Final = timeout
        self._count_received: Final = count_received
        self._own: Final = f"channels.probe.{secrets.token_hex(12)}"
        self._missing: set[str] = set()
        self._heard: Final = asyncio.Event()
        self._token = b""

    def begin_session(self) -> None:
        """Ask a freshly started backend for its channels."""
        self.channels = tuple(self._link.backend.probe_channels()) or (self._own,)

    def hear(self, event: Event) -> None:
        """Note an event of no stream's channel."""
        if event.data == self._token:
            self._missing.discard(event.channel)
            if not self._missing:
                self._heard.set()

    async def run(self) -> None:
        """Publish and hear, once.

        Raises:
            BackendConnectionError: It was not heard in time.
        """
        self._token = secrets.token_hex(8).encode()
        self._missing = set(self.channels)
        self._heard.clear()
        before = self._count_received()
        try:
            async with asyncio.timeout(self._timeout):
                await self._publish()
                await self._heard.wait()
            self.detail = ""
        except TimeoutError:
            await self._judge(before)
        except BackendError as exc:
            self.detail = f"the probe was refused and proves nothing: {exc}"
            self._log.warning("probe refused", "%s", self.detail)

    async def _publish(self) -> None:
        backend = self._link.backend
        for channel in self.channels:
            await self._link.retry("publish_probe", partial(backend.publish_probe, channel, self._token))

    async def _judge(self, before: int) -> None:
        """Raise unless it was heard, or a single connection at least brought something else."""
        for _ in range(TURNS):
            await asyncio.sleep(PAUSE)
        busy = len(self.channels) == 1 and self._count_received() > before
        if self._missing and not busy:
            raise BackendConnectionError(
                f"a probe did not come back within {self._timeout} s: subscriptions are deaf. Check that publishing "
                "and receiving reach the same primary node, that no transaction pooler stands in front of a LISTEN "
                "connection, and that publishing and subscribing are both permitted"
            ) from self._link.last_error


class Supervisor:
    """Runs sessions of one backend until it is stopped.

    Args:
        link: The way to the broker.
        router: Gets the events.
        counters: Shared with the plugin.
        log: Shared with the plugin.
        probe_interval: Seconds of silence before a probe, ``None`` for no probes.
        probe_timeout: Seconds that a probe may take.

    Attributes:
        health: Whether the plugin hears its broker.
    """

    def __init__(
        self,
        link: Link,
        router: Router,
        counters: Counters,
        log: RateLimitedLogger,
        *,
        probe_interval: float | None,
        probe_timeout: float,
    ) -> None:
        self.health = Health(ok=False, detail="starting", since=time.time())
        self._link: Final = link
        self._backend: Final[ChannelsBackend] = link.backend
        self._router: Final = router
        self._counters: Final = counters
        self._log: Final = log
        self._interval: Final = probe_interval
        self._probe: Final = Probe(link, log, probe_timeout, lambda: self._intake.received)
        self._intake: Final = Intake(router.route, router.burst)
        self._started: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._backoff: Final = Backoff()
        router.on_stray = self._probe.hear

    async def run(self, startup_timeout: float) -> None:
        """Run sessions for ever; before the first success only as long as starting may take.

        Raises:
            ChannelsException: It could not be started.
        """
        give_up = time.monotonic() + startup_timeout
        while True:
            try:
                await self._session()
            except Exception as exc:
                self._link.last_error = exc
                self._set_health(ok=False, detail=f"{type(exc).__name__}: {exc}")
                refused = isinstance(exc, BackendError) or not isinstance(exc, OSError)
                if not self._started.done() and (refused or time.monotonic() >= give_up):
                    raise
                bug = None if isinstance(exc, ChannelsException) else exc
                self._log.warning("restart", "the backend is restarted after: %r", exc, exc=bug)
            await self._backoff.sleep()

    async def wait_started(self) -> None:
        """Return when the first session is up."""
        await asyncio.shield(self._started)

    def current_health(self) -> Health:
        """Return the health, with what the probe has to say."""
        if self.health.ok and self._probe.detail:
            return Health(ok=True, detail=self._probe.detail, since=self.health.since)
        return self.health

    async def _session(self) -> None:
        """Run one session; ends only by raising."""
        try:
            await self._link.call("on_startup", self._backend.on_startup())
            reader = asyncio.create_task(self._read(), name="channels: reader")
            try:
                await asyncio.sleep(0)  # the reader iterates before the first subscribe
                await _run_beside(reader, self._set_up())
                self._note_up()
                await _run_beside(reader, self._serve())
            finally:
                await _cancel(reader)
        finally:
            self._link.close()
            self._router.disconnect()
            await self._shut_down()

    async def _serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._router.reconcile(), name="channels: reconciler")
                if self._interval is not None:
                    group.create_task(self._watch(self._interval), name="channels: probe")
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _set_up(self) -> None:
        probes = self._interval is not None
        if probes:
            self._probe.begin_session()
        await self._router.resubscribe(self._probe.channels)
        if probes and not self._started.done():
            self._link.open()
            await self._probe.run()

    def _note_up(self) -> None:
        self._link.open()
        self._backoff.reset()
        self._set_health(ok=True, detail="")
        if self._started.done():
            self._counters.reconnects += 1
        else:
            self._started.set_result(None)

    async def _shut_down(self) -> None:
        try:
            await run_bounded(self._backend.on_shutdown(), self._link.call_timeout)
        except Exception as exc:
            self._log.warning("on_shutdown", "on_shutdown failed: %r", exc, exc=exc)

    async def _read(self) -> None:
        stream = self._backend.stream_events()
        try:
            await self._intake.run(stream)
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        raise BackendConnectionError("stream_events ended by itself, which the backend contract forbids")

    async def _watch(self, interval: float) -> None:
        """Probe when nothing was received for an interval; several connections are probed every interval."""
        always = len(self._probe.channels) > 1
        seen, quiet = self._intake.received, 0
        while True:
            await asyncio.sleep(interval / TICKS)
            quiet = quiet + 1 if always or seen == self._intake.received else 0
            seen = self._intake.received
            if quiet >= TICKS:
                await self._probe.run()
                seen, quiet = self._intake.received, 0

    def _set_health(self, *, ok: bool, detail: str) -> None:
        since = self.health.since if ok == self.health.ok else time.time()
        if ok and self._started.done():
            logger.info("the broker is heard again after %.1f s", time.time() - self.health.since)
        self.health = Health(ok=ok, detail=detail, since=since)


async def _run_beside(reader: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
    """Run work until it ends or the reader fails, and raise what failed."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait((reader, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(task)
    if reader.done():
        reader.result()
    task.result()


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end, but not for ever; an error that it had is somebody else's."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=GRACE)
    if task.done() and not task.cancelled():
        task.exception()  # marks it as seen
