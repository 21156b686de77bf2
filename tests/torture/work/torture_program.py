"""The external program of a torture run: what `torture_tasks` says of a task, this says of itself."""

from __future__ import annotations

import json
import os
import sys
import threading
import time

STEP_S = 0.03


def main() -> None:
    """Run for so many seconds; print a line at each step."""
    mark, seconds = sys.argv[1], float(sys.argv[2])
    file = os.open(os.environ["TORTURE_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nobody = threading.Event()

    def say(what: str, outcome: str | None = None) -> None:
        line = {
            "what": what, "mark": mark, "job": None, "epoch": None, "pid": os.getpid(),
            "life": os.environ["TORTURE_LIFE"], "at": time.monotonic_ns(), "wall": time.time_ns() // 1000,
            "outcome": outcome,
        }  # fmt: skip
        os.write(file, json.dumps(line).encode() + b"\n")

    say("start")
    until = time.monotonic() + seconds
    while True:
        say("effect")
        print(mark, flush=True)  # noqa: T201 - its stdout is the job's stream
        if time.monotonic() >= until:
            break
        nobody.wait(STEP_S)
    say("end", "returned")


if __name__ == "__main__":
    main()
