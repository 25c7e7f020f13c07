"""Runs the Python blocks of the documentation as tests, each document in one namespace and one event loop."""

from __future__ import annotations

import ast
import asyncio
import inspect
import types
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import CodeBlockParser, SkipParser

RUNNER = "__runner__"


class AsyncPythonParser(CodeBlockParser):
    """Runs ``python`` blocks, which may use ``await``, ``async for`` and ``async with`` at the top level."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        """Compile the block with its own line numbers and run it in the document's event loop."""
        source = "\n" * (example.line + example.parsed.line_offset) + str(example.parsed)
        code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = types.FunctionType(code, example.namespace)()
        if inspect.iscoroutine(result):
            example.namespace[RUNNER].run(result)


def open_loop(namespace: dict[str, Any]) -> None:
    """Give the document an event loop of its own."""
    namespace[RUNNER] = asyncio.Runner()
    # Litestar resolves the annotations of a handler in the module that it says it is from.
    namespace["__name__"] = "__main__"


def close_loop(namespace: dict[str, Any]) -> None:
    """Close it, which cancels what a snippet left running."""
    namespace[RUNNER].close()


pytest_collect_file = Sybil(
    parsers=[AsyncPythonParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md", "packages/*/README.md"],
    setup=open_loop,
    teardown=close_loop,
    document_types={".md": Document},
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the blocks of a document in order: pytest-randomly shuffles them, and each needs those before it."""
    blocks = [item for item in items if isinstance(item, SybilItem)]
    blocks.sort(key=lambda block: (str(block.path), block.example.line))
    items[:] = [*(item for item in items if not isinstance(item, SybilItem)), *blocks]
