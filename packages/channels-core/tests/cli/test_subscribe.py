from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest
from click.testing import Result

from channels_core.backend import ChannelsBackend
from channels_core.cli import _subscribe
from channels_core.cli._subscribe import follow, line_of, printable
from channels_core.events import ORIGIN, Cursor, Event, Gap, Position
from channels_core.plugin import ChannelsPlugin
from channels_core.registry import create_backend

Invoke = Callable[..., Result]


def broker_with(url: str, channel: str, payloads: Sequence[bytes]) -> ChannelsBackend:
    """Return a backend, which keeps its shared broker alive, after publishing to it."""
    backend = create_backend(url)

    async def fill() -> None:
        await backend.on_startup()
        for payload in payloads:
            await backend.publish(payload, [channel])
        await backend.on_shutdown()

    asyncio.run(fill())
    return backend


def token_in(text: str) -> str:
    """Return the token of the last line."""
    match = re.search(r"^resume with --after (\S+)$", text, re.MULTILINE)
    assert match, text
    return match[1]


def test_history_and_resume(invoke: Invoke) -> None:
    """History comes first, and the token of the last line resumes right behind what was shown."""
    broker = broker_with("memory://cli-resume?history=10", "news", [b"one", b"two", b"three"])
    first = invoke("subscribe", "memory://cli-resume", "news", "--history", "3", "--count", "2")
    assert first.exit_code == 0
    assert [line.split("\t")[::2] for line in first.stdout.splitlines()] == [["news", "one"], ["news", "two"]]
    again = invoke("subscribe", "memory://cli-resume", "news", "--after", token_in(first.stderr), "--count", "1")
    assert [line.split("\t")[2] for line in again.stdout.splitlines()] == ["three"]
    assert broker.keeps_history


def test_position_is_shown(invoke: Invoke) -> None:
    """The second column is the position as text."""
    broker = broker_with("memory://cli-position?history=10", "news", [b"one"])
    result = invoke("subscribe", "memory://cli-position", "news", "--history", "1", "--count", "1")
    assert Position.parse(result.stdout.split("\t")[1]).offset == 1
    assert broker.keeps_history


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("memory://", "news", "--history", "3"), "keeps no history"),
        (("memory://?history=3", "news", "--after", "damaged"), "damaged"),
        (("memory://?histori=3", "news"), "did you mean 'history'?"),
    ],
)
def test_errors_are_one_line(invoke: Invoke, arguments: Sequence[str], message: str) -> None:
    """An error of ours is one line and exit code 1."""
    result = invoke("subscribe", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_channel_is_required(invoke: Invoke) -> None:
    """Without a channel there is nothing to follow: a usage error."""
    result = invoke("subscribe", "memory://")
    assert result.exit_code == 2
    assert "Missing argument 'CHANNEL...'" in result.stderr


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Take interrupts as a command at a terminal does: a shell lets what it runs in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the command with exit code 0, and with the token."""
    url = f"memory://cli-signal-{number.name}"
    broker = broker_with(f"{url}?history=10", "news", [b"one"])
    original = line_of

    def interrupted(item: Event | Gap) -> str:
        signal.raise_signal(number)
        return original(item)

    monkeypatch.setattr(_subscribe, "line_of", interrupted)
    result = invoke("subscribe", url, "news", "--history", "1")
    assert result.exit_code == 0
    assert "Aborted" not in result.stderr
    assert Cursor.parse(token_in(result.stderr))["news"].offset == 1
    assert broker.keeps_history


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_on_the_real_command() -> None:
    """The installed command, in a process of its own, ends cleanly on SIGINT."""
    command = [sys.executable, "-m", "channels_core.cli", "subscribe", "memory://?history=3", "news"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "subscribed to news\n"
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert Cursor.parse(token_in(rest)) == {"news": ORIGIN}


async def test_live_events_until_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    """Live events are shown as they come; without history there is no position, and the token holds no offset."""
    async with ChannelsPlugin("memory://cli-live", arbitrary_channels_allowed=True) as plugin:
        task = asyncio.create_task(follow("memory://cli-live", ["news"]))
        output = ""
        async with asyncio.timeout(30):
            while "news\t-\thello\n" not in output:
                await plugin.wait_published("hello", ["news"])
                output += capsys.readouterr().out
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert Cursor.parse(token_in(capsys.readouterr().err)) == {"news": ORIGIN}


@pytest.mark.parametrize(
    "item, line",
    [
        (Event("news", b"hello", Position("e", 7)), "news\te:7\thello"),
        (Event("news", b"hello"), "news\t-\thello"),
        (Event("a\tb", b"x\ty\nz"), "a\\tb\t-\tx\\ty\\nz"),
        (Event("news", b"\xff\x00\x1b[31m"), "news\t-\t\\xff\\x00\\x1b[31m"),
        (Event("news", "grüße \u202e".encode()), "news\t-\tgrüße \\u202e"),
        (Gap("news", "disconnected"), "news\tgap\tdisconnected"),
        (
            Gap("news", "trimmed", Position("e", 2), Position("e", 5), 3),
            "news\tgap\ttrimmed after=e:2 until=e:5 missed=3",
        ),
    ],
)
def test_one_line_each(item: Event | Gap, line: str) -> None:
    """An item is one line of tab-separated columns, safe to show on a terminal."""
    assert line_of(item) == line


def test_printable_text_is_unchanged() -> None:
    """Text that is safe stays as it is, backslashes included."""
    assert printable("a b\\c ü 日本 🎉") == "a b\\c ü 日本 🎉"
