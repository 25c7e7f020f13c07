"""The arithmetic of measurements."""

import pytest

from channels_bench.catalogue import SYSTEMS
from channels_bench.goals import GOALS
from channels_bench.jobs import percentile
from channels_bench.judging import Absolute, Compare, Goal, Growth, Times, judge
from channels_bench.measure import Measured, ratio
from channels_bench.plan import WORKLOADS, select
from channels_bench.tasks import TASKS


def test_the_value_is_the_median() -> None:
    """One round that went wrong does not move the value."""
    assert Measured((5.0, 1_000.0, 4.0)).value == 5.0


def test_the_spread_is_half_the_range_as_a_share_of_the_median() -> None:
    """Rounds of 8, 10 and 12 are 10 ± 20 %."""
    assert Measured((8.0, 12.0, 10.0)).spread == pytest.approx(0.2)


def test_nothing_measured_has_no_value() -> None:
    """A system that failed has no value, and no spread to divide by."""
    assert (Measured(error="gone").value, Measured().spread) == (None, 0.0)


@pytest.mark.parametrize("higher,expected", [(True, 4.0), (False, 0.25)])
def test_a_ratio_above_one_is_better(higher: bool, expected: float) -> None:
    """Eight against two is four times better as a rate, and four times worse as a duration."""
    assert ratio(8.0, 2.0, higher_is_better=higher) == expected


def test_we_are_compared_with_the_best_of_the_others() -> None:
    """The weaker peer does not make us look better, and one that failed does not count."""
    rows = {"ours": Measured((90.0,)), "a": Measured((30.0,)), "b": Measured((10.0,)), "c": Measured(error="gone")}
    assert Compare("memory/fan-out-1", "ours", ("a", "b", "c")).read({"memory/fan-out-1": rows}) == 3.0


def test_for_durations_the_best_is_the_shortest() -> None:
    """A latency of 2 ms against 6 and 10 is three times better."""
    rows = {"ours": Measured((2.0,)), "a": Measured((6.0,)), "b": Measured((10.0,))}
    assert Compare("redis/latency", "ours", ("a", "b")).read({"redis/latency": rows}) == 3.0


def test_what_was_not_measured_is_not_judged() -> None:
    """A goal whose workload was left out is neither met nor missed."""
    assert list(judge({}, GOALS)) == []


@pytest.mark.parametrize(
    "limit,at_least,met,share",
    [(2.0, True, True, 1.5), (4.0, True, False, 0.75), (4.0, False, True, 4 / 3), (1.5, False, False, 0.5)],
)
def test_a_verdict_says_how_much_of_the_goal_was_reached(limit: float, at_least: bool, met: bool, share: float) -> None:
    """Three against a lower or an upper limit."""
    goal = Goal("three", Absolute("work", "ours"), limit, at_least)
    (verdict,) = judge({"work": {"ours": Measured((3.0,))}}, [goal])
    assert verdict.met is met
    assert verdict.share == pytest.approx(share)


def test_growth_compares_two_workloads_of_one_system() -> None:
    """Ten times the channels in twelve times the time is 12."""
    results = {"large": {"ours": Measured((120.0,))}, "small": {"ours": Measured((10.0,))}}
    assert Growth("large", "ours", "small").read(results) == 12.0


def test_what_was_noted_beside_the_value_is_compared_by_how_many_times_it_takes() -> None:
    """A join of 30 ms against one of 20 ms takes 1.5 times; what nobody noted is not compared."""
    results = {"work": {"ours": Measured((1.0,), {"join": 30.0}), "raw": Measured((1.0,), {"join": 20.0})}}
    assert Times("work", "ours", "raw", "join").read(results) == 1.5
    assert Times("work", "ours", "raw", "leave").read(results) is None


def test_every_goal_reads_what_the_plan_measures() -> None:
    """A goal on a workload or a system that nobody runs would never be judged, and nobody would notice."""
    planned = {each.name: each.systems for each in WORKLOADS}
    for goal in GOALS:
        measure = goal.measure
        assert measure.system in planned[measure.workload], goal.text
        match measure:
            case Compare(others=others):
                assert set(others) <= set(planned[measure.workload]) | set(_LEFT_OUT), goal.text
            case Times(other=other):
                assert other in planned[measure.workload], goal.text
            case Growth(smaller=smaller):
                assert measure.system in planned[smaller], goal.text


_LEFT_OUT = ("faststream", "django")
"""Peers that take no part in the largest fan-outs; the plan says why."""


def test_everything_planned_exists() -> None:
    """Systems and tasks of the plan are in the catalogue and in the table of tasks, and ours is in every workload."""
    for each in WORKLOADS:
        assert set(each.systems) <= set(SYSTEMS)
        assert {each.task} | ({each.feeder} - {""}) | ({each.profile} - {""}) <= set(TASKS)
        assert any(SYSTEMS[name].kind == "ours" for name in each.systems)


def test_the_percentile_is_the_nearest_rank() -> None:
    """Of a hundred values, 99 do not exceed the 99th percentile."""
    ordered = [float(number) for number in range(1, 101)]
    assert (percentile(ordered, 0.99), percentile(ordered, 0.5), percentile([7.0], 0.99)) == (99.0, 50.0, 7.0)


def test_only_selects_by_section_and_by_workload() -> None:
    """'redis' is a section, 'latency' a workload of every section, and names are unique."""
    assert {each.section for each in select(["redis"], quick=False)} == {"redis"}
    assert {each.name for each in select(["latency"], quick=False)} == {"redis/latency", "postgres/latency"}
    assert len({each.name for each in WORKLOADS}) == len(WORKLOADS)


def test_a_quick_run_leaves_slow_peers_out_and_keeps_ours() -> None:
    """Every workload of it still has one of ours and somebody to compare it with."""
    for each in select([], quick=True):
        kinds = {SYSTEMS[name].kind for name in each.systems}
        assert "ours" in kinds
        assert kinds - {"ours"}
        assert "faststream" not in each.systems
