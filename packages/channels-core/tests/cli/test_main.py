from __future__ import annotations

import runpy
import sys

import pytest

from channels_core.cli import main


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make the import of a module fail as if it were not installed, and forget the modules that imported it."""
    for name in [name for name in sys.modules if name.startswith("channels_core.cli._") and not name.endswith("_main")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("module", ["click", "rich.table"])
def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Without the extra the command says what to install, without a traceback."""
    hide(monkeypatch, module)
    with pytest.raises(SystemExit) as caught:
        main()
    package = module.partition(".")[0]
    assert (
        caught.value.code == f"the channels command needs {package}; install it with: pip install 'channels-core[cli]'"
    )


def test_other_import_errors_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of our own that is missing is a bug, and its traceback is wanted."""
    hide(monkeypatch, "channels_core.registry")
    with pytest.raises(ModuleNotFoundError, match=r"channels_core\.registry"):
        main()


def test_python_dash_m(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The module runs as a script too, under the command's name."""
    monkeypatch.setattr(sys, "argv", ["anything", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("channels_core.cli", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("channels, version ")
