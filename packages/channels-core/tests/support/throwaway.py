"""Distributions that exist for one test: real metadata and modules in a folder of their own on ``sys.path``."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

__all__ = ("COMPLETE_BACKEND", "Installer")

COMPLETE_BACKEND = """
    from channels_core.backend import ChannelsBackend

    class Backend(ChannelsBackend):
        url = ""
        @classmethod
        def from_url(cls, url):
            backend = cls()
            backend.url = url
            return backend
        async def on_startup(self): ...
        async def on_shutdown(self): ...
        def stream_events(self): ...
        async def subscribe(self, channels): ...
        async def unsubscribe(self, channels): ...
        async def publish(self, data, channels, *, key=None): ...
"""
"""Source of a module whose ``Backend`` implements every verb and does nothing."""


class Installer:
    """Puts distributions on ``sys.path`` until the test ends."""

    _numbers = itertools.count()

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def module(self, source: str) -> str:
        """Write a module under a name that no other test uses, and return the name."""
        name = f"throwaway_{next(self._numbers)}"
        self._folder.mkdir(exist_ok=True)
        (self._folder / f"{name}.py").write_text(textwrap.dedent(source))
        self._monkeypatch.syspath_prepend(str(self._folder))
        return name

    def distribution(
        self, name: str, entry_points: Mapping[str, Mapping[str, str]], *, requires: Sequence[str] = ()
    ) -> Path:
        """Install metadata (per entry-point group, name → object reference) and return the new ``sys.path`` entry."""
        site = self._folder / f"site-{name}"
        info = site / f"{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.5", *(f"Requires-Dist: {r}" for r in requires)]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        groups = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in entry_points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(groups))
        self._monkeypatch.syspath_prepend(str(site))
        return site
