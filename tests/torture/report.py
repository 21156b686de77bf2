"""The report of a run: one JSON document and one page to read, kept with those of the last runs."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.torture.checks.finding import Finding
from tests.torture.evidence import Evidence
from tests.torture.plan import KILLS, Plan

KEPT: Final = 50
GREEN, VIOLATED, VOID = 0, 1, 2
"""Exit statuses. A void run has tested too little to say anything, and is never green."""
NOT_REACHED: Final = "crash point not reached"
LOAD_MIN: Final = 0.95
KILLS_MIN: Final = 0.9
"""Shares of what was planned below which a run is void."""


class Report(msgspec.Struct):
    """One run, as it is kept."""

    seed: int
    verdict: str
    void: list[str]
    git: str
    versions: dict[str, str]
    machine: dict[str, Any]
    settings: dict[str, Any]
    seconds: dict[str, float]
    load: dict[str, Any]
    deeds: dict[str, int]
    findings: list[Finding]

    @property
    def status(self) -> int:
        """The exit status."""
        return {"green": GREEN, "violated": VIOLATED, "void": VOID}[self.verdict]

    def finding(self, check: str) -> Finding:
        """The word of one check."""
        return next(found for found in self.findings if found.id == check)

    def page(self) -> str:
        """For people, in Markdown."""
        lines = [f"# Torture run, seed {self.seed}: {self.verdict}", ""]
        lines += [f"- void: {why}" for why in self.void]
        for name, table in (
            ("load", self.load), ("deeds", self.deeds), ("seconds", self.seconds), ("settings", self.settings),
            ("versions", {"git": self.git, **self.versions}), ("machine", self.machine),
        ):  # fmt: skip
            lines.append(f"- {name}: " + ", ".join(f"{key} {value}" for key, value in table.items()))
        lines += ["", "| check | invariant | holds | counted |", "|---|---|---|---|"]
        for found in self.findings:
            counted = ", ".join(f"{key} {value}" for key, value in found.counts.items())
            holds = "yes" if found.green else f"**broken {found.broken} times**"
            lines.append(f"| {found.id} | {found.invariant} | {holds} | {counted} |")
        for found in self.findings:
            if not found.green:
                lines += ["", f"## {found.id}", ""]
                lines += [f"- `{msgspec.json.encode(example).decode()}`" for example in found.examples]
        return "\n".join(lines) + "\n"


def report_of(
    plan: Plan,
    evidence: Evidence,
    findings: list[Finding],
    trouble: list[str],
    settings: dict[str, Any],
    seconds: dict[str, float],
) -> Report:
    """Put a run together and judge it."""
    acknowledged = len({op.key for op in evidence.ops if op.kind == "submit" and op.outcome == "ok"})
    kills = sum(deed.hit and deed.kind in KILLS for deed in evidence.deeds)
    void = list(trouble)
    if kills < KILLS_MIN * plan.planned_kills:
        void.append(f"only {kills} of {plan.planned_kills} kills hit")
    if acknowledged < LOAD_MIN * len(plan.jobs):
        void.append(f"only {acknowledged} of {len(plan.jobs)} jobs were acknowledged")
    if plan.jobs and not evidence.effects:
        void.append("no job has said anything")
    void += [f"{deed.kind}: {deed.detail}" for deed in evidence.deeds if not deed.hit]
    broken = any(not found.green for found in findings)
    deeds: dict[str, int] = {}
    for deed in evidence.deeds:
        deeds[deed.kind] = deeds.get(deed.kind, 0) + deed.hit
        if NOT_REACHED in deed.detail:
            # It was killed all the same, which is a kill, though not at the point.
            deeds[NOT_REACHED] = deeds.get(NOT_REACHED, 0) + 1
    return Report(
        seed=plan.seed,
        verdict="violated" if broken else "void" if void else "green",
        void=void,
        git=_git(),
        versions=_versions(),
        machine={"cpus": os.cpu_count(), "kernel": platform.release(), "system": platform.system()},
        settings=settings,
        seconds={name: round(value, 2) for name, value in seconds.items()},
        load={
            "planned_jobs": len(plan.jobs), "acknowledged": acknowledged, "planned_kills": plan.planned_kills,
            "kills": kills, "operations": len(evidence.ops), "effects": len(evidence.effects),
        },
        deeds=deeds,
        findings=findings,
    )  # fmt: skip


def keep(report: Report, folder: Path) -> Path:
    """Write both forms; only the last `KEPT` runs stay. The path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for old in runs[: max(0, len(runs) - KEPT + 1)]:
        old.unlink()
        old.with_suffix(".md").unlink(missing_ok=True)
    name = f"seed-{report.seed}-{os.getpid()}"
    (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    page = folder / f"{name}.md"
    page.write_text(report.page())
    return page


def _git() -> str:
    """Which commit this is, with a mark when files were changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.strip() or "no checkout"


def _versions() -> dict[str, str]:
    named = {name: version(name) for name in ("jobsvc", "twisted", "klein", "msgspec")}
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **named,
        "platform": sys.platform,
    }
