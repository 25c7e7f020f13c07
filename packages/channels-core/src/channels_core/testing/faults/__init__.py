"""Faults on purpose: a proxy that cuts and stalls, control over a server's process, and a schedule to replay."""

from channels_core.testing.faults.process import ServerProcess
from channels_core.testing.faults.proxy import Direction, Proxy
from channels_core.testing.faults.schedule import FaultSchedule, Step

__all__ = ("Direction", "FaultSchedule", "Proxy", "ServerProcess", "Step")
