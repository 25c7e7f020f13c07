"""Rows for the table of results that the full test run writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ("record",)


def record(**row: object) -> None:
    """Append a row to the file that ``CHANNELS_TEST_RESULTS`` names, if it names one."""
    path = os.environ.get("CHANNELS_TEST_RESULTS")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
