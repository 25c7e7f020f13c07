"""Arithmetic of measurements: medians, spread and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

__all__ = ("Measured", "Results", "ratio")


@dataclass(frozen=True)
class Measured:
    """What one system reached in one workload, over all repeats.

    Args:
        samples: One value per repeat, in the order of measuring.
        extra: Medians of what else was noted.
        error: Why there is nothing.
    """

    samples: Sequence[float] = ()
    extra: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def value(self) -> float | None:
        """The median, ``None`` when nothing was measured."""
        return median(self.samples) if self.samples else None

    @property
    def spread(self) -> float:
        """Half the distance between the largest and the smallest sample, as a share of the median."""
        middle = self.value
        return (max(self.samples) - min(self.samples)) / 2 / middle if middle else 0.0


Results = Mapping[str, Mapping[str, Measured]]
"""Workload → system → what it reached."""


def ratio(ours: float, other: float, *, higher_is_better: bool) -> float:
    """Return how many times better ours is than the other: above 1 is better, whatever the unit."""
    better, worse = (ours, other) if higher_is_better else (other, ours)
    return better / worse if worse else float("inf")
