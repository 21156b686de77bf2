"""Starts under both launchers, on every kind of listener, in the background, as a part of another service."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import httpx2

from tests.integration.daemon import TASKS_MODULE, Daemon, clean_environ, running
from tests.integration.launching import BOTH, TASKS
from tests.integration.processes import processes_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

SLOW_IMPORT = (
    """
import time
from pathlib import Path
while not Path("gate").exists():
    time.sleep(0.01)
"""
    + TASKS
)
BACKGROUND_DEADLINE_S = 60.0


def works(daemon: Daemon) -> None:
    """Every kind of worker does its work."""
    assert daemon.succeeded(daemon.submit("greet", "Ada")["id"]) == "hello Ada"
    assert daemon.succeeded(daemon.submit("square", 12)["id"]) == 144
    assert daemon.succeeded(daemon.submit("soon")["id"]) == "now"


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@BOTH
def test_starts_works_and_stops(start_daemon: StartDaemon, launcher: tuple[str, ...]) -> None:
    """Both launchers; the files are for the owner's eyes; SIGTERM is a clean end."""
    daemon = start_daemon(TASKS, launcher=launcher)
    works(daemon)
    assert mode(daemon.data_dir) == 0o700
    assert mode(daemon.data_dir / "token") == 0o600
    assert mode(daemon.data_dir / "endpoint.json") == 0o600
    assert sorted(daemon.endpoint) == ["boot", "pid", "unix", "url"]
    assert daemon.get("/v1/info").json()["boot"] == daemon.endpoint["boot"]
    token = daemon.token
    assert daemon.stop() == 0
    assert not (daemon.data_dir / "endpoint.json").exists()
    daemon.wait_no_orphans()
    daemon.start()
    assert daemon.token == token


def listens(path: str) -> bool:
    """Whether somebody takes connections on this Unix socket."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(path) == 0


def test_ready_only_when_the_workers_are(start_daemon: StartDaemon) -> None:
    """While the task module is being imported: it lives, is not ready, publishes nothing, takes no job."""
    daemon = start_daemon(TASKS)
    token = {"Authorization": f"Bearer {daemon.token}"}
    assert daemon.stop() == 0
    daemon.options = ("--listen", "unix:web.sock")
    daemon.write_tasks(SLOW_IMPORT)
    daemon.launch()
    socket_path = str(daemon.folder / "web.sock")
    with httpx2.Client(
        transport=httpx2.HTTPTransport(uds=socket_path), base_url="http://localhost", headers=token
    ) as http:
        daemon.wait_for("a daemon that listens", lambda: listens(socket_path), 30)
        assert http.get("/livez").status_code == 200
        assert http.get("/readyz").status_code == 503
        verbose = http.get("/readyz?verbose=1").json()
        assert verbose["ready"] is False
        assert not (daemon.data_dir / "endpoint.json").exists()
        refused = http.post("/v1/jobs", json={"task": "greet"})
        assert refused.status_code in {422, 503}, refused.text
        daemon.open_gate()
        daemon.wait_for("a daemon that is ready", lambda: http.get("/readyz").status_code == 200, 30)
        assert http.post("/v1/tasks/greet/call", json=[]).json() == "hello you"


def test_stop_before_it_is_ready_leaves_nothing(start_daemon: StartDaemon) -> None:
    """SIGTERM while the task modules are still being imported."""
    daemon = start_daemon(TASKS)
    assert daemon.stop() == 0
    daemon.write_tasks(SLOW_IMPORT)
    daemon.launch()
    daemon.wait_log("Site starting")
    daemon.wait_for("workers", lambda: len(processes_in(daemon.folder)) > 1, 30)
    daemon.stop()
    daemon.wait_no_orphans()
    assert not (daemon.data_dir / "endpoint.json").exists()


def test_unix_socket(start_daemon: StartDaemon) -> None:
    """Two listeners: endpoint.json says where; Client and command find it there."""
    daemon = start_daemon(TASKS, "--listen", "unix:web.sock", "--listen", "tcp:0:interface=127.0.0.1")
    works(daemon)
    assert daemon.endpoint["unix"] == str(daemon.folder / "web.sock")
    with httpx2.Client(
        transport=httpx2.HTTPTransport(uds=daemon.endpoint["unix"]), base_url="http://localhost"
    ) as http:
        assert http.get("/readyz").text == "ok\n"
        reply = http.get("/v1/info", headers={"Authorization": f"Bearer {daemon.token}"})
        assert reply.status_code == 200, reply.text


def test_unix_socket_alone_is_found_by_the_command(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """No TCP at all."""
    daemon = Daemon(wheel_env, tmp_path, ("--listen", "unix:web.sock"))
    daemon.write_tasks(TASKS)
    daemon.launch()
    try:
        daemon.wait_for("endpoint.json", (daemon.data_dir / "endpoint.json").exists, 30)
        done = daemon.cli("call", "greet", '["Bob"]')
        assert (done.stdout, done.returncode) == ('"hello Bob"\n', 0), done.stderr
    finally:
        assert daemon.stop() == 0
    assert not (tmp_path / "web.sock").exists()
    daemon.wait_no_orphans()


ACTIVATION = """
import os, socket, sys
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "http"}
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_socket_activation(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """The listening socket comes from systemd, whose variables are not handed on to the workers."""
    (tmp_path / "activation.py").write_text(ACTIVATION)
    text = (
        TASKS
        + """
@task(executor="process")
def variables() -> list[str]:
    import os
    return sorted(name for name in os.environ if name.startswith(("LISTEN", "JOBSVC")))
"""
    )
    launcher = ("python", "activation.py", wheel_env.program("twistd"), "-n", "--pidfile=")
    options = ("--listen", "systemd:domain=INET:name=http")  # as deploy/jobsvc.service has it
    with running(Daemon(wheel_env, tmp_path, options, launcher), text) as daemon:
        works(daemon)
        names = daemon.succeeded(daemon.submit("variables")["id"])
        assert not [name for name in names if name.startswith("LISTEN")]
        assert daemon.stop() == 0


def test_options_by_environment(start_daemon: StartDaemon) -> None:
    """Each option has its variable; what the command line says wins."""
    environ = {
        "JOBSVC_CPU_WORKERS": "3",
        "JOBSVC_THREADS": "5",
        "JOBSVC_ARGS_MAX": "1M",
        "JOBSVC_DURABILITY": "process",
        "JOBSVC_KEEP_S": "1000",
        "JOBSVC_LOOP_SLOTS": "7",
        "JOBSVC_DRAIN_S": "2",
    }
    daemon = start_daemon(TASKS, "--threads", "6", environ=environ)
    assert len(daemon.workers("cpu")) == 3
    assert daemon.workers("io")[0]["slots"] == {"loop": 7, "thread": 6}
    info = daemon.get("/v1/info").json()
    assert info["durability"] == "process"
    assert info["limits"]["args_max_bytes"] == 1024 * 1024
    assert info["defaults"]["keep_s"] == 1000


def test_modules_are_found_by_path_before_the_start_folder(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """--path goes before the folder of the start."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{TASKS_MODULE}.py").write_text(TASKS.replace("hello", "welcome"))
    daemon = start_daemon(TASKS, "--path", str(elsewhere))
    assert daemon.succeeded(daemon.submit("greet", "Ada")["id"]) == "welcome Ada"


def test_memory_durability_keeps_nothing(start_daemon: StartDaemon) -> None:
    """All ends with the daemon, and each job says so."""
    daemon = start_daemon(TASKS, "--durability", "memory")
    job = daemon.submit("square", 3)
    assert job["durability"] == "memory"
    assert daemon.succeeded(job["id"]) == 9
    assert not list(daemon.data_dir.glob("jobsvc.db*"))
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.get("/v1/jobs").json()["jobs"] == []
    assert daemon.get(f"/v1/jobs/{job['id']}").status_code == 404


COMPOSED = """
import sys
from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from jobsvc.tap import Options, makeService

class Neighbour(Service):
    def stopService(self):
        print("the neighbour stops", flush=True)
        return super().stopService()

options = Options()
options.parseOptions(sys.argv[2:])
both = MultiService()
Neighbour().setServiceParent(both)
makeService(options).setServiceParent(both)
both.startService()
reactor.addSystemEventTrigger("before", "shutdown", both.stopService)
reactor.run()
"""


def test_composed_into_another_service(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """A program of one's own calls makeService: it works, drains, and leaves the process to its owner."""
    (tmp_path / "composed.py").write_text(COMPOSED)
    with running(Daemon(wheel_env, tmp_path, launcher=("python", "composed.py")), TASKS) as daemon:
        works(daemon)
        assert daemon.stop() == 0
        assert "the neighbour stops" in daemon.log
        assert not (daemon.data_dir / "endpoint.json").exists()


def test_directory_open_to_readers_is_closed(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Readable by others: it is ours, and made private."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    with running(Daemon(wheel_env, tmp_path), TASKS):
        assert mode(data) == 0o700


def test_background_start_and_stop(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Without -n: the daemon works in the background, ends by its pid file, and removes it. F39: that of a daemon which
    was killed is no obstacle.
    """  # fmt: skip
    daemon = Daemon(wheel_env, tmp_path)
    daemon.write_tasks(TASKS)
    with subprocess.Popen(["true"]) as gone:
        (tmp_path / "twistd.pid").write_text(str(gone.pid))
    options = (
        "--tasks",
        TASKS_MODULE,
        "--data-dir",
        str(daemon.data_dir),
        "--listen",
        "tcp:0:interface=127.0.0.1",
    )
    subprocess.run(
        [wheel_env.program("twistd"), "jobsvc", *options],
        cwd=tmp_path,
        env=clean_environ(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=BACKGROUND_DEADLINE_S,
        check=True,
    )
    pid = int((tmp_path / "twistd.pid").read_text())
    ended = os.pidfd_open(pid)
    try:
        called = daemon.cli("call", "greet", "[]")
        while called.returncode == 3:  # no endpoint.json yet; each try takes a moment of its own
            called = daemon.cli("call", "greet", "[]")
        assert called.stdout == '"hello you"\n', called.stderr
        os.kill(pid, signal.SIGTERM)
        wait_readable(ended)
    finally:
        os.close(ended)
    assert not (tmp_path / "twistd.pid").exists()
    assert not (daemon.data_dir / "endpoint.json").exists()
    assert processes_in(tmp_path) == []


def wait_readable(descriptor: int) -> None:
    """A pidfd is readable once its process has ended."""
    import select

    assert select.select([descriptor], [], [], BACKGROUND_DEADLINE_S)[0]
