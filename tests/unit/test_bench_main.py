"""`python -m bench`: what is measured is printed and written; what fails is named; --check judges the floors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as command
from bench.bench import Bench
from bench.load import LoadFailed
from bench.report import Bare, Figure, Goal


def good(bench: Bench) -> Figure:
    return Figure(
        name="good",
        title="a good one",
        unit="/s",
        better="more",
        values=bench.repeat(lambda: float(bench.some(100))),
        bare=[Bare("Klein hello", 200)],
        floor=Goal(10),
        aim=Goal(50),
    )


def slow(bench: Bench) -> Figure:
    return Figure(name="slow", title="a slow one", unit="s", better="less", values=[2], floor=Goal(1))


def broken(bench: Bench) -> Figure:
    raise LoadFailed("no byte came\nand more")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(command, "ALL", {"good": good, "slow": slow, "broken": broken})
    monkeypatch.setattr(command, "version", lambda name: f"{name} 0")
    return ["--dir", str(tmp_path / "data"), "--json", str(tmp_path / "out" / "r.json")]


def test_the_table_is_printed_and_the_json_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*words, "--only", "good"]) == 0
    assert "a good one" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "r.json").read_text())
    [figure] = report["figures"]
    assert figure["values"] == [100.0] * 3
    assert (figure["value"], figure["ratio"]) == (100.0, 0.5)
    assert (figure["floor_met"], figure["aim_met"]) == (True, True)
    assert report["durability"] == "power"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_quick_run_does_less(words: list[str], tmp_path: Path) -> None:
    assert command.main([*words, "--only", "good", "--quick"]) == 0
    [figure] = json.loads((tmp_path / "out" / "r.json").read_text())["figures"]
    assert figure["values"] == [20.0]


def test_a_missed_floor_matters_with_check_only(words: list[str]) -> None:
    assert command.main([*words, "--only", "slow"]) == 0
    assert command.main([*words, "--only", "slow", "--check"]) == 1


def test_what_cannot_be_measured_does_not_stop_the_rest(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*words, "--only", "broken", "--only", "good"]) == 1
    out = capsys.readouterr().out
    assert "broken: NOT MEASURED: no byte came\n" in out
    assert "a good one" in out
