from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from click.testing import Result
from throwaway import Installer

from channels_core.cli import _doctor
from channels_core.cli._doctor import CHANNEL, _find
from channels_core.events import Event, Gap
from channels_core.registry import BACKENDS

Invoke = Callable[..., Result]

SICK = """
    from channels_core.backend import History
    from channels_core.events import ORIGIN
    from channels_core.exceptions import BackendConnectionError, BackendError
    from channels_core.memory import MemoryChannelsBackend

    class Backend(MemoryChannelsBackend):
"""


def steps_of(result: Result) -> list[list[str]]:
    """Return verdict and name of each step."""
    return [line.split()[:2] for line in result.output.splitlines() if line.startswith(("ok", "FAIL"))]


def install_sick(install: Installer, scheme: str, body: str) -> None:
    """Install a backend that is the memory backend but for the given members."""
    module = install.module(SICK + "\n".join(" " * 8 + line for line in body.splitlines()))
    install.distribution("sick", {BACKENDS: {scheme: f"{module}:Backend"}})


@pytest.mark.parametrize(
    "url, note", [("memory://?history=10", "position "), ("memory://", "this backend keeps none: at most once")]
)
def test_healthy_broker(invoke: Invoke, url: str, note: str) -> None:
    """A healthy broker passes every step, with timings."""
    result = invoke("doctor", url)
    assert result.exit_code == 0, result.output
    names = ["backend", "connect", "subscribe", "publish", "receive", "history", "disconnect"]
    assert steps_of(result) == [["ok", name] for name in names]
    assert result.output.count(" ms") == len(names)
    assert note in result.output
    assert result.output.endswith("all is well\n")


def test_unknown_scheme(invoke: Invoke) -> None:
    """An unknown scheme is the first step's failure."""
    result = invoke("doctor", "pigeon://user:hunter2@roof")
    assert result.exit_code == 1
    assert steps_of(result) == [["FAIL", "backend"]]
    assert "no installed distribution serves pigeon://" in result.output
    assert "hunter2" not in result.output


def test_broker_away(invoke: Invoke, install: Installer) -> None:
    """A refused connection is shown with its cause and in words."""
    body = """
async def on_startup(self):
    raise BackendConnectionError("cannot connect") from ConnectionRefusedError("port 1")
"""
    install_sick(install, "doctor-away", body)
    result = invoke("doctor", "doctor-away://")
    assert result.exit_code == 1
    assert steps_of(result) == [["ok", "backend"], ["FAIL", "connect"]]
    assert "cannot connect (ConnectionRefusedError: port 1)" in result.output
    assert "is the broker running" in result.output


def test_backend_s_own_words_come_first(invoke: Invoke, install: Installer) -> None:
    """What the backend explains replaces the general advice."""
    body = """
async def on_startup(self):
    raise BackendError("no") from ConnectionRefusedError("port 1")
@classmethod
def explain(cls, error):
    return "feed the pigeons" if isinstance(error, ConnectionRefusedError) else None
"""
    install_sick(install, "doctor-explains", body)
    result = invoke("doctor", "doctor-explains://")
    assert "      feed the pigeons\n" in result.output
    assert "is the broker running" not in result.output


def test_event_that_never_arrives(invoke: Invoke, install: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accepted event that does not come back fails the step *receive*."""
    install_sick(install, "doctor-deaf", "async def publish_batch(self, batch): return [None] * len(batch)")
    monkeypatch.setattr(_doctor, "RECEIVE_TIMEOUT", 0.05)
    result = invoke("doctor", "doctor-deaf://")
    assert result.exit_code == 1
    assert steps_of(result)[-1] == ["FAIL", "receive"]
    assert "TimeoutError" in result.output


def test_refused_event_without_advice(invoke: Invoke, install: Installer) -> None:
    """A refusal that nobody can explain is shown as it is."""
    body = 'async def publish_batch(self, batch): return [BackendError("read-only") for _ in batch]'
    install_sick(install, "doctor-refuses", body)
    result = invoke("doctor", "doctor-refuses://")
    assert result.exit_code == 1
    assert steps_of(result)[-1] == ["FAIL", "publish"]
    assert "read-only" in result.output
    assert not result.output.splitlines()[-1].startswith("      ")


def test_history_that_forgets(invoke: Invoke, install: Installer) -> None:
    """A history without the event just received fails the step *history*."""
    body = "async def get_history(self, channel, limit=None, *, after=None): return History([], ORIGIN)"
    install_sick(install, "doctor-forgets", body)
    result = invoke("doctor", "doctor-forgets://?history=10")
    assert result.exit_code == 1
    assert steps_of(result)[-1] == ["FAIL", "history"]
    assert "is not in the history" in result.output


@pytest.mark.parametrize(
    "publishing, last",
    [("", "disconnect"), ("async def publish_batch(self, batch): raise BackendError('no')", "publish")],
)
def test_broker_is_always_left(invoke: Invoke, install: Installer, publishing: str, last: str) -> None:
    """The connection is closed inside the step *disconnect*, and after a failure too."""
    stopping = """
async def on_shutdown(self):
    print("left the broker")
    await super().on_shutdown()
"""
    scheme = f"doctor-leaves-{last}"
    install_sick(install, scheme, stopping + publishing)
    result = invoke("doctor", f"{scheme}://")
    assert steps_of(result)[-1][1] == last
    assert result.output.count("left the broker") == 1
    if last == "disconnect":
        assert result.output.index("left the broker") < result.output.index("ok    disconnect")


def test_broken_disconnect(invoke: Invoke, install: Installer) -> None:
    """A backend that fails while it disconnects never gets a traceback on the screen."""
    install_sick(install, "doctor-stuck", "async def on_shutdown(self): raise BackendError('stuck')")
    result = invoke("doctor", "doctor-stuck://")
    assert steps_of(result)[-1][1] == "disconnect"


async def items(*given: Event | Gap) -> AsyncIterator[Event | Gap]:
    """Give the items and end."""
    for item in given:
        yield item


async def test_events_of_others_are_passed_over() -> None:
    """Other examinations on the same broker do not disturb."""
    mine = Event(CHANNEL, b"mine")
    assert await _find(items(Event(CHANNEL, b"other"), Gap(CHANNEL, "disconnected"), mine), b"mine") is None


async def test_stream_that_ends_is_a_failure() -> None:
    """A stream that ends before the event came is a failure, not a success."""
    with pytest.raises(RuntimeError, match="the stream ended before the event came"):
        await _find(items(Event(CHANNEL, b"other")), b"mine")
