from __future__ import annotations

import pytest

from channels_core.cli._run import describe
from channels_core.exceptions import PublishError


def chained(message: str, cause: BaseException | None) -> PublishError:
    """Return an error raised from a cause."""
    error = PublishError(message)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, line",
    [
        (chained("not accepted", None), "not accepted"),
        (chained("", None), "PublishError"),
        (chained("not accepted", OSError("cut")), "not accepted (OSError: cut)"),
        (chained("not accepted: cut", OSError("cut")), "not accepted: cut"),
    ],
)
def test_cause_is_told_once(error: PublishError, line: str) -> None:
    """The cause follows in brackets unless the message has it already."""
    assert describe(error) == line
