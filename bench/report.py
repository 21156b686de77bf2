"""What was measured, beside its bare limit, its floor and its aim: as a table for people and as JSON.

Knows nothing of how anything is measured.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

PERCENTILES = (50, 95, 99)
REFERENCE = {
    "Klein hello": 10_500.0,
    "our schema, in groups of 500": 125_000.0,
    "our schema, one by one": 3_100.0,
    "a byte through pipes and back": 48e-6,
}
"""Bare limits of the quiet machine for which floors and aims were set: how fast is this one beside it?"""
_HEADER = ("figure", "measured", "min-max", "bare limit", "ratio", "floor", "aim", "met")


class Percentiles(msgspec.Struct):
    """Of latencies, in seconds."""

    p50: float
    p95: float
    p99: float


class Bare(msgspec.Struct):
    """A bare limit, in the unit of its figure: what it is, and how much."""

    what: str
    value: float


class Goal(msgspec.Struct):
    """A floor that must hold or an aim, on the figure's value or on one of its percentiles."""

    value: float
    p99: float | None = None


class Figure(msgspec.Struct, kw_only=True):
    """One figure. `values`: one for each repetition. `better` says which way is up.

    `bare` may hold several limits; the first is the one the ratio is taken to, so that 1 is as good as bare.
    """

    name: str
    title: str
    unit: str
    better: Literal["more", "less"]
    values: list[float]
    bare: list[Bare] = msgspec.field(default_factory=list)
    floor: Goal | None = None
    aim: Goal | None = None
    latencies_s: Percentiles | None = None
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        """How near it comes to the first bare limit: 1 is as good, 0.5 half as good."""
        if not self.bare or not self.bare[0].value or not self.value:
            return None
        bare = self.bare[0].value
        return self.value / bare if self.better == "more" else bare / self.value

    def meets(self, goal: Goal | None) -> bool:
        """Whether a goal is met; one that does not exist is."""
        if goal is None:
            return True
        if goal.p99 is not None and self.latencies_s is not None and self.latencies_s.p99 > goal.p99:
            return False
        return self.value >= goal.value if self.better == "more" else self.value <= goal.value


class Machine(msgspec.Struct):
    """Where it was measured."""

    cpus: int
    python: str
    kernel: str
    sqlite: str
    file_system: str
    load_before: float


class Report(msgspec.Struct):
    """A whole run."""

    at: str
    version: str
    durability: str
    quick: bool
    machine: Machine
    figures: list[Figure]
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    """Figures that could not be measured, and why."""

    def missed(self) -> list[str]:
        """Names of figures below their floor or not measured."""
        return [figure.name for figure in self.figures if not figure.meets(figure.floor)] + list(self.failed)


def percentiles(latencies_s: Sequence[float]) -> Percentiles:
    """The nearest-rank percentiles of some latencies, at least one."""
    ordered = sorted(latencies_s)
    picked = [ordered[-(-len(ordered) * percent // 100) - 1] for percent in PERCENTILES]
    return Percentiles(*picked)


def this_machine(folder: Path) -> Machine:
    """The machine, and the file system that `folder` is on."""
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        kernel=platform.release(),
        sqlite=sqlite3.sqlite_version,
        file_system=file_system(folder, Path("/proc/self/mounts").read_text()),
        load_before=os.getloadavg()[0],
    )


def file_system(folder: Path, mounts: str) -> str:
    """The type of the file system that holds `folder`, by the text of /proc/mounts: the longest mount point wins."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def table(report: Report) -> str:
    """The report for people."""
    lines = [_HEADER, *map(_cells, report.figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    text.append("")
    for figure in report.figures:
        text += [f"{figure.name}: {note}" for note in _notes(figure)]
    text += [f"{name}: NOT MEASURED: {why}" for name, why in report.failed.items()]
    machine = report.machine
    text.append("")
    text.append(
        f"jobsvc {report.version}, durability {report.durability}; {machine.cpus} CPUs, {machine.python}, "
        f"Linux {machine.kernel}, SQLite {machine.sqlite} on {machine.file_system}; "
        f"load average before {machine.load_before:.2f}"
    )
    text.append("ratio: 1 is as good as the bare limit of the same run; compare ratios, not absolute figures")
    if report.quick:
        text.append("quick run: few repetitions, short; the figures are rough")
    if machine.file_system == "tmpfs":
        text.append("the data directory is in memory (tmpfs): nothing was flushed to a disk; use --dir")
    return "\n".join(text)


def amount(value: float, unit: str) -> str:
    """A value as people read it: three digits, in a unit of their size."""
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "B":
        return f"{value / 1e6:.3g} MB"
    if unit == "B/s":
        return f"{value / 1e6:.3g} MB/s"
    if unit == "%":
        return f"{value:.3g} %"
    return f"{value:,.0f}{unit}"


def _cells(figure: Figure) -> tuple[str, ...]:
    unit = figure.unit
    met = "NO" if not figure.meets(figure.floor) else "aim" if figure.meets(figure.aim) else "floor"
    return (
        figure.title,
        amount(figure.value, unit),
        f"{amount(min(figure.values), unit)} - {amount(max(figure.values), unit)}"
        if len(figure.values) > 1
        else "",
        amount(figure.bare[0].value, unit) if figure.bare else "",
        f"{figure.ratio:.2f}" if figure.ratio is not None else "",
        _goal(figure.floor, unit),
        _goal(figure.aim, unit),
        met if figure.floor or figure.aim else "",
    )


def _goal(goal: Goal | None, unit: str) -> str:
    if goal is None:
        return ""
    p99 = "" if goal.p99 is None else f", p99 {amount(goal.p99, unit)}"
    return amount(goal.value, unit) + p99


def _notes(figure: Figure) -> list[str]:
    notes = []
    if figure.latencies_s is not None:
        found = msgspec.structs.asdict(figure.latencies_s)
        notes.append("latency " + ", ".join(f"{name} {amount(value, 's')}" for name, value in found.items()))
    if figure.bare:
        notes.append("bare: " + "; ".join(_bare(bare, figure.unit) for bare in figure.bare))
    return notes + figure.notes


def _bare(bare: Bare, unit: str) -> str:
    said = f"{bare.what} {amount(bare.value, unit)}"
    reference = REFERENCE.get(bare.what)
    if reference is None or (unit == "s") is not (
        reference < 1
    ):  # the hello's rate says nothing of its latency
        return said
    return f"{said} (reference machine {amount(reference, unit)})"
