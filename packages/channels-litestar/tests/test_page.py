"""The page of ``channels serve`` in a real browser: a person joins, publishes, reads, and survives a restart."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Final

import pytest
from live_site import Site, SpiedSubscriber, feed
from playwright.async_api import Page, async_playwright, expect
from served import serving

from channels_core.events import Gap
from channels_litestar import ChannelsPlugin
from channels_litestar._server_app import ServerInfo, make_app

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
"""Headless Chromium as root on a machine without a screen, which talks to nobody but the test's server."""

TIMEOUT_MS: Final = 20_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; the full run installs one"),
    pytest.mark.timeout(180),
]


@contextlib.asynccontextmanager
async def browsing(url: str, pages: int = 1) -> AsyncIterator[list[Page]]:
    """Open the page, several times where asked; an error in any of them fails the test."""
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            opened = [await browser.new_page() for _ in range(pages)]
            for page in opened:
                page.set_default_timeout(TIMEOUT_MS)
                page.on("pageerror", lambda error: errors.append(str(error)))
                await page.goto(url)
            yield opened
        finally:
            await browser.close()
    assert errors == []


async def join(page: Page, channel: str) -> None:
    await page.get_by_label("Channel", exact=True).fill(channel)
    await page.keyboard.press("Enter")
    await expect_status(page, "Live")


async def publish(page: Page, text: str) -> None:
    await page.get_by_label("Publish").fill(text)
    await page.keyboard.press("Enter")


async def expect_status(page: Page, text: str) -> None:
    await expect(page.get_by_role("status")).to_have_text(text, timeout=TIMEOUT_MS)


async def expect_events(page: Page, *texts: str) -> None:
    await expect(page.locator("#log .event .data")).to_have_text(list(texts), timeout=TIMEOUT_MS)


async def test_two_people() -> None:
    """What one person publishes both see, with nothing but the keyboard, and as text whatever it is."""
    async with serving() as server, browsing(server.base_url, pages=2) as [ada, bob]:
        await join(ada, "a room/50% off?")
        await join(bob, "a room/50% off?")
        await publish(ada, "<img src=x onerror=alert(1)>")
        await expect_events(bob, "<img src=x onerror=alert(1)>")
        await publish(bob, "hello")
        await expect_events(ada, "<img src=x onerror=alert(1)>", "hello")
        assert await ada.locator("#log img").count() == 0


async def test_a_later_visitor_sees_the_history() -> None:
    """Who joins later, by a link, gets what happened before."""
    async with serving() as server, server.client() as client:
        await client.post("/publish/chat", content="before")
        await client.post("/publish/chat", content=b"\x00\xff")
        async with browsing(f"{server.base_url}/#chat") as [page]:
            await expect_status(page, "Live")
            await publish(page, "after")
            await expect_events(page, "before", "2 bytes of binary data: AP8=", "after")


async def test_a_gap_is_shown() -> None:
    """Where events are missing a person sees it, between the events around it."""
    plugin = ChannelsPlugin(
        "memory://",
        arbitrary_channels_allowed=True,
        create_ws_route_handlers=True,
        ws_handler_base_path="/ws",
        subscriber_class=SpiedSubscriber,
    )
    SpiedSubscriber.made.clear()
    async with (
        Site(plugin, app=make_app(plugin, ServerInfo(None, 0, 1000), ["same-origin"])) as site,
        browsing(site.url("/")) as [page],
    ):
        await join(page, "chat")
        feed(SpiedSubscriber.made[0], "1", Gap("chat", "backlog", missed=3), "2")
        rows = page.locator("#log li")
        await expect(rows).to_have_count(3, timeout=TIMEOUT_MS)
        await expect(rows.nth(1)).to_contain_text("3 events are missing here")
        await expect(rows.nth(1)).to_have_class("gap")


async def test_a_restart_of_the_server() -> None:
    """The page connects again by itself, goes on after its last event, and says that the broker lost its memory."""
    async with serving() as first:
        port = first.base_url.rpartition(":")[2]
        async with browsing(first.base_url) as [page]:
            await join(page, "chat")
            await publish(page, "before")
            await expect_events(page, "before")
            await first.stop()
            await expect_status(page, "Disconnected")
            async with serving("memory://?history=100", port=port) as second, second.client() as client:
                await expect_status(page, "Live")
                await client.post("/publish/chat", content="after")
                await expect_events(page, "before", "after")
                await expect(page.locator("#log .gap")).to_have_count(1, timeout=TIMEOUT_MS)


async def test_what_cannot_be_published_is_not_lost() -> None:
    """When the server refuses, the person is told why and still has the text."""
    async with serving() as server, browsing(server.base_url) as [page]:
        await join(page, "chat")
        await publish(page, "x" * (1024 * 1024 + 1))
        await expect(page.get_by_role("alert")).to_contain_text("Not published", timeout=TIMEOUT_MS)
        assert len(await page.get_by_label("Publish").input_value()) == 1024 * 1024 + 1


async def test_only_declared_channels_are_offered() -> None:
    """With --channel a person chooses from a list."""
    async with (
        serving("memory://", "--channel", "news", "--channel", "chat") as server,
        browsing(server.base_url) as [page],
    ):
        await page.get_by_label("Channel", exact=True).select_option("chat")
        await page.get_by_role("button", name="Join").click()
        await expect_status(page, "Live")
        await publish(page, "hello")
        await expect_events(page, "hello")


async def test_leaving() -> None:
    """Leaving ends the subscription and clears the page."""
    async with serving() as server, server.client() as client, browsing(server.base_url) as [page]:
        await join(page, "chat")
        await publish(page, "hello")
        await expect_events(page, "hello")
        await page.get_by_role("button", name="Leave").click()
        await expect_status(page, "Not joined")
        await expect_events(page)
        while "channels_subscribers 0\n" not in (await client.get("/metrics")).text:
            pass
