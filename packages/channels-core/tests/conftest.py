from __future__ import annotations

from pathlib import Path

import pytest
from throwaway import Installer


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    return Installer(tmp_path / "throwaway", monkeypatch)
