from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from channels_core.cli._app import channels

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Run the command in this process; an exception that is no click exception fails the test."""

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(channels, arguments, catch_exceptions=False, **options)

    return run
