"""A real daemon for integration tests: from the built wheel, in a folder of its own, driven as a user would.

Nothing here sleeps and hopes: every wait is for a named condition, is woken by the daemon's own output or by
its exit, and has a deadline, after which the test fails and shows the daemon's log.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import httpx2
import pytest

from tests.integration.processes import OutputLog, alive, command_line, kill_process, processes_in

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

START_DEADLINE_S = 30.0
"""Four interpreters on two busy cores start in well under this."""

STOP_DEADLINE_S = 45.0
"""The default drain (30 s) and a reserve."""

SIGNAL_AGAIN_S = 1.0
"""Two signals sent at once may arrive as one."""

ORPHAN_DEADLINE_S = 5.0
"""The promise: no orphan process 5 s after the daemon's death."""

HTTP_TIMEOUT_S = 60.0
"""One request, long-polls included."""

JOB_DEADLINE_S = 60.0
"""One job on a busy machine, restarts of its worker included."""

CLI_TIMEOUT_S = 60.0
"""One `jobsvc` command, waits included."""

TASKS_MODULE = "tasks_under_test"

T = TypeVar("T")


@dataclass(frozen=True)
class WheelEnv:
    """A virtual environment that holds the built wheel and its dependencies, nothing else.

    Attributes:
        prefix: its root folder.
        wheel: the wheel that was installed.
    """

    prefix: Path
    wheel: Path

    def program(self, name: str) -> str:
        """The path of an installed command: ``python``, ``twistd``, ``twist``, ``jobsvc``."""
        return str(self.prefix / "bin" / name)


def clean_environ(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment as on a stranger's machine: no PYTHONPATH, no JOBSVC_*, a home folder of its own."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", **(extra or {})}


@dataclass
class Daemon:
    """One daemon in one folder; may be started, stopped, killed and started again on the same data.

    Attributes:
        env: where the installed commands are.
        folder: working directory; holds the task module and ``data``.
        options: command line options after ``jobsvc``, beside tasks, data folder and listener.
        launcher: words before ``jobsvc``: twistd in the foreground, or twist.
        environ: environment variables beside a clean minimum.
    """

    env: WheelEnv
    folder: Path
    options: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ("twistd", "-n", "--pidfile=")
    environ: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None
    _log: OutputLog | None = None
    _http: httpx2.Client | None = None
    _ended_at: float = 0.0

    @property
    def data_dir(self) -> Path:
        """The data directory, given to the daemon with --data-dir."""
        return self.folder / "data"

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running (or last) daemon process."""
        assert self._process is not None, "start() first"
        return self._process

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything the daemon printed since it was last started."""
        assert self._log is not None, "start() first"
        return self._log.text

    @property
    def token(self) -> str:
        """The admin token that the first start wrote."""
        return (self.data_dir / "token").read_text().strip()

    @property
    def endpoint(self) -> dict[str, Any]:
        """What ``endpoint.json`` says: url, unix, pid, boot."""
        return cast("dict[str, Any]", json.loads((self.data_dir / "endpoint.json").read_text()))

    @property
    def url(self) -> str:
        """Where the daemon listens, without a slash at the end."""
        return cast("str", self.endpoint["url"]).rstrip("/")

    @property
    def http(self) -> httpx2.Client:
        """A client with the daemon's address and token; ``http.stream("GET", path)`` for streams."""
        assert self._http is not None, "start() first"
        return self._http

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """GET ``path``; options as httpx2 takes them (params, headers, timeout)."""
        return self.http.get(path, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        """POST to ``path``; options as httpx2 takes them (json, content, params, headers, timeout)."""
        return self.http.post(path, **options)

    def submit(self, task: str, *args: Any, **fields: Any) -> dict[str, Any]:
        """Submit one job that must be accepted; positional arguments become ``args``.

        Returns: the job as the reply shows it.
        """
        body = {"task": task, "args": list(args), **fields}
        reply = self.post("/v1/jobs", json=body)
        assert reply.status_code in {200, 201}, (reply.status_code, reply.text)
        return cast("dict[str, Any]", reply.json())

    def job(self, job_id: str, *, wait_s: float = 0) -> dict[str, Any]:
        """The job, after waiting for its end at most ``wait_s``."""
        reply = self.get(f"/v1/jobs/{job_id}", params={"wait": f"{wait_s:g}"} if wait_s else {})
        assert reply.status_code == httpx2.codes.OK, (reply.status_code, reply.text)
        return cast("dict[str, Any]", reply.json())

    def until(
        self, job_id: str, condition: Callable[[dict[str, Any]], bool], deadline_s: float = JOB_DEADLINE_S
    ) -> dict[str, Any]:
        """The job as soon as it fulfils ``condition``: long-polls from one revision to the next."""
        give_up_at = monotonic() + deadline_s
        reply = self.get(f"/v1/jobs/{job_id}")
        while not condition(job := reply.json()):
            left_s = give_up_at - monotonic()
            if left_s <= 0 or job["done"]:
                log = "" if self._log is None else self._log.tail()
                pytest.fail(f"not what was waited for: {job}\nthe daemon's log:\n{log}")
            known = {"If-None-Match": reply.headers["ETag"]}
            newer = self.get(f"/v1/jobs/{job_id}", params={"wait": f"{left_s:.3f}"}, headers=known)
            if newer.status_code != httpx2.codes.NOT_MODIFIED:
                reply = newer
        return cast("dict[str, Any]", job)

    def in_state(self, job_id: str, *states: str) -> dict[str, Any]:
        """The job as soon as it is in one of these states."""
        return self.until(job_id, lambda job: job["state"] in states)

    def done(self, job_id: str, deadline_s: float = JOB_DEADLINE_S) -> dict[str, Any]:
        """The job once it is done."""
        return self.until(job_id, lambda job: bool(job["done"]), deadline_s)

    def succeeded(self, job_id: str) -> Any:
        """The result of a job that must succeed."""
        job = self.done(job_id)
        assert job["state"] == "succeeded", job
        return job["result"]

    def lines(self, path: str, **options: Any) -> Generator[dict[str, Any], None, None]:
        """The JSON lines of a streamed reply, as they come; heartbeats are left out. Close it to hang up."""
        headers = {"Accept": "application/x-ndjson", **options.pop("headers", {})}
        method = options.pop("method", "GET")
        with self.http.stream(method, path, headers=headers, **options) as reply:
            assert reply.status_code in {200, 201}, (reply.status_code, reply.read())
            for line in reply.iter_lines():
                if line:
                    yield json.loads(line)

    def events(self, job_id: str, **params: Any) -> list[dict[str, Any]]:
        """All events of a job, once it is done."""
        return list(self.lines(f"/v1/jobs/{job_id}/events", params=params))

    def first_item(self, job_id: str, *, epoch: int = 1) -> Any:
        """The first item that the attempt of this epoch gave, as soon as it is there."""
        with closing(self.lines(f"/v1/jobs/{job_id}/streams/out", params={"epoch": "all"})) as items:
            for item in items:
                if item["epoch"] == epoch and not item.get("restart"):
                    return item["data"]
        pytest.fail(f"the attempt {epoch} gave no item: {self.job(job_id)}")

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """All attempts at a job."""
        return cast("list[dict[str, Any]]", self.get(f"/v1/jobs/{job_id}/attempts").json()["attempts"])

    def workers(self, kind: str) -> list[dict[str, Any]]:
        """The workers of one kind."""
        rows = self.get("/v1/workers").json()["workers"]
        return [row for row in rows if row["kind"] == kind]

    def open_gate(self, name: str = "gate") -> None:
        """Let go the tasks that wait until there is a file of this name in their working directory."""
        (self.folder / name).touch()

    def cli(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the installed ``jobsvc`` command; it finds address and token by the data folder."""
        return subprocess.run(
            [self.env.program("jobsvc"), *args],
            input=stdin,
            cwd=self.folder,
            env=clean_environ(self.folder, {"JOBSVC_DATA_DIR": str(self.data_dir)}),
            capture_output=True,
            text=True,
            timeout=CLI_TIMEOUT_S,
            check=False,
        )

    def write_tasks(self, text: str, module: str = TASKS_MODULE) -> Path:
        """Write a task module into the start folder."""
        path = self.folder / f"{module}.py"
        path.write_text(text)
        return path

    def launch(self, *, tasks: tuple[str, ...] = (TASKS_MODULE,)) -> None:
        """Start the process without waiting for anything."""
        assert self._process is None or self._process.poll() is not None, "it still runs"
        program, *words = self.launcher
        command = [self.env.program(program), *words, "jobsvc"]
        for module in tasks:
            command += ["--tasks", module]
        command += ["--data-dir", str(self.data_dir)]
        if "--listen" not in self.options:
            command += ["--listen", "tcp:0:interface=127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, *self.options],
            cwd=self.folder,
            env=clean_environ(self.folder, self.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._ended_at = 0.0
        self._log = OutputLog(cast("IO[str]", self._process.stdout))

    def start(self) -> Daemon:
        """Start, and return when this very process has published its endpoint and says it is ready."""
        self.launch()
        self.wait_for("endpoint.json of this process", self._published, START_DEADLINE_S)
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=HTTP_TIMEOUT_S,
            trust_env=False,
        )
        self.wait_for("/readyz", self.is_ready, START_DEADLINE_S)
        return self

    def _published(self) -> bool:
        try:
            return bool(self.endpoint["pid"] == self.pid)  # an older file of a killed daemon may lie there
        except FileNotFoundError:
            return False

    def is_ready(self) -> bool:
        """Whether /readyz answers 200 now."""
        try:
            return self.get("/readyz").status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    def wait_for(self, what: str, condition: Callable[[], T | None], deadline_s: float) -> T:
        """The first true value of ``condition``; fails if the daemon ends or the time is up before."""
        assert self._log is not None, "start() first"
        give_up_at = monotonic() + deadline_s
        while True:
            ended = self.process.poll() is not None  # asked first: the last words of a daemon still count
            value = condition()
            if value:
                return value
            if ended:
                self._log.finish()
                pytest.fail(
                    f"the daemon ended ({self.process.returncode}) before {what}:\n{self._log.tail()}"
                )
            if monotonic() > give_up_at:
                pytest.fail(f"no {what} within {deadline_s:g} s; the daemon's log:\n{self._log.tail()}")
            self._log.wait_change()

    def wait_log(self, pattern: str, deadline_s: float = START_DEADLINE_S) -> re.Match[str]:
        """The first match of ``pattern`` in the daemon's output."""
        return self.wait_for(f"log line {pattern!r}", lambda: re.search(pattern, self.log), deadline_s)

    def wait_exit(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """The exit status of a daemon that is expected to end; negative for a signal."""
        assert self._log is not None, "start() first"
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the daemon runs on after {deadline_s:g} s:\n{self._log.tail()}")
        self._ended_at = self._ended_at or monotonic()
        self._log.finish()
        if self._http is not None:
            self._http.close()
            self._http = None
        return code

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """SIGTERM, and the exit status after the drain."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit(deadline_s)

    def hurry_out(self) -> None:
        """SIGTERM again and again, as the second one shortens the drain to nothing; kills it when it stays."""
        give_up_at = monotonic() + STOP_DEADLINE_S
        while monotonic() < give_up_at:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(SIGNAL_AGAIN_S)
            except subprocess.TimeoutExpired:
                continue
            return
        self.process.kill()
        pytest.fail(f"the daemon did not stop within {STOP_DEADLINE_S:g} s")

    def kill(self) -> int:
        """SIGKILL, as a crash or the OOM killer would; its workers must end by themselves."""
        self.process.kill()
        return self.wait_exit()

    def wait_end_of(self, pids: Iterable[int], deadline_s: float = ORPHAN_DEADLINE_S) -> None:
        """Wait until none of these processes runs, when the daemon itself has ended already."""
        assert self._log is not None, "start() first"
        give_up_at = monotonic() + deadline_s
        while left := [pid for pid in pids if alive(pid)]:
            if monotonic() > give_up_at:
                pytest.fail("still there: " + ", ".join(f"{pid}: {command_line(pid)}" for pid in left))
            self._log.wait_change()

    def wait_no_orphans(self, deadline_s: float = ORPHAN_DEADLINE_S) -> None:
        """Fail if a process that works in the daemon's folder outlived the daemon by more than the deadline.

        To be called after ``wait_exit``, ``stop`` or ``kill``. What remains is killed, so a failing test leaves
        nothing behind either.
        """
        assert self._log is not None, "start() first"
        give_up_at = self._ended_at + deadline_s
        while left := processes_in(self.folder):
            if monotonic() > give_up_at:
                described = [f"{pid}: {command_line(pid)}" for pid in left]
                for pid in left:
                    kill_process(pid)
                self._log.finish()
                pytest.fail("processes outlived their daemon:\n" + "\n".join(described))
            self._log.wait_change()


@contextmanager
def running(daemon: Daemon, tasks: str) -> Iterator[Daemon]:
    """Start the daemon with the text of a task module; stop it, and see that it left no process.

    A test may have stopped or killed it before.
    """
    daemon.write_tasks(tasks)
    try:
        yield daemon.start()
    finally:
        if daemon._process is not None:  # the process did start
            if daemon.process.poll() is None:
                daemon.hurry_out()
            daemon.wait_exit()
            daemon.wait_no_orphans()
