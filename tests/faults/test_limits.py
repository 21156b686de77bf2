"""Jobs that use more than they may: what becomes of them, and that nobody else notices."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.files import tmpfs
from tests.faults.memory_group import memory_group
from tests.integration.daemon import clean_environ

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon, WheelEnv

MIB = 1024 * 1024
GROUP_BYTES = 512 * MIB
KILLED = {"signal": 9, "name": "SIGKILL", "oom": True}

TASKS = """
import os, subprocess, sys, time
from pathlib import Path
from jobsvc import command, task

def wait(gate):
    while not Path(gate).exists():
        time.sleep(0.01)

@task(executor="process")
def held(gate: str):
    yield os.getpid()
    wait(gate)
    return os.getpid()

@task
def held_thread(gate: str):
    yield os.getpid()
    wait(gate)
    return os.getpid()

@task(executor="process", retries=1, backoff=(0, 0))
def hog() -> None:
    held = []
    for _ in range(256):
        held.append(bytearray(os.urandom(4096)) * 4096)

hog_program = command("hog_program", [sys.executable, "-c", '''
import os
held = []
for _ in range(256):
    held.append(bytearray(os.urandom(4096)) * 4096)
'''])

@task(executor="process", limits={"max_rss": "96M"})
def hog_children(count: int):
    code = "import sys; held = bytearray(b'x') * (64 << 20); print(1, flush=True); sys.stdin.read()"
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    yield [child.pid for child in children]
    for child in children:
        child.wait()

@task(executor="process")
def open_many(count: int) -> int:
    return len([open("/dev/null") for _ in range(count)])

@task(executor="process")
def fill(path: str) -> None:
    with open(path, "wb") as file:
        while True:
            file.write(bytes(1 << 16))

@task(executor="process", limits={"cpu_s": 1})
def burn() -> None:
    while True:
        pass

@task(executor="process")
def who() -> int:
    return os.getpid()
"""


def ended(daemon: Daemon, task: str, *args: Any, **fields: Any) -> dict[str, Any]:
    """The error of a job that must fail."""
    job = daemon.done(daemon.submit(task, *args, **fields)["id"])
    assert job["state"] == "failed", job
    error: dict[str, Any] = job["error"]
    return error


@pytest.mark.first  # daemons of other tests would take their own kills of the next seconds for the kernel's
def test_memory_hog_ends_alone(start_daemon: StartDaemon, wheel_env: WheelEnv) -> None:
    """F26: 4 GiB in a memory cgroup of 512 MiB: the job is killed, `crashed` with `exit.oom`, and it counts.

    The daemon and the jobs beside it live on; a SIGKILL from elsewhere is a loss as ever. Where no memory controller
    can be written, a limit of the task takes the kernel's place.
    """
    with memory_group(GROUP_BYTES) as group:
        launcher: dict[str, Any] = {}
        hogs: list[tuple[str, list[Any], int]] = [("hog_children", [2], 1)]
        if group is not None:
            hogs = [("hog", [], 2), ("hog_program", [], 1)]
            script = f'echo $$ > {group}/cgroup.procs && exec {wheel_env.program("twistd")} "$@"'
            # Whole paths stand for themselves.
            launcher["launcher"] = ("/bin/sh", "-c", script, "sh", "-n", "--pidfile=")
        daemon = start_daemon(TASKS, "--cpu-workers", "2", **launcher)
        beside = [daemon.submit(task, "gate")["id"] for task in ("held", "held_thread")]
        pids = [daemon.first_item(job) for job in beside]
        for task, args, tries in hogs:
            job = daemon.done(daemon.submit(task, *args)["id"])
            assert (job["state"], job["error"]["kind"], job["error"]["exit"]) == ("failed", "crashed", KILLED)
            assert (job["attempt"], job["epoch"]) == (tries, tries)
            assert ("for want of memory" if group else "max_rss") in job["error"]["message"]
        daemon.open_gate()
        assert [daemon.succeeded(job) for job in beside] == pids

        lost = daemon.submit("held", "later")["id"]
        os.kill(daemon.first_item(lost), signal.SIGKILL)
        assert daemon.first_item(lost, epoch=2)
        assert daemon.attempts(lost)[0]["state"] == "lost"
        daemon.open_gate("later")
        daemon.succeeded(lost)
        assert daemon.stop() == 0
        daemon.wait_no_orphans()


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    """With one cpu worker and limits for all jobs."""
    return start_daemon(
        TASKS, "--cpu-workers", "1", "--max-open-files", "64", environ={"JOBSVC_MAX_FILE_SIZE": "1M"}
    )


def test_what_a_job_may_use_is_kept(daemon: Daemon) -> None:
    """F28: descriptors and files over the daemon's limits, and a full scratch folder, fail inside the job; memory of a
    tree and processor time over a task's own end it. Each error names its limit; a worker that need not die serves on.
    """  # fmt: skip
    defaults = daemon.get("/v1/info").json()["defaults"]["process_limits"]
    assert defaults == {"max_rss": None, "cpu_s": None, "open_files": 64, "file_bytes": MIB}
    pid = daemon.succeeded(daemon.submit("who")["id"])
    error = ended(daemon, "open_many", 100_000)
    assert (error["kind"], error["type"]) == ("task_error", "OSError")
    assert "it may open 64 files (open_files)" in error["message"]
    assert "open_many" in error["traceback"]
    assert daemon.succeeded(daemon.submit("open_many", 64)["id"]) == 64
    error = ended(daemon, "fill", "scratch")
    assert (error["kind"], error["type"]) == ("task_error", "OSError")
    assert "its files may have 1 MiB (file_bytes)" in error["message"]
    assert (daemon.folder / "scratch").stat().st_size == MIB
    small = daemon.folder / "small"
    small.mkdir()
    with tmpfs(small, "256k"):
        error = ended(daemon, "fill", "small/scratch")
    assert (error["kind"], "No space left on device" in error["message"]) == ("task_error", True)
    assert daemon.succeeded(daemon.submit("who")["id"]) == pid

    error = ended(daemon, "hog_children", 2)
    assert (error["kind"], error["exit"]) == ("crashed", KILLED)
    assert error["message"].startswith("memory limit of 96 MiB (max_rss): it used ")
    error = ended(daemon, "burn")
    assert (error["kind"], error["exit"]) == ("crashed", {"signal": 24, "name": "SIGXCPU", "oom": False})
    assert error["message"] == "cpu limit of 1 s (cpu_s): ended by SIGXCPU"
    assert daemon.succeeded(daemon.submit("who")["id"]) != pid


def test_a_launcher_prefix_that_is_not_there_ends_the_start(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """One line that names the option; nothing is half started."""
    (tmp_path / "mytasks.py").write_text(TASKS)
    for launcher in (("twistd", "-n", "--pidfile="), ("twist",)):
        program, *words = launcher
        done = subprocess.run(
            [
                wheel_env.program(program), *words, "jobsvc", "--tasks", "mytasks", "--data-dir", "data",
                "--launcher-prefix", "no-such-sandbox --flag",
            ],
            cwd=tmp_path,
            env=clean_environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.strip() == (
            "jobsvc: --launcher-prefix: there is no program 'no-such-sandbox' that can be run; "
            "install it, or give its whole path"
        )
        assert not (tmp_path / "data").exists()


def test_jobs_run_behind_a_launcher_prefix(start_daemon: StartDaemon) -> None:
    """A real one, found on PATH: what it sets is there in the job."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--launcher-prefix", "nice -n 3")
    job = daemon.submit("held", "gate")["id"]
    assert os.getpriority(os.PRIO_PROCESS, daemon.first_item(job)) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    daemon.open_gate()
    daemon.succeeded(job)
