"""Secret arguments and the audit log in a real daemon: what the task gets, and that nobody else ever sees it."""

from __future__ import annotations

import json
import stat
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.processes import processes_in

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

SECRET = 'hunter2 "ünder" \\ the sea'
PLANTED = ("hunter2", "ünder", "\\u00fcnder", "the sea")
"""Parts of it that must be nowhere, however it is escaped."""

TASKS = """
import asyncio
import logging
import os
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path
from jobsvc import Context, Secret, task

@task(executor="process")
def uses(password: Secret[str], gate: str | None = None) -> str:
    while gate is not None and not Path(gate).exists():
        time.sleep(0.01)
    return sha256(password.reveal().encode()).hexdigest()

@task(executor="process")
def raises(password: Secret[str]):
    try:
        {}[password.reveal()]
    except KeyError as error:
        raise ValueError(f"no entry for {password.reveal()}, {password}") from error

@task
def raises_in_thread(password: Secret[str]):
    raise ValueError(f"no entry for {password.reveal()!r}")

@task
async def raises_on_loop(password: Secret[str]):
    async def forgotten():
        raise OSError(password.reveal())
    task = asyncio.get_running_loop().create_task(forgotten())
    await asyncio.sleep(0)
    del task
    raise ValueError(password.reveal())

@task(executor="process")
def prints(ctx: Context, password: Secret[str]) -> str:
    print("out", password.reveal(), password)
    sys.stderr.write(password.reveal()[:5])
    sys.stderr.write(password.reveal()[5:] + "\\n")
    ctx.log(f"log {password.reveal()}", value=password.reveal(), held=password)
    ctx.progress(1, 2, password.reveal())
    logging.getLogger("mine").error("logged %s", password.reveal())
    return "done"

@task
def prints_in_thread(password: Secret[str]) -> str:
    print("out", password.reveal())
    logging.getLogger("mine").error("logged %s", password.reveal())
    return "done"

@task(executor="process", on_lost="fail")
def leaves(password: Secret[str]):
    print(password.reveal(), flush=True)
    os._exit(3)

@task(executor="process", on_lost="fail")
def aborts(password: Secret[str]):
    print(password.reveal(), flush=True)
    os.abort()

@task(executor="process", on_lost="fail")
def dies(password: Secret[str]):
    os.kill(os.getpid(), signal.SIGKILL)

@task(executor="process")
def gives(password: Secret[str]):
    return password
"""
BAD = {
    "raises": "task_error", "raises_in_thread": "task_error", "raises_on_loop": "task_error", "leaves": "crashed",
    "aborts": "crashed", "dies": "lost", "gives": "not_serialisable",
}  # fmt: skip


def submitted(daemon: Daemon, task: str, **fields: Any) -> dict[str, Any]:
    reply = daemon.post("/v1/jobs", json={"task": task, "args": {"password": SECRET}, **fields})
    assert reply.status_code == 201, reply.text
    job: dict[str, Any] = reply.json()
    assert job["args"]["password"] == "***"
    return job


def seen_of(daemon: Daemon, job_id: str) -> list[str]:
    """All that the API says of a job."""
    paths = (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/events", f"/v1/jobs/{job_id}/attempts")
    return [daemon.get(path).text for path in paths]


def of_processes(daemon: Daemon) -> list[bytes]:
    """Command line and environment of the daemon and of all that it started."""
    pids = [daemon.pid, *processes_in(daemon.folder)]
    return [Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("cmdline", "environ")]


def last_record(daemon: Daemon) -> tuple[str, str]:
    """What the audit log says last."""
    record = json.loads(daemon.cli("audit", "tail", "-n", "1").stdout)
    return record["what"], record["decision"]


def clean(where: str, data: str | bytes) -> None:
    """Nothing of the secret is in it."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    for part in PLANTED:
        assert part not in text, (where, part, text[max(0, text.find(part) - 200) :][:400])


def test_a_secret_is_nowhere_but_in_the_task(start_daemon: StartDaemon) -> None:
    """P19, P07: every way to crash, print and log; then the database, its log, backups, the daemon's log, replies,
    environments and command lines are looked through; the keys are in a file of their own.
    """  # fmt: skip
    daemon = start_daemon(TASKS)
    held = submitted(daemon, "uses", args={"password": SECRET, "gate": "gate"})
    daemon.in_state(held["id"], "running")
    for data in of_processes(daemon):
        clean("process", data)
    kinds = {}
    jobs = [held["id"]]
    for task in BAD:
        job = submitted(daemon, task)
        jobs.append(job["id"])
        kinds[task] = daemon.done(job["id"])["error"]["kind"]
    assert kinds == BAD
    for task in ("prints", "prints_in_thread"):
        job = submitted(daemon, task)
        jobs.append(job["id"])
        assert daemon.succeeded(job["id"]) == "done"
        assert "out ***" in daemon.get(f"/v1/jobs/{job['id']}/events").text
    daemon.open_gate()
    assert daemon.succeeded(held["id"]) == sha256(SECRET.encode()).hexdigest()
    again = daemon.post(f"/v1/jobs/{held['id']}/retry").json()
    assert daemon.succeeded(again["id"]) == sha256(SECRET.encode()).hexdigest()
    for job_id in (*jobs, again["id"]):
        for text in seen_of(daemon, job_id):
            clean("API", text)
    clean("list", daemon.get("/v1/jobs?include=args,result&limit=100").text)
    assert daemon.cli("db", "backup").returncode == 0
    assert daemon.stop() == 0
    clean("log", daemon.log)
    keys = daemon.data_dir / "secret-keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    key = keys.read_text().split()[1]
    files = [path for path in daemon.data_dir.rglob("*") if path.is_file() and path != keys]
    assert {"jobsvc.db", "audit.log"} <= {path.name for path in files}
    assert any(path.parent.name == "backup" for path in files)
    for path in files:
        clean(path.name, path.read_bytes())
        assert key.encode() not in path.read_bytes(), path


def test_secrets_outlive_a_restart_and_a_new_key(start_daemon: StartDaemon) -> None:
    """A key in front encrypts, the old one still decrypts; keys of idempotency are told apart without showing what
    they hold. All of it is in the audit log, and a record that is taken away is missed (P20).
    """  # fmt: skip
    daemon = start_daemon(TASKS)
    scheduled = submitted(daemon, "uses", delay_s=3600, key="a")
    assert daemon.stop() == 0
    keys = daemon.data_dir / "secret-keys"
    old = keys.read_text()
    new = "00c0ffee " + "A" * 43
    keys.write_text(f"# rotated\n{new}\n{old}")
    daemon.start()
    body = {"task": "uses", "args": {"password": SECRET}, "delay_s": 3600, "key": "a"}
    replay = daemon.post("/v1/jobs", json=body)
    assert (replay.status_code, replay.json()["id"]) == (200, scheduled["id"])
    other = daemon.post("/v1/jobs", json=body | {"args": {"password": "other"}})
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert daemon.post(f"/v1/jobs/{scheduled['id']}/run").status_code == 200
    assert daemon.succeeded(scheduled["id"]) == sha256(SECRET.encode()).hexdigest()
    daemon.wait_for(
        "the audit record of the last change", lambda: last_record(daemon) == ("jobs.run", "allowed"), 30
    )
    assert daemon.stop() == 0
    audit = daemon.cli("audit", "check", "--json")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    log = daemon.data_dir / "audit.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]))
    broken = daemon.cli("audit", "check", "--json")
    assert broken.returncode == 1
    assert "missing at the end" in broken.stdout


def test_one_loopback_listener_by_default(start_daemon: StartDaemon) -> None:
    """P01: of all processes of a daemon one listens, once, and only this machine can reach it."""
    daemon = start_daemon(TASKS)
    inodes = set()
    for pid in [daemon.pid, *processes_in(daemon.folder)]:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(link.readlink())
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{daemon.pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].partition(":")[0])
    assert listening == ["0100007F"]
