"""What an attempt of a cpu worker leaves running is ended with it; what belongs to a library is not."""

from __future__ import annotations

import subprocess
import sys

from jobsvc.worker.leftovers import ZOMBIES_KEPT
from tests.worker.harness import PACKAGE_DIR, WAIT_S

WORKER = """
import ctypes, os, subprocess
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # parent of its orphans, as launch.py makes workers
os.setsid()
from jobsvc.worker.leftovers import Leftovers, _children, _is_zombie

def ended(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def zombies():
    return sum(map(_is_zombie, _children(os.getpid())))

{before}
left = Leftovers()
for _ in range({times}):
    {deed}
    left.clear()
print(left.again_s())
{after}
"""


def run(deed: str, *, before: str = "", after: str = "", times: int = 1) -> list[str]:
    """What a process says that does this as its attempts: first how long it waits before it looks again."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER.format(before=before, deed=deed, times=times, after=after)],
        cwd=PACKAGE_DIR,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    return done.stdout.splitlines()


def test_nothing_below() -> None:
    """Without a child there is nothing to do and nothing to come back for."""
    assert run("pass") == ["-1"]


def test_what_has_left_the_session_is_ended_and_reaped() -> None:
    """Gone with all that it has started, when `clear` returns."""
    said = run(
        "p = subprocess.Popen(['sh', '-c', 'sleep 600 & sleep 600'], start_new_session=True)",
        after="print(os.path.exists(f'/proc/{p.pid}'), _children(os.getpid()))",
    )
    assert said == ["-1", "False []"]


def test_what_was_there_before_stays() -> None:
    """Processes of the task modules, started before the first attempt, are theirs, in whatever session."""
    said = run(
        "pass",
        before="p = subprocess.Popen(['sleep', '600'], start_new_session=True)",
        after="print(p.poll()); p.kill()",
    )
    assert said == ["-1", "None"]


def test_status_of_a_child_is_not_taken() -> None:
    """A child in our session that has ended is left for who started it."""
    said = run("p = subprocess.Popen(['sh', '-c', 'exit 7']); ended(p.pid)", after="print(p.wait())")
    assert said[-1] == "7"


def test_orphans_that_ended_do_not_gather() -> None:
    """Of those for whom nobody asks only some are kept."""
    deed = "subprocess.run(['sh', '-c', 'true & echo $! > /dev/null']); [ended(pid) for pid in _children(os.getpid())]"
    said = run(deed, times=3 * ZOMBIES_KEPT, after="print(zombies())")
    assert int(said[-1]) == ZOMBIES_KEPT


def test_looks_again_while_something_stays() -> None:
    """What is left in the session may mean to leave it: looked at again in a moment, three times, then no more."""
    said = run(
        "p = subprocess.Popen(['sleep', '600'])",
        after="print([left.again_s() for _ in range(3)]); p.kill()",
    )
    assert said == ["0.05", "[0.2, 0.6, -1]"]
