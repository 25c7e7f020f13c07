"""Run a command's coroutine and turn errors into one line."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from channels_core.exceptions import ChannelsException

ResultT = TypeVar("ResultT")


def run(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run to the end in an event loop of its own.

    Raises:
        click.ClickException: One of our errors; its message and cause in one line, exit code 1.
    """
    try:
        return asyncio.run(coroutine)
    except ChannelsException as exc:
        raise click.ClickException(describe(exc)) from exc


def describe(error: BaseException) -> str:
    """Return an error and its cause in one line."""
    text = str(error) or type(error).__name__
    cause = error.__cause__
    if cause is None or str(cause) in text:
        return text
    return f"{text} ({type(cause).__name__}: {cause})"
