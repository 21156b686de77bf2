"""The report: medians, ratios that are 1 where jobsvc is as good as bare, goals judged the right way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.figures import ALL, EDGE
from bench.report import (
    Bare,
    Figure,
    Goal,
    Machine,
    Percentiles,
    Report,
    amount,
    file_system,
    percentiles,
    table,
)


def figure(**fields: Any) -> Figure:
    return Figure(
        **{"name": "f", "title": "a figure", "unit": "/s", "better": "more", "values": [1.0], **fields}
    )


def report(*figures: Figure, failed: dict[str, str] | None = None, quick: bool = False) -> Report:
    machine = Machine(
        cpus=2, python="CPython 3.11", kernel="6", sqlite="3", file_system="ext4", load_before=0.1
    )
    return Report(
        at="now",
        version="1",
        durability="power",
        quick=quick,
        machine=machine,
        figures=list(figures),
        failed=failed or {},
    )


def test_the_median_counts_and_half_of_bare_is_a_half_either_way() -> None:
    more = figure(values=[900.0, 100.0, 500.0], bare=[Bare("x", 1_000), Bare("y", 1)])
    assert (more.value, more.ratio) == (500.0, 0.5)
    less = figure(values=[2.0], better="less", unit="s", bare=[Bare("x", 1.0)])
    assert less.ratio == 0.5
    assert figure().ratio is None


@pytest.mark.parametrize(
    ("better", "value", "met"),
    [("more", 10.0, True), ("more", 9.9, False), ("less", 10.0, True), ("less", 10.1, False)],
)
def test_a_goal_is_met_at_its_value(better: str, value: float, met: bool) -> None:
    assert figure(better=better, values=[value]).meets(Goal(10.0)) is met


def test_a_goal_on_p99_counts_beside_the_value() -> None:
    slow_tail = figure(better="less", unit="s", values=[0.001], latencies_s=Percentiles(0.001, 0.002, 0.02))
    assert slow_tail.meets(Goal(0.003))
    assert not slow_tail.meets(Goal(0.003, p99=0.010))


def test_what_missed_its_floor_or_was_not_measured_is_named() -> None:
    good, bad = figure(name="good", floor=Goal(1)), figure(name="bad", floor=Goal(2))
    assert report(good, bad, failed={"ugly": "it broke"}).missed() == ["bad", "ugly"]


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == Percentiles(50.0, 95.0, 99.0)
    assert percentiles([3.0]) == Percentiles(3.0, 3.0, 3.0)
    assert percentiles([1.0, 2.0]) == Percentiles(1.0, 2.0, 2.0)


def test_the_table_holds_a_line_for_each_figure_and_says_what_was_met() -> None:
    aim = figure(title="fast", values=[3_000.0, 2_000.0, 2_500.0], floor=Goal(1), aim=Goal(2_500))
    floor = figure(title="slower", floor=Goal(1), aim=Goal(2))
    below = figure(title="slow", unit="s", better="less", values=[0.25], floor=Goal(0.1, p99=0.2))
    lines = table(report(aim, floor, below, failed={"ugly": "it broke"}, quick=True)).splitlines()
    assert lines[2].split("  ")[0] == "fast"
    assert lines[2].endswith("aim")
    assert "2,500/s" in lines[2]
    assert "2,000/s - 3,000/s" in lines[2]
    assert lines[3].endswith("floor")
    assert lines[4].endswith("NO")
    assert "250 ms" in lines[4]
    assert "100 ms, p99 200 ms" in lines[4]
    assert "ugly: NOT MEASURED: it broke" in lines
    assert any("durability power" in line and "2 CPUs" in line for line in lines)
    assert any(line.startswith("quick run") for line in lines)


def test_amounts_are_read_in_a_unit_of_their_size() -> None:
    said = [amount(*given) for given in [(0.00123, "s"), (1.5, "s"), (105e6, "B"), (1e8, "B/s"), (0.5, "%")]]
    assert said == ["1.23 ms", "1.5 s", "105 MB", "100 MB/s", "0.5 %"]
    assert amount(12_345.6, " jobs/s") == "12,346 jobs/s"


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = f"/dev/a / ext4 rw 0 0\nx {tmp_path} tmpfs rw 0 0\ny {tmp_path}/other xfs rw 0 0\n"
    assert file_system(tmp_path / "in", mounts) == "tmpfs"
    assert file_system(Path("/"), mounts) == "ext4"


def test_every_figure_has_a_name_of_its_own_and_a_function() -> None:
    every = {**ALL, **EDGE}
    assert len(every) == len(ALL) + len(EDGE) > 0
    assert len(set(every.values())) == len(every)


def test_a_bare_limit_is_set_beside_that_of_the_reference_machine_where_it_is_the_same_thing() -> None:
    rate = figure(name="rate", bare=[Bare("Klein hello", 5_250)])
    latency = figure(name="latency", unit="s", better="less", bare=[Bare("Klein hello", 0.001)])
    text = table(report(rate, latency))
    assert "rate: bare: Klein hello 5,250/s (reference machine 10,500/s)" in text
    assert "latency: bare: Klein hello 1 ms\n" in text
