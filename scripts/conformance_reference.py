"""Write docs/reference/conformance.md from the rules themselves, or check that it is up to date.

Usage: `uv run --no-sync python scripts/conformance_reference.py [--check]`.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from channels_core.testing import RULES

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "conformance.md"

HEAD: Final = """\
# Conformance rules

<!-- Written by scripts/conformance_reference.py from the rules in channels_core.testing; do not edit. -->

What a backend must keep, and what `channels conformance URL` and `ChannelsBackendSuite` prove.
[Write your own backend](../how-to/write-a-backend.md) shows how to run them.

*Needs* names what a rule requires: a backend with history or without, or hooks of the suite that break the broker.
Every rule runs twice: with one instance, and with several on one broker, where publishing and receiving go through
different ones (or where another one stands by, if the rule concerns one only).
After every rule the kit also fails on tasks, warnings and (with `connection_count()`) connections that are left behind.
"""


def render() -> str:
    """Return the page."""
    sections = [HEAD]
    for group, rules in groupby(RULES.values(), key=lambda rule: rule.group):
        sections.append(f"\n## {group.capitalize()}\n\n| rule | promise | needs |\n| --- | --- | --- |\n")
        sections += [f"| `{rule.id}` | {rule.sentence} | {rule.needs} |\n" for rule in rules]
    sections.append(f"\n{len(RULES)} rules.\n")
    return "".join(sections)


def main() -> None:
    """Write the page, or fail when it is not what would be written."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(render(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != render():
        sys.exit(f"{PAGE.name} is not up to date; run: uv run --no-sync python scripts/conformance_reference.py")


if __name__ == "__main__":
    main()
