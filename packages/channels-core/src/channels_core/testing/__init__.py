"""Prove a backend: conformance rules, faults on purpose, and a checker of streams.

The pytest face is `channels_core.testing.suite.ChannelsBackendSuite`; everything here works without pytest.
"""

import channels_core.testing.rules  # noqa: F401 - registers the rules
from channels_core.testing.checker import Checker, Finding
from channels_core.testing.delegate import DelegatingBackend
from channels_core.testing.faults import FaultSchedule, Proxy, ServerProcess, Step
from channels_core.testing.registry import RULES, Rule
from channels_core.testing.runner import Outcome, prove, prove_all, prove_together
from channels_core.testing.subject import Subject

__all__ = (
    "RULES",
    "Checker",
    "DelegatingBackend",
    "FaultSchedule",
    "Finding",
    "Outcome",
    "Proxy",
    "Rule",
    "ServerProcess",
    "Step",
    "Subject",
    "prove",
    "prove_all",
    "prove_together",
)
