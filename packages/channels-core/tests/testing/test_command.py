"""``channels conformance URL`` shows the kit's result and fails when a rule fails."""

from __future__ import annotations

import pytest
from broken_backends import DecodesPayloads
from click.testing import CliRunner
from memory_subject import RemoteBroker

from channels_core.testing import command
from channels_core.testing.command import conformance, shared


def test_all_rules_of_the_memory_backend() -> None:
    """No rule fails on memory; those that break the broker are not proved by a mere URL."""
    result = CliRunner().invoke(conformance, ["memory://?history=100"])
    assert result.exit_code == 0, result.output
    assert "failed" not in result.output
    assert "needs cut_connections()" in result.output
    assert "keeps history" in result.output


def test_one_rule_only() -> None:
    """With ``--rule`` nothing else runs."""
    result = CliRunner().invoke(conformance, ["memory://", "--rule", "any-bytes-arrive-unchanged"])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "2 passed")


def test_a_failed_rule_is_shown_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is a line with the reason, and exit code 1."""
    broker = RemoteBroker(0)
    monkeypatch.setattr(command, "create_backend", lambda _: DecodesPayloads(broker))
    result = CliRunner().invoke(conformance, ["broken://", "--rule", "any-bytes-arrive-unchanged"])
    assert result.exit_code == 1
    assert "invalid UTF-8" in result.output
    assert result.output.splitlines()[-1] == "2 failed"


@pytest.mark.parametrize("arguments", [["nothing://x"], ["memory://?hystory=1"], ["memory://", "--rule", "no-such"]])
def test_a_mistake_is_one_line(arguments: list[str]) -> None:
    """An unknown scheme, option or rule is an error message, not a traceback."""
    result = CliRunner().invoke(conformance, arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)
    assert "Error: " in result.output


def test_a_memory_broker_is_shared_by_a_name_of_its_own() -> None:
    """``memory://`` alone would make a broker for each instance; names that are given stay."""
    assert shared("memory://?history=9") != shared("memory://?history=9")
    assert shared("memory://?history=9").endswith("?history=9")
    assert shared("memory://mine") == "memory://mine"
    assert shared("redis://localhost") == "redis://localhost"
