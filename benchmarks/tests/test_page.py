"""The page and the file of results."""

from pathlib import Path
from typing import Any

import pytest

from channels_bench.measure import Measured
from channels_bench.page import write_page
from channels_bench.store import load, merge, merge_profile, results_of, save

FACTS: dict[str, Any] = {
    "date": "2026-01-02 03:04 UTC",
    "python": "CPython 3.11.7",
    "machine": "A processor, 2 cores, Linux",
    "load": 0.1,
    "servers": ["Valkey 9.1.2"],
    "packages": {"redis": "8.1.0"},
    "quick": False,
    "repeats": 3,
}


@pytest.fixture
def stored() -> dict[str, Any]:
    stored: dict[str, Any] = {"workloads": {}}
    rows = {
        "ours": Measured((3_000_000.0, 3_100_000.0, 2_900_000.0), {"per_cpu_second": 3_200_000.0}),
        "litestar": Measured((1_500_000.0,)),
        "deque": Measured(error="failed at /somewhere/private | here"),
    }
    merge(stored, "memory/fan-out-1000", rows, FACTS)
    return stored


def test_the_page_tells_each_goal_and_by_how_much_it_was_missed(stored: dict[str, Any]) -> None:
    """Twice Litestar where three times is required is 67 % of the goal; what was not measured is not listed."""
    page = write_page(stored, [])
    assert "0 of 1 measured goals are met" in page
    assert "| memory: fan-out 1 → 1,000, of Litestar's plugin | ≥ 3 times | 2 times | **not met**: 67% of it |" in page


def test_the_page_tells_value_spread_and_ratio(stored: dict[str, Any]) -> None:
    """Median, half the range, and how many times better ours is."""
    page = write_page(stored, [])
    assert "| channels | ours | 3,000,000 | 3% | 1.00 | 3,200,000 |" in page
    assert "| Litestar | peer | 1,500,000 | 0% | 2.00 |  |" in page


def test_the_page_tells_when_where_and_with_what(stored: dict[str, Any]) -> None:
    """Date, machine and versions stand on it, and plots are shown."""
    page = write_page(stored, ["memory.png"])
    assert "2026-01-02: A processor, 2 cores, Linux; CPython 3.11.7; 3 rounds at most; redis 8.1.0" in page
    assert "servers: Valkey 9.1.2" in page
    assert "![memory](performance/memory.png)" in page


def test_the_page_holds_no_path_of_the_machine(stored: dict[str, Any]) -> None:
    """An error is told without its paths."""
    page = write_page(stored, [])
    assert "failed: failed at here" in page
    assert "/somewhere" not in page


def test_a_later_run_replaces_its_own_workloads_only(stored: dict[str, Any], tmp_path: Path) -> None:
    """What '--only' leaves out keeps its results and its date."""
    file = tmp_path / "performance.json"
    save(file, stored)
    again = load(file)
    merge(again, "redis/latency", {"ours-redis": Measured((1.5,))}, FACTS)
    save(file, again)
    results = results_of(load(file))
    assert results["memory/fan-out-1000"]["ours"].value == 3_000_000.0
    assert results["redis/latency"]["ours-redis"].value == 1.5


def test_rows_keep_the_order_of_the_plan(stored: dict[str, Any], tmp_path: Path) -> None:
    """Ours first, then peers, then floors, also when the results come from the file."""
    save(tmp_path / "performance.json", stored)
    rows = results_of(load(tmp_path / "performance.json"))["memory/fan-out-1000"]
    assert list(rows) == ["ours", "litestar", "deque"]


def test_a_missed_goal_comes_with_its_profile(stored: dict[str, Any]) -> None:
    """Of our system, and of the floor that it was compared with; a later run of the workload forgets them."""
    rows = [{"where": "channels_core/router.py:12 fan_out", "calls": 1_000, "share": 0.4}]
    merge_profile(stored, "memory/fan-out-1000", "ours", rows)
    page = write_page(stored, [])
    assert "Profile of channels, memory: fan-out 1 → 1,000." in page
    assert "| `channels_core/router.py:12 fan_out` | 1,000 | 40% |" in page
    merge(stored, "memory/fan-out-1000", {"ours": Measured((1.0,))}, FACTS)
    assert "Profile of" not in write_page(stored, [])


def test_an_outage_is_counted_not_compared(stored: dict[str, Any]) -> None:
    """Its table has a column for each count, and no ratio."""
    numbers = {"accepted": 500, "received": 490, "lost": 10, "announced": 10, "lost_silently": 0, "twice": 0}
    rows = {"ours-redis": Measured((0.0,), numbers), "faststream": Measured(error="gone")}
    merge(stored, "redis/outage", rows, FACTS)
    page = write_page(stored, [])
    assert "| system |  | accepted | received | lost | announced | lost silently | twice |" in page
    assert "| channels, Pub/Sub | ours | 500 | 490 | 10 | 10 | 0 | 0 |" in page
    assert "| FastStream, Pub/Sub | peer | failed: gone |  |  |  |  |  |" in page
