"""What was acknowledged is there after kill -9, whatever the store was doing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobsvc.model.states import FINAL
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import NOW

WRITER = """
import sys
from itertools import count
from tests.contract.store_harness import NOW, end_of, job_of
from jobsvc.ports import Claim
from jobsvc.store.sqlite import Call, SqliteStore

store = SqliteStore(sys.argv[1], sys.argv[2])
store.open()
say = sys.stdout.write
ends = []
for turn in count():
    jobs = [job_of(args=b"x" * (5000 if i == 7 else 20)) for i in range(20)]
    claim = Claim("cpu-1", "process", {"count": 15}, 15, NOW)
    calls = [Call("submit", (jobs,)), Call("settle", (ends,)), Call("claim", ([claim],))]
    _, settled, (claimed,) = store.group(calls)
    say("".join(f"kept {job.id.hex()}\\n" for job in jobs))
    say("".join(f"done {end.no}\\n" for end, ok in zip(ends, settled) if ok))
    sys.stdout.flush()
    ends = [end_of(job, result=b"y" * (5000 if job.no % 9 == 0 else 5)) for job in claimed]
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("durability", "lines"), [("power", 300), ("process", 3000), ("process", 301)])
def test_acknowledged_is_kept(tmp_path: Path, durability: str, lines: int) -> None:
    """Every job and every outcome that the writer had told of when it was killed; and the file is whole."""
    file = str(tmp_path / "jobs.db")
    command = [sys.executable, "-c", WRITER, file, durability]
    told: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            told.append(line)
            if len(told) == lines:
                writer.send_signal(signal.SIGKILL)  # what is in the pipe was told too: read on to its end
    assert writer.returncode == -signal.SIGKILL
    if not told[-1].endswith("\n"):
        told.pop()
    kept = {bytes.fromhex(line.split()[1]) for line in told if line.startswith("kept")}
    done = {int(line.split()[1]) for line in told if line.startswith("done")}
    assert len(kept) + len(done) >= lines - 1
    assert done

    store = SqliteStore(file)
    store.open()
    found = store.reads.get_many(list(kept))
    assert set(found) == kept
    assert {
        job.no for job in store.reads.by_nos(list(done), args=True, result=True) if job.state in FINAL
    } == done
    assert all(job.result for job in found.values() if job.state == "succeeded")
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    active = sum(job.state == "running" for job in found.values())
    assert store.recover(NOW).queued >= active > 0
    store.close()
