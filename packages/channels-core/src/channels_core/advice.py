"""What a backend may say in words, on top of the contract: its promise, and what an error of its broker means.

Both are optional class members that a backend simply has; neither inherits from anything::

    class PigeonBackend(ChannelsBackend):
        promise = "at most once, weather permitting"

        @classmethod
        def explain(cls, error: BaseException) -> str | None:
            return "feed the pigeons" if isinstance(error, HungryPigeon) else None

``channels backends`` shows the promise, ``channels doctor`` the explanation.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final, Protocol, runtime_checkable

from channels_core.backend import ChannelsBackend

__all__ = ("Explains", "StatesPromise", "advise", "promise_of")


@runtime_checkable
class StatesPromise(Protocol):
    """A backend class that says in a few words what it promises.

    Attributes:
        promise: Half a sentence for a table, for example ``"at most once"``.
    """

    promise: str


@runtime_checkable
class Explains(Protocol):
    """A backend class that knows what its broker's errors mean."""

    def explain(self, error: BaseException) -> str | None:
        """Say what is wrong and what to do, or ``None`` where there is nothing to add.

        A class method. Asked for the error that reached the user and for each of its causes.
        """


_COMMON: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (ConnectionRefusedError, "nothing listens at this address; is the broker running, and is the port right?"),
    (socket.gaierror, "the host's name cannot be resolved; is it spelled right?"),
    (ssl.SSLError, "TLS failed; does the broker speak TLS on this port, and is its certificate trusted here?"),
    (PermissionError, "this user may not open the socket"),
    (TimeoutError, "no answer in time; is the host reachable, or does a firewall drop the packets?"),
)


def promise_of(backend: type[ChannelsBackend]) -> str:
    """Return what the class says that it promises, else what its declared capabilities say."""
    claimant: object = backend  # to the type checker a class object is never an instance of a protocol
    if isinstance(claimant, StatesPromise):
        return claimant.promise
    return "keeps history, resumes" if backend.keeps_history else "at most once, keeps no history"


def advise(error: BaseException, backend: object = None) -> str | None:
    """Say in words what an error means: the backend's own explanation first, then what holds for every broker."""
    causes = list(_causes_of(error))
    if isinstance(backend, Explains):
        explanations = (backend.explain(cause) for cause in causes)
        if explanation := next((each for each in explanations if each), None):
            return explanation
    return next((text for cause in causes for kind, text in _COMMON if isinstance(cause, kind)), None)


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
