"""Starts: under both launchers, on every kind of listener; and those that are refused with one line and no remains."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.integration.daemon import TASKS_MODULE, Daemon, clean_environ, running
from tests.integration.processes import processes_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

TASKS = """
from pathlib import Path
from jobsvc import Context, task

@task
def greet(name: str = "you") -> str:
    return f"hello {name}"

@task(executor="process")
def square(n: int) -> int:
    return n * n

@task
async def soon() -> str:
    return "now"
"""
SLOW_IMPORT = (
    """
import time
from pathlib import Path
while not Path("gate").exists():
    time.sleep(0.01)
"""
    + TASKS
)
REFUSAL_DEADLINE_S = 60.0
TWISTD = ("twistd", "-n", "--pidfile=")
TWIST = ("twist",)
BOTH = pytest.mark.parametrize("launcher", [TWISTD, TWIST], ids=["twistd", "twist"])


def works(daemon: Daemon) -> None:
    """Every kind of worker does its work."""
    assert daemon.succeeded(daemon.submit("greet", "Ada")["id"]) == "hello Ada"
    assert daemon.succeeded(daemon.submit("square", 12)["id"]) == 144
    assert daemon.succeeded(daemon.submit("soon")["id"]) == "now"


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


# -- good starts --------------------------------------------------------------------------------------------------


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


# -- starts that are refused --------------------------------------------------------------------------------------


def refused(
    wheel_env: WheelEnv,
    folder: Path,
    *options: str,
    launcher: tuple[str, ...] = TWISTD,
    environ: dict[str, str] | None = None,
    tasks: str | None = TASKS,
) -> list[str]:
    """Start a daemon that must refuse. The lines on stderr, after having seen that nothing was left behind."""
    if tasks is not None:
        (folder / f"{TASKS_MODULE}.py").write_text(tasks)
    program, *words = launcher
    try:
        done = subprocess.run(
            [wheel_env.program(program), *words, "jobsvc", *options],
            cwd=folder,
            env=clean_environ(folder, environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REFUSAL_DEADLINE_S,
            check=False,
        )
    finally:
        left = processes_in(folder)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert not left
    assert not list(folder.rglob("endpoint.json"))
    lines = done.stderr.splitlines()
    assert lines[0].startswith("jobsvc: "), done.stderr
    return lines


def start_options(folder: Path, *more: str, listen: str = "tcp:0:interface=127.0.0.1") -> list[str]:
    """What a start needs, and more."""
    return ["--tasks", TASKS_MODULE, "--data-dir", str(folder / "data"), "--listen", listen, *more]


@BOTH
def test_no_tasks(wheel_env: WheelEnv, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One line that says what is missing, and how to give it; nothing is written."""
    (line,) = refused(wheel_env, tmp_path, launcher=launcher, tasks=None)
    assert "--tasks mytasks" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--threads", "many"], "--threads: 'many'"),
        (["--cpu-workers", "0"], "--cpu-workers: 0"),
        (["--durability", "some"], "--durability: 'some'"),
        (["--drain-s", "nan"], "--drain-s: nan"),
        (["--tasks", "my/tasks.py"], "'my/tasks.py' is not a module name"),
        (["--frobnicate"], "--frobnicate"),
        (["stray"], "Wrong number of arguments"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_option(wheel_env: WheelEnv, tmp_path: Path, options: list[str], word: str) -> None:
    """One line that names the option and its value; no data directory is made."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path, *options))
    assert word in line
    assert not (tmp_path / "data").exists()


def test_bad_option_under_twist(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """The same line, not the whole help."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path, "--threads", "many"), launcher=TWIST)
    assert "--threads: 'many'" in line


@pytest.mark.parametrize(
    "environ", [{"JOBSVC_THREADS": "many"}, {"JOBSVC_RELOAD": "perhaps"}], ids=lambda value: next(iter(value))
)
def test_bad_environment_variable(wheel_env: WheelEnv, tmp_path: Path, environ: dict[str, str]) -> None:
    """One line that names the variable."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path), environ=environ)
    ((name, value),) = environ.items()
    assert f"{name}: {value!r}" in line


@BOTH
def test_port_in_use(wheel_env: WheelEnv, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One line that names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = start_options(tmp_path, listen=f"tcp:{port}:interface=127.0.0.1")
        (line,) = refused(wheel_env, tmp_path, *options, launcher=launcher)
    assert str(port) in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("listen", "word"),
    [
        ("tcp:0:interface=0.0.0.0", "open to other machines"),
        ("tcp6:0:interface=\\:\\:", "open to other machines"),
        ("nonsense:1", "nonsense"),
        ("unix:no/such/folder/socket", "no/such/folder"),
        ("systemd:domain=INET:name=http", "LISTEN_FDS"),
    ],
)
def test_bad_listener(wheel_env: WheelEnv, tmp_path: Path, listen: str, word: str) -> None:
    """One line that names it; a port open to other machines is refused unless it is encrypted."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path, listen=listen))
    assert listen in line
    assert word in line


@BOTH
def test_module_that_is_not_there(wheel_env: WheelEnv, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One line that names it and says what to do."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path), launcher=launcher, tasks=None)
    assert TASKS_MODULE in line
    assert "--path" in line


@pytest.mark.parametrize(
    ("text", "first", "more"),
    [
        ("import no_such_library\n", "No module named 'no_such_library'", "line 1, in <module>"),
        ("def oops(:\n", "SyntaxError", "def oops(:"),
        ("x = 1\nraise ValueError('why me')\n", "ValueError: why me", "line 2, in <module>"),
        ("raise SystemExit(3)\n", "SystemExit", "line 1, in <module>"),
    ],
    ids=["import", "syntax", "error", "exit"],
)
def test_module_that_does_not_load(
    wheel_env: WheelEnv, tmp_path: Path, text: str, first: str, more: str
) -> None:
    """A line that names the module and the error, then its traceback."""
    line, *rest = refused(wheel_env, tmp_path, *start_options(tmp_path), tasks=text)
    assert TASKS_MODULE in line
    assert first in line
    shown = "\n".join(rest)
    assert more in shown
    assert f"{TASKS_MODULE}.py" in shown
    assert "jobsvc/worker" not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            TASKS + '\n@task(name="greet")\ndef other() -> None: ...\n',
            ("two tasks are called 'greet'", "other"),
        ),
        ("x = 1\n", ("it names no tasks",)),
        ("import os\nos._exit(7)\n", ("status 7",)),
    ],
    ids=["two of one name", "no task", "os._exit"],
)
def test_module_that_is_no_use(
    wheel_env: WheelEnv, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    """One line."""
    line, *_ = refused(wheel_env, tmp_path, *start_options(tmp_path), tasks=text)
    for word in words:
        assert word in line


def test_two_modules_with_tasks_of_one_name(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """The line names both places."""
    (tmp_path / "second.py").write_text(TASKS)
    line, *_ = refused(wheel_env, tmp_path, *start_options(tmp_path, "--tasks", "second"))
    assert f"{TASKS_MODULE}.greet" in line
    assert "second.greet" in line


def test_data_directory_in_use(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The line names who holds it; who holds it is not troubled."""
    daemon = start_daemon(TASKS)
    folder = tmp_path / "second"
    folder.mkdir()
    options = start_options(folder)
    options[3] = str(daemon.data_dir)
    (line,) = refused(daemon.env, folder, *options)
    assert f"pid {daemon.pid}" in line
    assert "--data-dir" in line
    works(daemon)


def data_folder(folder: Path) -> Path:
    """An empty data directory."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    return data


@pytest.mark.parametrize(
    "content",
    [b"this is no database, whatever its name says\n" * 200, b"SQLite format 3\0" + b"\0" * 4080],
    ids=["text", "header"],
)
def test_file_that_is_no_database(wheel_env: WheelEnv, tmp_path: Path, content: bytes) -> None:
    """One line that names it; the file is left as it was."""
    database = data_folder(tmp_path) / "jobsvc.db"
    database.write_bytes(content)
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert str(database) in line
    assert database.read_bytes() == content


def test_database_of_another_program(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """One line that says so; the file is left as it was."""
    database = data_folder(tmp_path) / "jobsvc.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE jobs (x)")
        other.commit()
    before = database.read_bytes()
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert str(database) in line
    assert database.read_bytes() == before


def test_directory_open_to_everyone(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Writable by everyone: refused with the command that mends it, and not used."""
    data = data_folder(tmp_path)
    data.chmod(0o777)
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert f"chmod 700 {data}" in line
    assert list(data.iterdir()) == []


def test_directory_open_to_readers_is_closed(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Readable by others: it is ours, and made private."""
    data = data_folder(tmp_path)
    data.chmod(0o755)
    with running(Daemon(wheel_env, tmp_path), TASKS):
        assert mode(data) == 0o700


@pytest.mark.parametrize("text", ["", "secret\n"], ids=["empty", "other"])
def test_token_file_that_holds_no_token(wheel_env: WheelEnv, tmp_path: Path, text: str) -> None:
    """One line that says how to mend it."""
    (data_folder(tmp_path) / "token").write_text(text)
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert "token" in line
    assert "remove it" in line


def test_background_start_tells_the_terminal(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Without -n: the one who waits hears why, and no pid file stays."""
    (tmp_path / f"{TASKS_MODULE}.py").write_text(TASKS)
    options: Any = start_options(tmp_path, listen="tcp:0:interface=0.0.0.0")
    with (tmp_path / "said").open("w") as said:  # a file: the child in the background would hold a pipe
        done = subprocess.run(
            [wheel_env.program("twistd"), "jobsvc", *options],
            cwd=tmp_path, env=clean_environ(tmp_path), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            timeout=REFUSAL_DEADLINE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "--listen tcp:0:interface=0.0.0.0" in (tmp_path / "said").read_text()  # twistd cuts the rest
    assert not (tmp_path / "twistd.pid").exists()


def test_background_start_and_stop(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Without -n: the daemon works in the background, ends by its pid file, and removes it."""
    daemon = Daemon(wheel_env, tmp_path)
    daemon.write_tasks(TASKS)
    subprocess.run(
        [wheel_env.program("twistd"), "jobsvc", *start_options(tmp_path)],
        cwd=tmp_path, env=clean_environ(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, timeout=REFUSAL_DEADLINE_S, check=True,
    )  # fmt: skip
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

    assert select.select([descriptor], [], [], REFUSAL_DEADLINE_S)[0]
