"""The page of rules says what the rules say."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "conformance_reference.py"


def test_the_page_of_rules_is_up_to_date() -> None:
    """Whoever changes a rule writes the page anew."""
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
