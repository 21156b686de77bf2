"""A real daemon with a configuration file, credentials and an allow-list of variables; what the doctor says of it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import START_DEADLINE_S, TASKS_MODULE, Daemon, clean_environ, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.daemon import WheelEnv

TASKS = """
import os
from jobsvc import command, task

@task
def environ_of_thread():
    return dict(os.environ)

@task(executor="process")
def environ_of_process():
    with open("made", "w"):
        pass
    return dict(os.environ)

environ_of_command = command("environ_of_command", ["env"])
"""

SECRETS = {"JOBSVC_TOKEN": "jobsvc_9.leak", "NOTIFY_SOCKET": "/leak", "MY_SECRET": "leak"}
TOKEN = "jobsvc_0123456789ab." + "5" * 64
MARKS = {"JOBSVC_BOOT", "JOBSVC_NODE", "JOBSVC_WORKER"}
NEEDED = {"PATH", "HOME", "LANG", "LC_ALL", "TZ"}
"""Those of the always handed on that this daemon has."""


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Settings from a file in the service's own credentials, its token from there too."""
    folder = tmp_path_factory.mktemp("config")
    credentials = folder / "cred"
    credentials.mkdir()
    (credentials / "jobsvc.toml").write_text(
        'worker_env = ["APP_*", "JOBSVC_*"]\nallowed_host = ["jobs.example"]\nqueue_max = 5\ncpu_workers = 1\n'
    )
    (credentials / "jobsvc-token").write_text(TOKEN + "\n")
    for file in credentials.iterdir():
        file.chmod(0o400)
    environ = {
        "APP_MODE": "test", "OTHER": "leak", "LC_ALL": "C.UTF-8", "TZ": "UTC",
        "CREDENTIALS_DIRECTORY": str(credentials), **SECRETS,
    }  # fmt: skip
    made = GivenToken(wheel_env, folder, environ=environ)
    with running(made, TASKS) as started:
        yield started


class GivenToken(Daemon):
    """Its token is not in its data directory."""

    @property
    def token(self) -> str:
        return TOKEN


def cli(daemon: Daemon, *words: str, **environ: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and rows of a command in the daemon's own environment."""
    given = {name: value for name, value in daemon.environ.items() if name not in SECRETS}
    done = subprocess.run(
        [daemon.env.program("jobsvc"), "--data-dir", str(daemon.data_dir), *words],
        cwd=daemon.folder,
        env=clean_environ(daemon.folder, given | environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_workers_get_what_is_allowed(daemon: Daemon) -> None:
    """In every kind of worker and in commands: the list, what a program needs, our marks; no secret by any pattern."""
    for task in ("environ_of_thread", "environ_of_process"):
        environ = daemon.succeeded(daemon.submit(task)["id"])
        ours = {name for name in environ if name.startswith("JOBSVC_")}
        assert ours >= MARKS
        assert set(environ) - ours <= NEEDED | {"APP_MODE"}
        assert set(environ) >= NEEDED | {"APP_MODE"}
        assert "leak" not in json.dumps(environ)
    job = daemon.submit("environ_of_command")["id"]
    daemon.succeeded(job)
    lines = [item["data"] for item in daemon.lines(f"/v1/jobs/{job}/streams/out")]
    assert "APP_MODE=test" in lines
    assert not any("leak" in line for line in lines)


def test_the_token_is_that_of_the_credential(daemon: Daemon) -> None:
    """And it is put nowhere else."""
    assert daemon.get("/v1/info").status_code == 200
    assert not (daemon.data_dir / "token").exists()
    reply = daemon.get("/v1/info", headers={"Authorization": "Bearer jobsvc_9.leak"})
    assert reply.status_code == 401


def test_allowed_host(daemon: Daemon) -> None:
    """The name of the file is answered to, another is not."""
    assert daemon.get("/v1/info", headers={"Host": "Jobs.Example:443"}).status_code == 200
    assert daemon.get("/v1/info", headers={"Host": "evil.example"}).status_code == 421


def test_files_are_private_from_the_start(daemon: Daemon) -> None:
    """Those of the daemon and those that jobs make."""
    daemon.succeeded(daemon.submit("environ_of_process")["id"])
    made: list[Path] = [*daemon.data_dir.iterdir(), daemon.folder / "made"]
    assert {path.name for path in made} >= {"jobsvc.db", "lock", "endpoint.json", "made"}
    assert [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def all_workers_ready(daemon: Daemon) -> bool:
    """A daemon is ready with the first of them; the doctor remarks on a kind that is still starting."""
    rows = daemon.workers("io") + daemon.workers("cpu")
    return {row["kind"] for row in rows if row["state"] == "ready"} == {"io", "cpu"}


def is_well(ready: dict[str, str]) -> bool:
    """What the daemon says of itself: at most that a busy machine has held it up."""
    held_up = re.fullmatch(r"reactor: \d+ stalls over [^;]*", ready["detail"])
    return ready["status"] == ("warn" if held_up else "pass")


def test_the_doctor_finds_it_well(daemon: Daemon) -> None:
    """Beside a running daemon, in its environment: nothing fails but what this machine's tests bring with them."""
    daemon.wait_for("workers of each kind", lambda: all_workers_ready(daemon), START_DEADLINE_S)
    code, rows = cli(daemon, "doctor", "--tasks", TASKS_MODULE)
    found = {row["check"]: row for row in rows}
    of_the_machine = {"user", "open-files", "free-space", "memory", "guard"}
    failed = {name for name, row in found.items() if row["status"] == "fail"}
    assert failed <= of_the_machine, [found[name] for name in failed]
    assert code == (1 if failed else 0)
    assert (found["user"]["status"] == "fail") == (os.geteuid() == 0)
    for name in (
        "settings", "config-file", "listeners", "data-dir", "token-file", "data-files", "umask", "worker-env", "http2",
        "twisted", "kernel", "sqlite", "lock", "daemon", "reactor", "token", "host-names", "other-sites",
        "version",
    ):  # fmt: skip
        assert found[name]["status"] == "pass", found[name]
    assert found["fsync"]["status"] in {"pass", "warn"}, found[
        "fsync"
    ]  # warns of a slow disk, as a busy one is
    assert found["fsync"]["detail"].endswith(" ms")
    assert is_well(found["ready"]), found["ready"]
    assert found["database"]["status"] == "n/a"


def test_the_doctor_from_another_environment(daemon: Daemon) -> None:
    """An operator's shell knows nothing of the unit's: the running daemon's own settings and token are found."""
    daemon.wait_for("workers of each kind", lambda: all_workers_ready(daemon), START_DEADLINE_S)
    done = daemon.cli("doctor")
    found = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert "of the running daemon" in found["settings"]["detail"]
    assert "APP_*" in found["worker-env"]["detail"]
    assert is_well(found["ready"]), found["ready"]


def test_the_doctor_beside_a_wrong_token(daemon: Daemon) -> None:
    """Said, with what to do; the doors are looked at all the same."""
    _, rows = cli(daemon, "doctor", JOBSVC_TOKEN="jobsvc_1.wrong")
    found = {row["check"]: row for row in rows}
    assert found["ready"]["status"] == "fail"
    assert "JOBSVC_TOKEN" in found["ready"]["advice"]
    assert found["token"]["status"] == "pass"


def test_origins_of_a_real_start(daemon: Daemon) -> None:
    """What the command says is what the daemon does: its file is the credential."""
    _, rows = cli(daemon, "config", "show", "--origin", "--tasks", TASKS_MODULE)
    found = {row["option"]: (row["value"], row["origin"]) for row in rows}
    file = str(daemon.folder / "cred" / "jobsvc.toml")
    assert found["config"] == (file, "default")
    assert found["queue_max"] == (5, f"{file}:3")
    assert found["data_dir"] == (str(daemon.data_dir), "command line")
