"""A publisher and a subscriber in processes of their own, and what may stand in the stream after a fault."""

from channels_harness.twoprocess.pair import Pair
from channels_harness.twoprocess.verdict import Verdict
from channels_harness.twoprocess.wire import CHANNELS, Setup

__all__ = ("CHANNELS", "Pair", "Setup", "Verdict")
