"""`python -m tests.torture --seed S --jobs N --kills K`: torture a daemon and check what it promised.

Ends with 0 when every invariant held, 1 when one was broken, 2 when the run tested too little to say. The report is
printed and kept in build/torture. The same seed makes the same plan; what the daemon makes of it is up to chance.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import traceback
from pathlib import Path
from random import SystemRandom
from tempfile import mkdtemp

from tests.torture.plan import draw
from tests.torture.report import GREEN, VOID, keep
from tests.torture.run import CLIENTS, Run
from tests.torture.sut import ROOT

REPORTS = ROOT / "build" / "torture"


def main(words: list[str] | None = None) -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="draws the plan [default: by chance]")
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20, help="kill -9 of the daemon and of workers")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="the folder that holds the jobsvc to be tortured"
    )
    parser.add_argument("--keep-data", action="store_true", help="leave the data of a green run where it is")
    given = parser.parse_args(words)
    seed = SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    # On a real disk: in memory, a flush would cost nothing.
    REPORTS.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="run-", dir=REPORTS))
    run = Run(draw(seed, given.jobs, given.kills), folder, given.source.resolve(), given.clients)
    try:
        report = run.carry_out()
    except Exception:  # noqa: BLE001 - a run that broke off itself says nothing about the product
        traceback.print_exc()
        return VOID
    page = keep(report, REPORTS)
    sys.stdout.write(f"{report.page()}\nkept as {page}\n")
    if report.status == GREEN and not given.keep_data:
        shutil.rmtree(folder)
    else:
        sys.stdout.write(f"data, history and effects are in {folder}\n")
    return report.status


if __name__ == "__main__":
    sys.exit(main())
