"""`python -m bench`: measures, prints the table, writes the JSON.

Compare ratios within one run, not absolute figures: on a shared machine the same code varies by a third in an hour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory
from time import monotonic

import msgspec

from bench.bench import Bench
from bench.figures import ALL, EDGE
from bench.load import LoadFailed
from bench.report import Figure, Report, table, this_machine
from examples.daemon import DaemonFailed
from jobsvc.client import ClientError

DURABILITY = "power"
"""The daemon's default, and so what is measured."""
RESULTS = Path(__file__).resolve().parent / "results"
"""Not under version control."""
LATEST = "latest.json"


def main(words: Sequence[str]) -> int:
    """Measure; 1 when something could not be measured or, with --check, when a floor is missed."""
    options = _options(words)
    options.dir.mkdir(parents=True, exist_ok=True)
    report = Report(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("jobsvc"),
        durability=DURABILITY,
        quick=options.quick,
        machine=this_machine(options.dir),
        figures=[],
    )
    began = monotonic()
    with TemporaryDirectory(prefix="run-", dir=options.dir) as folder:
        bench = Bench(Path(folder).resolve(), quick=options.quick)
        for name in options.only or (EDGE if options.edge else ALL):
            _say(f"[{monotonic() - began:5.0f} s] {name} …")
            try:
                report.figures.append({**ALL, **EDGE}[name](bench))
            except (LoadFailed, DaemonFailed, ClientError, SubprocessError) as error:
                report.failed[name] = str(error).splitlines()[0]
                _say(f"{name}: {error}")
    _say(f"[{monotonic() - began:5.0f} s] done\n")
    print(table(report))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_bytes(msgspec.json.format(msgspec.json.encode(_served(report)), indent=2) + b"\n")
    print(f"as JSON: {options.json}")
    if options.check and (missed := report.missed()):
        print(f"below their floors: {', '.join(missed)}")
        return 1
    return 1 if report.failed else 0


def _served(report: Report) -> dict[str, object]:
    """The report with what is computed: median, ratio, whether floor and aim are met."""
    return {**msgspec.structs.asdict(report), "figures": [_figure(figure) for figure in report.figures]}


def _figure(figure: Figure) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(figure),
        "value": figure.value,
        "ratio": figure.ratio,
        "floor_met": figure.meets(figure.floor),
        "aim_met": figure.meets(figure.aim),
    }


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure a real daemon beside bare limits."
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[*ALL, *EDGE],
        metavar="NAME",
        help=f"of {', '.join((*ALL, *EDGE))}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short repetition of each: under a minute, rough"
    )
    parser.add_argument("--edge", action="store_true", help="crowds at the door, in place of the rest")
    parser.add_argument("--check", action="store_true", help="end with 1 when a floor is missed")
    parser.add_argument(
        "--dir", type=Path, default=RESULTS, help="for data, on a real disk [default: bench/results]"
    )
    parser.add_argument(
        "--json", type=Path, default=RESULTS / LATEST, help=f"file to write [default: bench/results/{LATEST}]"
    )
    return parser.parse_args(words)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
