from __future__ import annotations

import sys


def main() -> None:
    """Run the ``channels`` command, or say what to install."""
    try:
        from channels_core.cli._app import channels
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        sys.exit(f"the channels command needs {package}; install it with: pip install 'channels-core[cli]'")
    channels(prog_name="channels")
