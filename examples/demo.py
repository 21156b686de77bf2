"""Starts a daemon, runs real jobs on real files through it, shows and checks what comes out, and stops it.

`make demo` runs it; `make run` (`--leave-running`) leaves the daemon there afterwards, with lines to paste.
"""

from __future__ import annotations

import argparse
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

# Run as a script: `examples` is found from the folder above, and nothing in this one shadows another module.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from examples.daemon import Daemon, DaemonFailed  # noqa: E402
from examples.make_numbers import LINES, make_numbers  # noqa: E402
from examples.show import Row, Show, make_show  # noqa: E402
from examples.steps import STEPS, Place  # noqa: E402
from jobsvc.client import Client, ClientError  # noqa: E402

TASKS = "examples.tasks"


def main(words: Sequence[str]) -> int:
    """The whole demo; 0 only if all results were right and the daemon stopped cleanly."""
    parser = argparse.ArgumentParser(description="Run real jobs through a jobsvc daemon of its own.")
    parser.add_argument(
        "--leave-running", action="store_true", help="then leave the daemon running, until Ctrl-C"
    )
    parser.add_argument("--lines", type=int, default=LINES, help=f"of the large file [default: {LINES:,}]")
    options = parser.parse_args(words)
    # SIGINT, too: Python leaves it alone where a shell that started it in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    show = make_show(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="jobsvc-demo-") as folder:
        try:
            return _demo(show, Path(folder), options.lines, leave_running=options.leave_running)
        except DaemonFailed as error:
            show.say(f"\n{error}")
            return 1
        except KeyboardInterrupt:
            show.say("\ninterrupted; the daemon was stopped")
            return 130  # what a shell says of a program ended by Ctrl-C


def _demo(show: Show, folder: Path, lines: int, *, leave_running: bool) -> int:
    daemon = Daemon(folder, [TASKS])
    with daemon:
        show.title("the daemon")
        show.say(f"   {daemon.url}, data in {daemon.data_dir}")
        numbers = folder / "numbers.txt"
        total = make_numbers(numbers, lines)
        show.say(f"   {numbers}: {lines:,} lines, {numbers.stat().st_size / 1e6:.1f} MB")
        place = Place(Path(sysconfig.get_path("stdlib")), numbers, lines, total)
        rows = _run(show, daemon, place)
        show.table(rows)
        if leave_running:
            _leave_running(show, daemon)
        status = daemon.stop()
    right = len(rows) == len(STEPS) and all(row.right for row in rows)
    seconds = sum(row.seconds for row in rows)
    jobs = sum(row.jobs for row in rows)
    verdict = "all results are right" if right else "SOMETHING IS WRONG"
    show.say(f"\n{jobs:,} jobs in {seconds:.1f} s; {verdict}")
    show.say("the daemon has stopped cleanly" if status == 0 else f"THE DAEMON ENDED WITH {status}")
    return 0 if right and status == 0 else 1


def _run(show: Show, daemon: Daemon, place: Place) -> list[Row]:
    """All steps; one that cannot be finished is a wrong one, and the others still run."""
    rows = []
    with Client(daemon.url, daemon.token) as client:
        for step in STEPS:
            text = (step.__doc__ or step.__name__).partition("\n")[0]
            show.title(text)
            try:
                rows.append(step(client, show, place))
            except ClientError as error:
                show.say(f"   {error}")
                rows.append(Row(step.__name__, "", 0, 0.0, type(error).__name__, right=False))
    return rows


def _leave_running(show: Show, daemon: Daemon) -> None:
    """Print how to reach it, and wait for Ctrl-C or its end."""
    auth = f'-H "Authorization: Bearer $(cat {daemon.token_file})"'
    digested = '{"task":"digest","args":{"path":"/etc/passwd"}}'
    streamed = '{"task":"tokens","args":{"text":"word by word as they come","pause_s":0.5}}'
    show.say(f"\nThe daemon runs on.\nURL:   {daemon.url}\ntoken: {daemon.token_file}\n\nTo paste:\n")
    show.say(f"curl -s {auth} -H 'Prefer: wait=10' --json '{digested}' {daemon.url}/v1/jobs\n")
    show.say(f"curl -sN {auth} -H 'Accept: text/event-stream' --json '{streamed}' {daemon.url}/v1/jobs\n")
    show.say(f"curl -s {auth} '{daemon.url}/v1/jobs?limit=3'\n\nCtrl-C stops it.")
    try:
        daemon.process.wait()
    except KeyboardInterrupt:
        show.say("\nstopping")
    else:
        raise DaemonFailed(f"the daemon ended by itself:\n{daemon.log_tail()}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """A closed terminal and SIGTERM stop the demo as Ctrl-C does, and the daemon with it."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
