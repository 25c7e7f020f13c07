"""One rule on several subjects at once is judged as strictly as on one."""

from __future__ import annotations

import asyncio
import re

import pytest
from broken_backends import BrokenSubject, ConnectsPerPublish, LeavesASocket, LeavesATask
from memory_subject import MemorySubject, RemoteBackend

from channels_core.testing import RULES, prove, prove_together

RULE = RULES["idleness-is-no-fault"]


class FailsWhileIdle(RemoteBackend):
    """Keeps its connection alive by a callback that raises."""

    async def on_startup(self) -> None:
        await super().on_startup()
        asyncio.get_running_loop().call_soon(self.keep_alive)

    def keep_alive(self) -> None:
        raise OSError("the keep-alive failed")


def test_sound_backends_pass_together() -> None:
    """One outcome per subject, in their order."""
    subjects = [MemorySubject(), MemorySubject()]
    assert [(outcome.status, outcome.detail) for outcome in prove_together(RULE, subjects)] == [("passed", "")] * 2


@pytest.mark.parametrize(
    "backend, complaint",
    [
        (FailsWhileIdle, "the event loop was told: .*the keep-alive failed"),
        (LeavesATask, "tasks are left"),
        (LeavesASocket, "unclosed"),
        (ConnectsPerPublish, "connections are left"),
    ],
)
def test_what_fails_alone_fails_together(backend: type[RemoteBackend], complaint: str) -> None:
    """What an event loop is told, and tasks, connections and warnings that are left, are found beside others too."""
    broken = BrokenSubject(backend)
    broken.call_timeout = 2.0
    alone = prove(RULE, broken, "several")
    together = prove_together(RULE, [MemorySubject(), broken])
    for outcome in (alone, together[1]):
        assert outcome.status == "failed"
        assert re.search(complaint, outcome.detail)
