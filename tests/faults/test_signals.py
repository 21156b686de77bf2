"""F65, F66: what signals do to a real daemon, and what is seen of a reactor that hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2

from jobsvc.store import marks
from tests.faults.files import log_of
from tests.integration.daemon import START_DEADLINE_S, Daemon, running

if TYPE_CHECKING:
    from tests.integration.daemon import WheelEnv

TASKS = """
import os
from pathlib import Path
from jobsvc import task

@task
def version() -> int:
    return 1

@task
def until(gate: str) -> str:
    import time
    yield "begun"
    while not Path(gate).exists():
        time.sleep(0.01)
    return gate

@task(executor="process")
def variables() -> list[str]:
    return sorted(os.environ)
"""
SLOW_IMPORT = """
import time
from pathlib import Path
while not Path("imported").exists():
    time.sleep(0.01)
"""


def lines(path: Path) -> list[dict[str, object]]:
    """A log file: every line is JSON, and has what each must have."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in read)
    return read


def said(path: Path, text: str) -> bool:
    """Whether the log file has a message with this text."""
    return path.exists() and text in path.read_text()


def test_signals_of_an_operator(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """F65: SIGHUP reads log file and tasks again without losing a job; SIGUSR1 and SIGUSR2 write dumps for the owner's
    eyes; SIGPIPE does nothing. No token is in any of it.
    """  # fmt: skip
    launcher = ("twistd", "-n", "--pidfile=", "--logfile=daemon.log")
    with running(Daemon(wheel_env, tmp_path, ("--cpu-workers", "1"), launcher), TASKS) as daemon:
        log, rotated = tmp_path / "daemon.log", tmp_path / "daemon.log.1"
        job = daemon.submit("until", "gate")["id"]
        daemon.first_item(job)
        httpx2.get(f"{daemon.url}/v1/jobs", headers={"Authorization": f"Bearer {daemon.token}x"})
        log.rename(rotated)
        daemon.write_tasks(TASKS.replace("return 1", "return 22"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("a reload", lambda: said(log, "reloaded: "), START_DEADLINE_S)
        assert said(log, "SIGHUP: reading again")
        assert said(log, "log file read again")
        told = {check["check"]: check["ok"] for check in daemon.get("/readyz?verbose").json()["checks"]}
        decide = {
            "ready",
            "listeners",
            "store",
            "workers",
            "guard",
            "disk",
        }
        assert decide <= told.keys()
        assert all(told[name] for name in decide)
        assert "reactor" in told
        assert daemon.succeeded(daemon.submit("version")["id"]) == 22
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            daemon.process.send_signal(number)
            if number != signal.SIGPIPE:
                daemon.wait_for("a dump", lambda: said(log, "a dump was written"), START_DEADLINE_S)
        daemon.open_gate()
        assert daemon.succeeded(job) == "gate"
        secret = daemon.token.partition(".")[2]
        assert daemon.stop() == 0
        dumps = sorted(daemon.data_dir.glob("dump-*.txt"))
        assert len(dumps) == 2
        for dump in dumps:
            text = dump.read_text()
            assert (dump.stat().st_mode & 0o777, "-- MainThread\n" in text) == (0o600, True)
            for room in (
                "checks",
                "jobs",
                "seats",
                "workers",
                "store",
                "http",
                "timers",
                "memory",
                "threads",
            ):
                assert f"\n== {room}" in text
        for path in (log, rotated, *dumps):
            assert secret not in path.read_text()
        assert [line["message"] for line in lines(rotated) + lines(log) if "ready on" in str(line["message"])]


def test_sighup_while_it_starts_and_while_it_drains(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """F65: it never ends the daemon: kept until the start is done, of no use in a drain, which goes on undisturbed.
    The log is for people, with each request, without queries and tokens.
    """  # fmt: skip
    options = ("--cpu-workers", "1", "--log-format", "human", "--log-level", "debug")
    daemon = Daemon(wheel_env, tmp_path, options)
    daemon.write_tasks(SLOW_IMPORT + TASKS)
    daemon.launch()
    try:
        daemon.wait_log("Site starting")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_log("SIGHUP is kept until the start is done")
        daemon.open_gate("imported")
        daemon.wait_log("reloaded: ")
        url, token = daemon.url, daemon.token
        with httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        ) as http:
            job = http.post("/v1/jobs", json={"task": "until", "args": ["gate"]}).json()["id"]
            with http.stream(
                "GET", f"/v1/jobs/{job}/streams/out", headers={"Accept": "application/x-ndjson"}
            ) as out:
                assert "begun" in next(out.iter_lines())
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_log("Received SIGTERM")
            daemon.wait_for("a drain", lambda: http.get("/readyz").status_code == 503, START_DEADLINE_S)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_log("SIGHUP in a stop: only the log file is opened anew")
            daemon.open_gate()
            assert http.get(f"/v1/jobs/{job}", params={"wait": "30"}).json()["state"] == "succeeded"
        assert daemon.wait_exit() == 0
        assert f"127.0.0.1 GET /v1/jobs/{job} 200 in " in daemon.log
        assert "wait=30" not in daemon.log
        assert token.partition(".")[2] not in daemon.log
    finally:
        if daemon.process.poll() is None:
            daemon.hurry_out()
        daemon.wait_exit()
        daemon.wait_no_orphans()


EARLY = """
import os, signal, sys
from jobsvc import tap
from twisted.scripts.twistd import run

build = tap.makeService

def makeService(options):
    service = build(options)
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    return service

tap.makeService = makeService
sys.argv = ["twistd", "-n", "--pidfile=", *sys.argv[1:]]
run()
"""


def test_sigterm_before_the_reactor_runs(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """F65: between building and running nothing ends it at once: it comes up, and goes down in order."""
    (tmp_path / "early.py").write_text(EARLY)
    daemon = Daemon(
        wheel_env, tmp_path, ("--cpu-workers", "1", "--listen", "unix:web.sock"), ("python", "early.py")
    )
    daemon.write_tasks(TASKS)
    daemon.launch()
    assert daemon.wait_exit() in {0, -signal.SIGTERM}
    daemon.wait_no_orphans()
    assert "Received SIGTERM" in daemon.log
    assert "Main loop terminated" in daemon.log
    assert "Traceback" not in daemon.log
    assert not (tmp_path / "web.sock").exists()


CLUMSY = """
import sys, threading, types
from jobsvc import tap
from jobsvc.runtime import ending
from twisted.scripts.twistd import run

hangs = threading.Event()

class Patient(threading.Event):
    def wait(self, timeout=None):
        hangs.wait()
        print(f"the watchdog allows {timeout:g} s", file=sys.stderr, flush=True)
        return super().wait(0.1)

build = tap.makeService

def makeService(options):
    from jobsvc.http.listening import Listeners
    from jobsvc.store.sqlite import SqliteStore
    close = SqliteStore.close

    def close_and_hang(store):
        close(store)
        hangs.set()
        threading.Event().wait()

    def refuse(self):
        raise OSError("no such listener")

    SqliteStore.close, Listeners.close = close_and_hang, refuse
    ending.threading = types.SimpleNamespace(Event=Patient, Thread=threading.Thread)
    return build(options)

tap.makeService = makeService
sys.argv = ["twistd", "-n", "--pidfile=", *sys.argv[1:]]
run()
"""


def test_a_stop_in_which_a_step_fails_and_a_database_thread_hangs(
    wheel_env: WheelEnv, tmp_path: Path
) -> None:
    """F65: the step that failed keeps none from its turn: the database is closed as it should be. What hangs is named
    with its stack, and the process ends in time all the same, not as if all were well.
    """  # fmt: skip
    (tmp_path / "clumsy.py").write_text(CLUMSY)
    daemon = Daemon(wheel_env, tmp_path, ("--cpu-workers", "1", "--drain-s", "7"), ("python", "clumsy.py"))
    daemon.write_tasks(TASKS)
    daemon.start()
    job = daemon.submit("version")["id"]
    assert daemon.succeeded(job) == 1
    assert daemon.stop() == 1
    daemon.wait_no_orphans()
    for words in (
        "jobsvc: the listeners could not be closed: no such listener",
        "the watchdog allows 17 s",
        "jobsvc: the stop hangs; leaving",
        "in close_and_hang",
    ):
        assert words in daemon.log
    file = daemon.data_dir / "jobsvc.db"
    assert not log_of(file).exists()
    with closing(sqlite3.connect(file)) as db:
        assert marks.read(db).in_use == 0


@contextmanager
def manager(folder: Path) -> Iterator[tuple[str, socket.socket]]:
    """The service manager's socket."""
    path = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(START_DEADLINE_S)
        yield path, listening


def hear(listening: socket.socket, wanted: str) -> None:
    """Wait until the daemon says so."""
    while wanted not in listening.recv(4096).decode().split("\n"):
        pass


BLOCKED = """
import sys, threading
from pathlib import Path
from twisted.scripts.twistd import run

def block_here():
    while Path("block").exists():
        threading.Event().wait(0.01)

def begin():
    from twisted.internet import reactor, task
    task.LoopingCall(block_here).start(0.05)

def watch():
    from twisted.internet import reactor
    reactor.callWhenRunning(begin)

watch()
sys.argv = ["twistd", "-n", "--pidfile=", *sys.argv[1:]]
run()
"""


def test_a_reactor_that_hangs_is_named_and_is_missed(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """F66: the log names the call that holds it while it holds it; the service manager hears nothing meanwhile, so it
    would restart the daemon; when it goes on, so does the daemon. The manager is told of start and end; workers are
    told nothing of it; SIGINT is a clean end (F65).
    """  # fmt: skip
    (tmp_path / "blocked.py").write_text(BLOCKED)
    with manager(tmp_path) as (path, listening):
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        daemon = Daemon(
            wheel_env, tmp_path, ("--cpu-workers", "1"), ("python", "blocked.py"), environ=environ
        )
        with running(daemon, TASKS):
            hear(listening, "READY=1")
            hear(listening, "WATCHDOG=1")
            names = daemon.succeeded(daemon.submit("variables")["id"])
            assert {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(names) == set()
            daemon.open_gate("block")
            daemon.wait_log("the reactor is blocked for")  # so it has been for a second
            listening.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    listening.recv(4096)  # of the time before
            (line,) = [json.loads(line) for line in daemon.log.splitlines() if "is blocked for" in line]
            assert "in block_here" in line["fields"]["stack"]
            (tmp_path / "block").unlink()
            listening.settimeout(START_DEADLINE_S)
            hear(listening, "WATCHDOG=1")
            daemon.wait_log("the reactor was blocked for")
            assert daemon.is_ready()
            stalls = [
                row for row in daemon.get("/metrics").text.splitlines() if "reactor_stalls_total " in row
            ]
            assert float(stalls[-1].split()[-1]) >= 1
            os.kill(daemon.pid, signal.SIGINT)
            hear(listening, "STOPPING=1")
            assert daemon.wait_exit() == 0
