"""Prove a backend: conformance rules, faults on purpose, and a checker of streams.

The pytest face is `channels_core.testing.suite.ChannelsBackendSuite`; everything here works without pytest.
"""

from channels_core.testing.checker import Checker, Finding
from channels_core.testing.faults import FaultSchedule, Proxy, ServerProcess, Step

__all__ = ("Checker", "FaultSchedule", "Finding", "Proxy", "ServerProcess", "Step")
