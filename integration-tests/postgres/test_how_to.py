"""The snippets of docs/how-to/postgres.md do what the page says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any, Final

from channels_harness.admin import PostgresAdmin

from .support import MakeBackend, Reader

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "postgres.md"


def blocks(language: str) -> list[str]:
    """Return the page's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def execute(url: str, script: str) -> None:
    """Run a block as psql does, statement by statement."""
    with PostgresAdmin(url).connect() as connection:
        connection.execute(script.encode())


async def test_triggers_publish(make_backend: MakeBackend, postgres_url: str, channel: str, driver: str) -> None:
    """A trigger on a table of the user publishes, in both forms of payload; so do the Python snippets."""
    admin, name = PostgresAdmin(postgres_url), f"how_to_{driver}_{channel.replace('-', '_')}"
    url = admin.create_database(name)
    try:
        await run_page(await make_backend(url, history=100), url)
    finally:
        admin.drop_database(name)


async def run_page(backend: Any, url: str) -> None:
    trigger, forms, restored = blocks("sql")
    async with Reader(backend) as reader:
        await backend.subscribe(["orders", "order-feed"])
        await asyncio.to_thread(execute, url, trigger)
        expected = [b'{"id":1,"status":"new"}', b'{"id":1,"status":"paid"}']
        assert [event.data for event in await reader.take(2)] == expected
        await asyncio.to_thread(execute, url, forms)
        assert [event.data for event in await reader.take(2)] == [b"some text", b"\0\xff"]
        namespace = await run_python(url)
        assert [event.data for event in await reader.take(3)][1:] == [b"a new order", b"whatever comes next"]
        assert len(namespace["state"]) == 2
        before = await backend.get_tops(["orders"])
        await asyncio.to_thread(execute, url, restored)
        await backend.publish(b"", ["orders"])
        after = await backend.get_tops(["orders"])
        assert before["orders"].epoch != after["orders"].epoch
    await backend.on_shutdown()


async def run_python(url: str) -> dict[str, Any]:
    """Run the page's Python, all blocks in one namespace."""
    namespace: dict[str, Any] = {"dsn": url}
    for block in blocks("python"):
        code = compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)  # the page's own text
        if inspect.isawaitable(result):
            await result
    return namespace
