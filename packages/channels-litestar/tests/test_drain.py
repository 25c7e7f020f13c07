"""Ending streams before the server waits for them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from live_site import DEADLINE, Site, close_code, eventually, refusal

from channels_core.exceptions import NotStarted
from channels_litestar import ChannelsPlugin
from channels_litestar._drain import SIGNALS, call_on_stop_signal


def make_plugin() -> ChannelsPlugin:
    return ChannelsPlugin("memory://", channels=["chat"], create_ws_route_handlers=True, create_sse_route_handlers=True)


@pytest.fixture
def caught() -> Iterator[list[int]]:
    """Stop signals that came through to the handlers of this test."""
    numbers: list[int] = []
    previous = {each: signal.signal(each, lambda number, frame: numbers.append(number)) for each in SIGNALS}
    yield numbers
    for number, handler in previous.items():
        signal.signal(number, handler)


async def test_drain_closes_web_sockets_for_a_restart() -> None:
    """Every WebSocket is closed with 1012, and nothing of it stays."""
    async with Site(make_plugin()) as site:
        clients = [await site.connect("/chat") for _ in range(10)]
        site.plugin.drain()
        assert [await close_code(client) for client in clients] == [1012] * 10
        await eventually(lambda: site.subscribers == 0)


async def test_drain_ends_event_streams() -> None:
    """Every event stream ends as a complete response."""
    async with Site(make_plugin()) as site, site.client() as client, client.stream("GET", "/chat") as response:
        site.plugin.drain()
        async with asyncio.timeout(DEADLINE):
            assert (await response.aread()).startswith(b"retry:")


async def test_drain_refuses_new_streams() -> None:
    """While draining new clients get 503, and subscribing in code raises."""
    async with Site(make_plugin()) as site, site.client() as client:
        site.plugin.drain()
        assert await refusal(site, "/chat") == 503
        assert (await client.get("/chat")).status_code == 503
        with pytest.raises(NotStarted, match="stopping"):
            await site.plugin.subscribe("chat")


async def test_publishing_goes_on_while_draining() -> None:
    """What requests in flight publish is still published."""
    async with make_plugin() as plugin:
        plugin.drain()
        await plugin.wait_published("last words", "chat")


async def test_start_ends_draining() -> None:
    """A plugin that was drained and stopped works when it is started again."""
    plugin = make_plugin()
    async with plugin:
        plugin.drain()
    async with plugin, plugin.start_subscription("chat") as subscriber:
        await plugin.wait_published("hello", "chat")
        assert [item async for item in _one(subscriber)]


async def _one(subscriber: Any) -> Any:
    yield await anext(subscriber)


async def test_draining_before_the_start_does_nothing() -> None:
    """drain() is harmless at any time."""
    plugin = make_plugin()
    plugin.drain()
    async with plugin:
        assert plugin.health().ok


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_calls_back_and_goes_on(number: signal.Signals, caught: list[int]) -> None:
    """A stop signal calls back in the event loop and reaches the handler that was there before."""
    called = asyncio.Event()
    with call_on_stop_signal(called.set):
        signal.raise_signal(number)
        assert caught == [number]
        async with asyncio.timeout(DEADLINE):
            await called.wait()


async def test_handlers_are_put_back(caught: list[int]) -> None:
    """Afterwards the handlers of before are there."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with call_on_stop_signal(lambda: None):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


async def test_a_later_handler_stays(caught: list[int]) -> None:
    """A handler that somebody put over ours is not removed, and may still call ours."""
    called: list[str] = []

    def later(number: int, frame: FrameType | None) -> None:
        assert callable(ours)
        ours(number, frame)

    with call_on_stop_signal(lambda: called.append("drain")):
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    assert caught == [signal.SIGTERM]
    assert called == []


async def test_signals_that_nobody_handles_are_left_alone(caught: list[int]) -> None:
    """Where the default is in place, nothing waits for streams, and the process may end as ever."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with call_on_stop_signal(lambda: None):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_loop_handler_gets_the_signal_too() -> None:
    """A server that uses loop.add_signal_handler hears the signal beside us."""
    loop = asyncio.get_running_loop()
    heard, called = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    try:
        with call_on_stop_signal(called.set):
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await called.wait()
                await heard.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_outside_the_main_thread_nothing_is_installed() -> None:
    """In another thread, where Python allows no handlers, the lifespan works without."""

    def run() -> bool:
        async def enter() -> bool:
            with call_on_stop_signal(lambda: None):
                return True

        return asyncio.run(enter())

    assert await asyncio.to_thread(run)
