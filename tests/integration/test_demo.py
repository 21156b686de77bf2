"""`make run` as a person sees it: results that are right, curl lines that work when pasted, a clean stop by Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from examples.steps import STEPS
from tests.needed import missing

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 100.0


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    try:
        distribution("jobsvc")
    except PackageNotFoundError:
        missing("jobsvc is not installed for this Python, so twistd does not know it")
    words = [sys.executable, "examples/demo.py", "--leave-running", "--lines", "5000"]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)


def read_until(process: subprocess.Popen[str], last: str) -> list[str]:
    """The lines a program prints up to one that begins with `last`, or to its end."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(last):
            break
    return lines


def pasted(line: str) -> str:
    """What a shell makes of a line."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_the_demo_is_right_its_lines_can_be_pasted_and_ctrl_c_stops_it(demo: subprocess.Popen[str]) -> None:
    lines = read_until(demo, "Ctrl-C")
    assert sum(line.endswith(" right") for line in lines) == len(STEPS), "\n".join(lines)

    digest, tokens, listed = [line for line in lines if line.startswith("curl ")]
    if shutil.which("curl") is not None:
        assert json.loads(pasted(digest))["state"] == "succeeded"
        assert pasted(tokens).count("event: item") == 6
        assert len(json.loads(pasted(listed))["jobs"]) == 3
        [folder] = [Path(line.split()[1]).parent for line in lines if line.startswith("token:")]
        shown = pasted(f"examples/client.sh {folder}")
        assert shown.count('"state":"succeeded"') >= 4
        assert '"code":"invalid_args"' in shown

    demo.send_signal(signal.SIGINT)
    assert read_until(demo, "the daemon")[-1] == "the daemon has stopped cleanly"
    assert demo.wait(DEADLINE_S) == 0
