"""`python -m tests.torture --seed S --jobs N --kills K`: torture a daemon and check what it promised.

Ends with 0 when every invariant held, 1 when one was broken, 2 when the run tested too little to say. The report is
printed and kept in build/torture. The same seed makes the same plan; what the daemon makes of it is up to chance.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import SystemRandom
from tempfile import mkdtemp

from tests.faults.files import tmpfs
from tests.torture.plan import DeedKind, draw
from tests.torture.progress import Progress, clock, estimate
from tests.torture.report import GREEN, VOID, keep
from tests.torture.run import CLIENTS, Run
from tests.torture.sut import ROOT, RUN_MAX_S

REPORTS = ROOT / "build" / "torture"


@contextmanager
def ended_early(run: Run) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the deeds; what was is read and reported. The second ends it at once."""

    def asked(number: int, frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        sys.stderr.write("ending early: waiting for the jobs, then the report; once more to end without it\n")
        run.break_off()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    parser.add_argument(
        "--small-disk", type=int, default=None, metavar="MIB",
        help="hold the data in a memory disk of this size, which the nemesis fills now and then; needs root",
    )  # fmt: skip
    parser.add_argument(
        "--few-descriptors", action="store_true", help="leave the daemon without descriptors now and then"
    )
    parser.add_argument("--keep-data", action="store_true", help="leave the data of a green run where it is")
    given = parser.parse_args(words)
    seed = SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    more: list[DeedKind] = ["full_disk"] if given.small_disk is not None else []
    more += ["few_descriptors"] if given.few_descriptors else []
    plan = draw(seed, given.jobs, given.kills, more)
    if plan.load_s > RUN_MAX_S:
        parser.error(
            f"--kills {given.kills} takes {clock(plan.load_s)}, at most {clock(RUN_MAX_S)}: give fewer"
        )
    sys.stderr.write(f"{estimate(plan)}\n")
    # On a real disk: in memory, a flush would cost nothing.
    REPORTS.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="run-", dir=REPORTS))
    run = Run(plan, folder, given.source.resolve(), given.clients)
    try:
        with ExitStack() as around:
            if given.small_disk is not None:
                (folder / "data").mkdir()
                around.enter_context(tmpfs(folder / "data", f"{given.small_disk}m"))
            around.enter_context(Progress(run.words, sys.stderr))
            around.enter_context(ended_early(run))
            report = run.carry_out()
    except KeyboardInterrupt:
        sys.stderr.write(f"broken off without a report; what was written down is in {folder}\n")
        return VOID
    except Exception:  # noqa: BLE001 - a run that broke off itself says nothing about the product
        traceback.print_exc()
        sys.stderr.write(f"what was written down is in {folder}\n")
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
