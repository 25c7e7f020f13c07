"""Server states → our errors, once for both drivers."""

from __future__ import annotations

import pytest

from channels_core.exceptions import BackendConnectionError, BackendError
from channels_postgres._errors import error_of

AWAY = [
    "08006", "40001", "40P01", "53300", "53100", "54000", "55P03", "57014", "57P01", "57P02", "57P03", "57P05",
    "58030", "25006", "25P03", "25P04", None,
]  # fmt: skip
REFUSED = {
    "28P01": "password", "3D000": "database", "42501": "grant", "3F000": "channels postgres schema",
    "26000": "pooler", "42P05": "pooler", "22P02": "SQLSTATE",
}  # fmt: skip


@pytest.mark.parametrize("state", AWAY)
def test_what_may_pass_is_retried(state: str | None) -> None:
    """Lost, overloaded, in conflict or starting: the plugin tries again."""
    assert isinstance(error_of(state, "no"), BackendConnectionError)


@pytest.mark.parametrize("state", REFUSED)
def test_a_refusal_says_what_to_do(state: str) -> None:
    """Refused for good, in words that help."""
    error = error_of(state, "permission\ndenied")
    assert isinstance(error, BackendError)
    assert "permission denied" in str(error)
    assert REFUSED[state] in str(error)
