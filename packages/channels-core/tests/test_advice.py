from __future__ import annotations

import itertools
import socket
import ssl

import pytest

from channels_core.advice import advise, promise_of
from channels_core.backend import ChannelsBackend
from channels_core.exceptions import BackendConnectionError
from channels_core.memory import MemoryChannelsBackend


class Silent(ChannelsBackend):
    keeps_history = True


class Talking(MemoryChannelsBackend):
    promise = "twice, always"

    @classmethod
    def explain(cls, error: BaseException) -> str | None:
        return "feed the pigeons" if isinstance(error, KeyError) else None


def chained(*errors: BaseException) -> BaseException:
    """Return the first error, each caused by the next."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_promise_is_the_class_s_own() -> None:
    """A class that states its promise is quoted, another is judged by what it declares."""
    assert promise_of(Talking) == "twice, always"
    assert promise_of(Silent) == "keeps history, resumes"  # type: ignore[type-abstract]  # never made


@pytest.mark.parametrize(
    "cause, words",
    [
        (ConnectionRefusedError(), "is the broker running"),
        (socket.gaierror(), "cannot be resolved"),
        (ssl.SSLCertVerificationError(), "TLS failed"),
        (PermissionError(), "may not open the socket"),
        (TimeoutError(), "no answer in time"),
    ],
)
def test_common_causes_are_put_in_words(cause: BaseException, words: str) -> None:
    """The causes that every network broker knows have advice, however deep they are."""
    assert words in (advise(chained(BackendConnectionError("away"), RuntimeError(), cause)) or "")


def test_nothing_to_say() -> None:
    """An error that nobody knows gets no advice."""
    assert advise(BackendConnectionError("away"), Talking()) is None


def test_backend_speaks_first() -> None:
    """The backend's explanation of any cause comes before the general one."""
    assert advise(chained(BackendConnectionError("away"), TimeoutError(), KeyError()), Talking()) == "feed the pigeons"
    assert "no answer in time" in (advise(chained(BackendConnectionError("away"), TimeoutError()), Talking()) or "")


def test_circular_causes_end() -> None:
    """A chain of causes that is a circle is walked once."""
    error = BackendConnectionError("away")
    error.__context__ = KeyError()
    error.__context__.__context__ = error
    assert advise(error) is None
