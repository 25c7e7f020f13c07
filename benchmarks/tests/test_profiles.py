"""Profiles."""

from channels_bench.jobs import Sample
from channels_bench.profiles import profiled, short


def test_names_hold_nothing_of_the_machine() -> None:
    """What lies before a package is left out."""
    assert short("/home/someone/work/packages/channels-core/src/channels_core/router.py") == "channels_core/router.py"
    assert short("/x/.venv/lib/python3.11/site-packages/redis/client.py") == "redis/client.py"
    assert short("/usr/lib/python3.11/asyncio/events.py") == "asyncio/events.py"


def test_the_rows_are_the_functions_with_the_most_time_of_their_own() -> None:
    """Shares add up to no more than the whole, the largest comes first, and the sample is passed on."""

    def work() -> Sample:
        return Sample(float(sum(number * number for number in range(50_000))), 1.0)

    sample = profiled(work)
    shares = [row["share"] for row in sample.detail["rows"]]
    assert sample.elapsed == 1.0
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1.0001
    assert any("genexpr" in row["where"] for row in sample.detail["rows"])
