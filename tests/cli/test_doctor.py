"""`jobsvc doctor`: each check on a good and on a bad scene; what it says, and the exit code."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from jobsvc.cli.checks import access, machine, running, storage, table
from jobsvc.cli.checks.findings import Finding
from jobsvc.cli.checks.scene import Answer, Scene
from jobsvc.cli.root import run
from jobsvc.cli.shell import Shell
from jobsvc.client.discovery import Target
from jobsvc.config import gather
from jobsvc.store.folder import DataFolder
from tests.faults import files

ME = os.geteuid()


class House:
    """A data directory, a /proc and settings of one's own; makes scenes of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.proc = root / "proc"
        self.data.mkdir(mode=0o700)
        self.proc.mkdir()
        self.file(
            "self/mountinfo", f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / {root} rw - xfs /dev/sdb1 rw\n"
        )
        self.file("self/environ", "A=b\0")
        self.file("sys/kernel/yama/ptrace_scope", "1\n")

    def file(self, name: str, text: str) -> Path:
        """A file below its /proc."""
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def scene(self, environ: Mapping[str, str] = {}, **options: str | list[str]) -> Scene:
        given: dict[str, str | list[str]] = {"tasks": ["t"], "data-dir": str(self.data)}
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        scene = Scene(gather(given, environ, self.root / "none"), environ)
        scene.proc = self.proc
        scene.owner = ME
        return scene

    def with_daemon(self) -> Scene:
        """A scene in which pid 77 has the directory and answers nowhere."""
        scene = self.scene()
        scene.daemon_pid = 77
        scene.target = Target("http://127.0.0.1:8787", None, "jobsvc_1.x")
        self.file("77/environ", "")
        self.file("77/status", "Name:\ttwistd\nUmask:\t0077\n")
        self.file(
            "77/limits", "Limit      Soft Limit  Hard Limit  Units\nMax open files  65536  65536  files\n"
        )
        self.file("77/cmdline", "python\0twistd\0-n\0jobsvc\0")
        return scene

    def private(self, name: str, mode: int = 0o600) -> Path:
        """A file of the data directory."""
        path = self.data / name
        path.write_text("x")
        path.chmod(mode)
        return path


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def told(finding: Finding, status: str, *words: str) -> None:
    """It has this status and says these words; whatever is not well says what to do."""
    assert finding.status == status, finding
    assert "\n" not in finding.detail + finding.advice
    for word in words:
        assert word in f"{finding.detail}. {finding.advice}"
    assert bool(finding.advice) == (status in ("warn", "fail"))


# -- who can get at what ---------------------------------------------------------------------------------------------


def test_settings(house: House) -> None:
    told(access.settings(house.scene()), "pass", "started here", "options and variables")
    told(access.settings(house.scene(tasks=[])), "pass")
    told(
        access.settings(house.scene(threads="0", keep_s="x")),
        "fail",
        "--threads: 0",
        "1 more",
        "config check",
    )
    told(access.settings(house.scene({"JOBSVC_THREDS": "1"})), "warn", "JOBSVC_THREADS")


def test_p24_config_file(house: House) -> None:
    """P24: a file that others can write is a failure here as at the start."""
    told(access.config_file(house.scene()), "n/a")
    path = house.root / "jobsvc.toml"
    path.write_text("threads = 3\n")
    path.chmod(0o600)
    told(access.config_file(house.scene(config=str(path))), "pass", str(path))
    path.chmod(0o666)
    told(
        access.config_file(house.scene(config=str(path))), "fail", "written by everyone", f"chmod o-w {path}"
    )
    told(access.settings(house.scene(config=str(path))), "fail", "written by everyone")
    path.unlink()
    told(access.config_file(house.scene(config=str(path))), "fail", "No such file")


def test_user(house: House) -> None:
    scene = house.scene()
    scene.owner = 1000
    told(access.user(scene), "pass", "1000")
    scene.owner = 0
    told(access.user(scene), "fail", "root", "User=")


def test_owner_is_that_of_the_daemon(house: House) -> None:
    """Root looks at the folder of another; everybody else at his own."""
    scene = house.scene()
    del scene.owner
    scene.uid = 4_242
    assert scene.owner == 4_242
    other = house.scene()
    del other.owner
    other.uid = 0
    assert other.owner == house.data.stat().st_uid
    running_one = house.with_daemon()
    del running_one.owner
    running_one.uid = 4_242
    assert running_one.owner == house.proc.stat().st_uid


def test_listeners(house: House) -> None:
    told(access.listeners(house.scene()), "pass", "127.0.0.1 (machine)")
    told(access.listeners(house.scene(listen=["tcp:80", "unix:/x"])), "fail", "tcp:80", "behind_proxy")
    told(access.listeners(house.scene(listen=["tcp:80"], behind_proxy="1")), "pass", "proxy")
    told(access.listeners(house.scene(listen=["systemd:index=0"])), "pass", "refuses it")
    told(
        access.listeners(house.scene(listen=["tcp:80:ip=::"], behind_proxy="1")),
        "fail",
        "no option ip",
        "mend",
    )
    told(access.listeners(house.scene(listen=["ssl:443:privateKey=k.pem"])), "pass", "encrypted")


def test_data_folder(house: House) -> None:
    told(access.data_folder(house.scene()), "pass", "0700")
    house.data.chmod(0o750)
    told(access.data_folder(house.scene()), "fail", "0750", f"chmod 700 {house.data}")
    scene = house.scene()
    scene.owner = ME + 1
    told(access.data_folder(scene), "fail", f"belongs to uid {ME}", f"chown -R {ME + 1}")
    told(access.data_folder(house.scene(data_dir=str(house.root / "none"))), "n/a", "first start")
    told(access.data_folder(house.scene(data_dir="/dev/null")), "fail", "no folder")


@pytest.mark.parametrize(("name", "look"), [("token", access.token_file), ("secret-keys", access.key_file)])
def test_secret_files(house: House, name: str, look: Callable[[Scene], Finding]) -> None:
    told(look(house.scene()), "n/a", name)
    path = house.private(name)
    told(look(house.scene()), "pass", "0600")
    path.chmod(0o640)
    told(look(house.scene()), "fail", "0640", f"chmod 600 {path}")
    path.chmod(0o600)
    scene = house.scene()
    scene.owner = ME + 1
    if ME:
        told(look(scene), "fail", f"uid {ME}")
    else:
        os.chown(path, 4_242, -1)
        told(look(house.scene()), "fail", "uid 4242")


def test_a_key_file_that_is_named_is_there(house: House) -> None:
    """A daemon would not start without it."""
    file = house.root / "keys"
    told(
        access.key_file(house.scene(secret_key=str(file))),
        "fail",
        f"{file} is not there",
        "leave secret_key away",
    )


def test_a_token_from_systemd_is_looked_at_instead(house: House) -> None:
    credentials = house.root / "cred"
    credentials.mkdir()
    (credentials / "jobsvc-token").write_text("jobsvc_1.x")
    (credentials / "jobsvc-token").chmod(0o400)
    house.private("token", 0o666)
    told(access.token_file(house.scene({"CREDENTIALS_DIRECTORY": str(credentials)})), "pass", "cred", "0400")


def test_data_files(house: House) -> None:
    told(access.data_files(house.scene()), "n/a")
    house.private("jobsvc.db")
    (house.data / "backup").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(house.data / "s"))
        told(access.data_files(house.scene()), "warn", "backup")
        (house.data / "backup").chmod(0o700)
        told(access.data_files(house.scene()), "pass", "2 files")
        for number in range(5):
            house.private(f"loose{number}", 0o644)
        told(access.data_files(house.scene()), "warn", "loose0", "loose2 and 2 more")
        scene = house.scene()
        scene.owner = ME + 1
        told(access.data_files(scene), "fail", "another user")


def test_memory(house: House) -> None:
    told(access.memory(house.scene()), "pass", "ptrace_scope 1")
    (house.proc / "sys/kernel/yama/ptrace_scope").write_text("0\n")
    told(access.memory(house.scene()), "warn", "kernel.yama.ptrace_scope=1")
    (house.proc / "sys/kernel/yama/ptrace_scope").unlink()
    told(access.memory(house.scene()), "warn")


def test_umask(house: House) -> None:
    told(access.umask(house.scene()), "n/a")
    scene = house.with_daemon()
    told(access.umask(scene), "pass", "0077")
    house.file("77/status", "Umask:\t0022\n")
    told(access.umask(scene), "warn", "0022", "UMask=0077")


def test_privileges_and_cores(house: House) -> None:
    for look in (access.new_privileges, access.core_dumps):
        told(look(house.scene()), "n/a")
    scene = house.with_daemon()
    told(access.new_privileges(scene), "warn", "NoNewPrivileges")
    told(access.core_dumps(scene), "warn", "LimitCORE=0")
    house.file("77/status", "NoNewPrivs:\t1\n")
    house.file("77/limits", "Max core file size        0                    unlimited            bytes\n")
    told(access.new_privileges(scene), "pass")
    told(access.core_dumps(scene), "pass")


def test_settings_of_the_running_daemon(house: House) -> None:
    """From its command line and environment, whoever asks and from wherever; its folder is the one it was found by."""
    words = "twistd -n --pidfile= jobsvc --tasks a --tasks=b --listen tcp:80 --reload --queue-max=0 --data-dir x --odd"
    scene = house.with_daemon()
    house.file("77/cmdline", words.replace(" ", "\0") + "\0")
    house.file("77/environ", f"JOBSVC_AUDIT=off\0JOBSVC_QUEUE_MAX=9\0CREDENTIALS_DIRECTORY={house.root}\0")
    scene.look_at_daemon()
    config = scene.config
    assert (config.tasks, config.listen, config.reload) == (("a", "b"), ("tcp:80",), True)
    assert (config.queue_max, config.audit, config.data_dir) == (0, False, house.data)
    told(access.settings(scene), "pass", "of the running daemon, pid 77")
    told(access.listeners(scene), "fail", "tcp:80")
    (house.root / "jobsvc-token").write_text("jobsvc_1.given")
    (house.root / "jobsvc-token").chmod(0o644)
    told(access.token_file(scene), "fail", "jobsvc-token")
    del scene.target
    house.private("endpoint.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    assert scene.target == Target("http://127.0.0.1:1", None, "jobsvc_1.given")


def test_settings_of_a_daemon_that_may_not_be_looked_at(house: House) -> None:
    """Then those of a start here are judged, and it is said."""
    scene = house.with_daemon()
    (house.proc / "77/environ").unlink()
    scene.look_at_daemon()
    told(access.settings(scene), "pass", "started here", "No such file")
    composed = house.with_daemon()
    house.file("77/cmdline", "python\0my_own.py\0")
    composed.look_at_daemon()
    told(access.settings(composed), "pass", "started here")


def test_switches(house: House) -> None:
    told(access.audit(house.scene()), "pass")
    told(access.audit(house.scene(audit="off")), "warn", "audit = true")
    told(access.worker_env(house.scene()), "pass", "worker_env")
    told(access.worker_env(house.scene(worker_env=["AWS_*"])), "pass", "AWS_*")
    told(machine.job_limits(house.scene()), "warn", "max_rss")
    told(machine.job_limits(house.scene(max_rss="512M")), "pass")
    told(machine.queue_limits(house.scene()), "pass", "1000000")
    told(machine.queue_limits(house.scene(queue_max="0")), "warn", "queue_max")
    told(storage.durability(house.scene()), "pass")
    told(storage.durability(house.scene(durability="process")), "warn", "power")


# -- the machine -----------------------------------------------------------------------------------------------------


def test_kernel_and_python(house: House) -> None:
    told(machine.kernel(house.scene()), "pass", "Linux")
    told(machine.python(house.scene()), "pass", "cpython 3.")


def test_guard(house: House) -> None:
    told(machine.guard(house.scene()), "pass")
    scene = house.scene()
    scene.pidfd_open = None
    told(machine.guard(scene), "fail", "pidfd")

    def forbidden(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    scene.pidfd_open = forbidden
    told(machine.guard(scene), "fail", "Operation not permitted", "5.3")
    scene = house.scene()
    (house.proc / "self/environ").unlink()
    told(machine.guard(scene), "fail", "mount /proc")


def test_open_files(house: House) -> None:
    """Of the running daemon, when there is one."""
    scene = house.with_daemon()
    told(machine.open_files(scene), "pass", "65536")
    house.file("77/limits", "Max open files            1024    4096    files\n")
    told(machine.open_files(scene), "warn", "819 connections", "ulimit -n 25000")
    house.file("77/limits", "Max open files            256    4096    files\n")
    told(machine.open_files(scene), "fail", "256", "LimitNOFILE")
    house.file("77/limits", "Max open files            unlimited    unlimited    files\n")
    told(machine.open_files(scene), "pass")
    assert machine.open_files(house.scene()).status in ("pass", "warn", "fail")


def test_clock(house: House) -> None:
    scene = house.scene()
    told(machine.clock(scene), "pass")
    path = house.private("jobsvc.db")
    told(machine.clock(scene), "pass", "last write")
    scene.now = lambda: path.stat().st_mtime - 3600
    told(machine.clock(scene), "warn", "3600 s from now", "NTP")
    scene.now = lambda: 0.0
    told(machine.clock(scene), "fail", "years behind")


@pytest.mark.parametrize(
    ("version", "status"),
    [("26.10.0", "pass"), ("27.1.0rc1", "pass"), ("26.4.0", "fail"), ("9.0", "fail"), (None, "fail")],
)
def test_twisted(house: House, version: str | None, status: str) -> None:
    scene = house.scene()
    scene.installed = {"twisted": version}.get
    told(machine.twisted(scene), status)


def test_http2(house: House) -> None:
    """It takes both libraries."""
    scene = house.scene()
    for there, status in ((set[str](), "pass"), ({"h2"}, "pass"), ({"h2", "priority"}, "fail")):
        scene.importable = there.__contains__
        told(machine.http2(scene), status)


def test_reactor(house: House) -> None:
    told(machine.reactor(house.scene()), "n/a")
    scene = house.with_daemon()
    told(machine.reactor(scene), "pass")
    house.file("77/cmdline", "twistd\0--reactor=select\0jobsvc\0")
    told(machine.reactor(scene), "warn", "--reactor=select")


# -- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "threads", "status", "word"),
    [
        ((3, 54, 1), 3, "pass", "3.54.1"),
        ((3, 51, 3), 1, "pass", "3.51.3"),
        ((3, 51, 2), 3, "pass", "two writers; jobsvc has one"),
        ((3, 34, 9), 3, "fail", "3.35.0 or later"),
        ((3, 54, 1), 0, "fail", "without threads"),
    ],
)
def test_sqlite(house: House, version: tuple[int, int, int], threads: int, status: str, word: str) -> None:
    """The rule of the WAL-reset race: fixed in 3.51.3, harmless before with one writer."""
    scene = house.scene()
    scene.sqlite_version, scene.sqlite_threads = version, cast("Any", threads)
    told(storage.sqlite(scene), status, word)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("ext4", "pass"),
        ("xfs", "pass"),
        ("nfs4", "warn"),
        ("cifs", "warn"),
        ("fuse.sshfs", "warn"),
        ("tmpfs", "warn"),
    ],
)
def test_file_system(house: House, kind: str, status: str) -> None:
    """The mount that is nearest to the folder counts, also one with a blank in its name."""
    point = house.root / "a disk"
    (point / "data").mkdir(parents=True)
    line = f"3 1 0:5 / {house.root}/a\\040disk rw,relatime shared:1 - {kind} server:/x rw\n"
    house.file("self/mountinfo", (house.proc / "self/mountinfo").read_text() + line)
    told(storage.file_system(house.scene(data_dir=str(point / "data"))), status, kind, str(point))
    told(storage.file_system(house.scene(data_dir=str(point / "not/yet/there"))), status, kind)
    told(storage.file_system(house.scene()), "pass", "xfs")
    told(storage.file_system(house.scene(durability="memory")), "n/a")


@pytest.mark.parametrize(
    ("free", "inodes", "status"),
    [
        (2**31, 10**6, "pass"),
        (2**29, 10**6, "warn"),
        (2**20, 10**6, "fail"),
        (2**31, 10, "fail"),
        (2**31, 0, "pass"),
    ],
)
def test_free_space(house: House, free: int, inodes: int, status: str) -> None:
    scene = house.scene()
    found = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=inodes, f_favail=inodes)
    scene.statvfs = lambda path: cast("Any", found)
    told(storage.free_space(scene), status)


def test_fsync(house: House) -> None:
    """Figures are told; a slow disk is worth a look, one that fails is a failure; nothing is left behind."""
    scene = house.scene()
    ticks = iter(range(1_000))
    scene.elapsed = lambda: next(ticks) / 1000
    told(storage.fsync(scene), "pass", "1 ms")
    scene.elapsed = lambda: next(ticks) / 2
    told(storage.fsync(scene), "warn", "500 ms")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    scene.fsync = broken
    told(storage.fsync(scene), "fail", "Input/output error")
    assert list(house.data.iterdir()) == []
    told(storage.fsync(house.scene(data_dir=str(house.root / "none"))), "n/a")


def test_database(house: House) -> None:
    """Whole, left open, damaged, of another program, not there, in use."""
    file = house.data / "jobsvc.db"
    told(storage.database(house.scene()), "n/a", "first start")
    files.closed(file)
    told(storage.database(house.scene()), "pass", "whole")
    told(storage.database(house.with_daemon()), "n/a", "in use")
    told(storage.database(house.scene(durability="memory")), "n/a")
    files.overwrite_a_page(file)
    told(storage.database(house.scene()), "fail", "damaged", "jobsvc db check")
    file.unlink()
    files.crashed(file, 3)
    told(storage.database(house.scene()), "pass", "not closed")


def test_database_of_another_program(house: House) -> None:
    file = house.data / "jobsvc.db"
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE t (x)")
    db.close()
    told(storage.database(house.scene()), "fail", "another program")


def test_lock(house: House) -> None:
    told(storage.lock(house.scene()), "pass", "nobody")
    told(storage.lock(house.with_daemon()), "pass", "77")
    scene = house.scene()
    scene.daemon_pid = 78
    told(storage.lock(scene), "warn", "78", "container")
    scene.daemon_pid = 0
    told(storage.lock(scene), "warn", "fuser")
    with open(house.private("lock"), "r+") as held:  # noqa: PTH123 - to be locked
        fcntl.flock(held, fcntl.LOCK_EX)
        assert house.scene().daemon_pid == 0
    assert house.scene().daemon_pid is None
    (house.data / "lock").unlink()
    (house.data / "lock").symlink_to("lock")
    told(storage.lock(house.scene()), "fail", "symbolic links", "as root")


# -- the running daemon ----------------------------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    """Answers as it was told to, by method and path, or by a header that it watches for."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], Any]]] = {}
    seen: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        Page.seen.append({name.lower(): value for name, value in self.headers.items()})
        key = f"{self.command} {self.path}"
        if self.headers["Host"] == "doctor.invalid":
            key += " host"
        if self.headers["Authorization"]:
            key += " token"
        status, headers, value = Page.answers.get(key, (404, {}, None))
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (*headers.items(), ("Content-Length", str(len(body)))):
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


WELL: dict[str, tuple[int, dict[str, str], Any]] = {
    "GET /livez": (200, {}, "ok"),
    "GET /livez host": (421, {}, None),
    "GET /v1/info": (401, {}, None),
    "GET /v1/info token": (200, {}, {"version": "1.2"}),
    "POST /v1/jobs": (403, {}, None),
    "GET /readyz?verbose=1 token": (
        200,
        {},
        {"ready": True, "checks": [{"check": "a", "ok": True, "detail": ""}]},
    ),
}


@contextmanager
def answering(scene: Scene, **changed: Any) -> Iterator[None]:
    """The daemon of the scene answers well, but for what is changed."""
    Page.answers, Page.seen = WELL | changed, []
    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scene.target = Target(f"http://127.0.0.1:{server.server_port}", None, "jobsvc_1.x")
    scene.installed = lambda name: "1.2"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_daemon_that_is_well(house: House) -> None:
    """The token goes along only where it is needed, and never to prove that one is asked for."""
    scene = house.with_daemon()
    with answering(scene):
        for look in (access.asks_for_token, access.host_names, access.other_sites):
            told(look(scene), "pass", "refused")
        assert not any("authorization" in seen for seen in Page.seen)
        told(running.reachable(scene), "pass", "http://127.0.0.1:")
        told(running.same_version(scene), "pass", "1.2")
        told(running.ready(scene), "pass", "1 checks")
        assert Page.seen[-1]["authorization"] == "Bearer jobsvc_1.x"


def test_a_daemon_with_open_doors(house: House) -> None:
    scene = house.with_daemon()
    doors: dict[str, Any] = {
        "GET /v1/info": (200, {}, {}),
        "GET /livez host": (200, {}, None),
        "POST /v1/jobs": (401, {}, None),
    }
    with answering(scene, **doors):
        told(access.asks_for_token(scene), "fail", "answered 200, not 401")
        told(access.host_names(scene), "fail", "answered 200, not 421")
        told(access.other_sites(scene), "fail", "answered 401, not 403")
    shared = {"GET /livez": (200, {"Access-Control-Allow-Origin": "*"}, "ok")}
    with answering(scene, **shared):
        told(access.other_sites(scene), "fail", "CORS")


def test_a_daemon_that_is_not_well(house: House) -> None:
    scene = house.with_daemon()
    rows = [{"check": "disk", "ok": False, "detail": "full"}, {"check": "b", "ok": True, "detail": ""}]
    changed: dict[str, Any] = {
        "GET /livez": (500, {}, None),
        "GET /v1/info token": (200, {}, {"version": "1.1"}),
        "GET /readyz?verbose=1 token": (503, {}, {"ready": False, "checks": rows}),
    }
    with answering(scene, **changed):
        told(running.reachable(scene), "fail", "500")
        told(running.same_version(scene), "warn", "1.1", "1.2", "restart")
        told(running.ready(scene), "fail", "disk: full")
    changed["GET /readyz?verbose=1 token"] = (200, {}, {"ready": True, "checks": rows})
    changed["GET /v1/info token"] = (401, {}, {})
    with answering(scene, **changed):
        told(running.ready(scene), "warn", "disk: full")
        told(running.same_version(scene), "fail", "401", "JOBSVC_TOKEN")
    changed["GET /v1/info token"] = (200, {}, [1])
    with answering(scene, **changed):
        told(running.same_version(scene), "fail", "something else")
    changed["GET /readyz?verbose=1 token"] = (200, {}, {"ready": True, "checks": [1]})
    with answering(scene, **changed):
        told(running.ready(scene), "fail", "something else")


def test_a_daemon_that_is_silent(house: House) -> None:
    """Gone, deaf, or no HTTP at all."""
    told(running.reachable(house.scene()), "n/a")
    house.private("endpoint.json")
    told(running.reachable(house.scene()), "warn", "did not stop cleanly")
    scene = house.with_daemon()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        scene.target = Target(f"http://127.0.0.1:{deaf.getsockname()[1]}", None, None)
        told(running.reachable(scene), "fail", "does not answer")
        told(running.ready(scene), "fail", "no answer")
    scene.target = "no daemon found: there is no endpoint.json"
    told(running.reachable(scene), "fail", "no daemon found")
    told(running.ready(scene), "n/a")
    told(access.host_names(scene), "n/a")


def test_what_speaks_no_http(house: House) -> None:
    scene = house.with_daemon()
    with socket.socket(socket.AF_UNIX) as listening:
        path = str(house.root / "s")
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(1000)
                caller.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        scene.target = Target("http://localhost", path, None)
        told(running.reachable(scene), "fail", "no HTTP comes from there")
        thread.join()


# -- all of it -------------------------------------------------------------------------------------------------------


def test_a_check_that_cannot_look_keeps_no_other_from_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = house.with_daemon()

    def silent(*_: Any, **__: Any) -> Answer:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(scene, "ask", silent)
    found = dict(table.examine(scene))
    assert list(found) == [name for name, _ in table.CHECKS]
    assert len(found) == len(table.CHECKS)
    told(found["host-names"], "fail", "Connection refused")
    told(found["ready"], "fail", "no answer")
    told(found["lock"], "pass")


def command(capsys: pytest.CaptureFixture[str], *words: str, terminal: bool = False) -> tuple[int, str]:
    def no_daemon() -> Any:
        raise AssertionError("the client is not needed")

    code = run(["doctor", *words], Shell(no_daemon, terminal=terminal))
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


OF_THE_FOLDER = (
    "settings",
    "config-file",
    "listeners",
    "data-dir",
    "token-file",
    "data-files",
    "lock",
    "daemon",
)


def test_the_command(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each check, in both forms; exit 1 exactly when something fails."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(house.root))
    folder = DataFolder(house.data, "boot", os.urandom)
    folder.take()
    folder.token()
    folder.release()
    words = ("--data-dir", str(house.data))
    # What this very machine and user are like is not the matter here.
    monkeypatch.setattr(table, "CHECKS", tuple(row for row in table.CHECKS if row[0] in OF_THE_FOLDER))
    code, out = command(capsys, *words)
    rows = {row["check"]: row for row in map(json.loads, out.splitlines())}
    assert list(rows) == [name for name, _ in table.CHECKS]
    assert [name for name, row in rows.items() if row["status"] == "fail"] == []
    assert code == 0
    assert rows["token-file"]["status"] == "pass"
    assert all(set(row) == {"check", "status", "detail", "advice"} for row in rows.values())
    (house.data / "token").chmod(0o644)
    code, out = command(capsys, *words, "--threads", "0")
    assert code == 1
    failed = [row["check"] for row in map(json.loads, out.splitlines()) if row["status"] == "fail"]
    assert failed == ["settings", "token-file"]
    code, out = command(capsys, *words, terminal=True)
    assert code == 1
    lines = out.splitlines()
    assert next(line for line in lines if line.startswith("FAIL")).split()[1] == "token-file"
    assert "1 FAIL" in lines[-1]
