"""The `jobsvc` command and both Python clients, as installed by the wheel, against a real daemon."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import Daemon, clean_environ, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

TASKS = '''
import time
from collections.abc import Iterator
from pathlib import Path
from jobsvc import Context, task

@task(executor="process")
def add(a: int, b: int = 0) -> int:
    """Add two numbers."""
    return a + b

@task
def divide(a: int, b: int) -> float:
    return a / b

@task
def talk(ctx: Context, words: list[str]) -> Iterator[str]:
    for n, word in enumerate(words):
        print("said", word)
        ctx.progress(n + 1, len(words))
        yield word
    return " ".join(words)

@task
async def held(ctx: Context, gate: str) -> str:
    import asyncio
    ctx.emit("in")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return "through"

@task(executor="process", on_lost="fail")
def lose() -> None:
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
'''
PROGRAM_DEADLINE_S = 100.0


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all."""
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("cli")), TASKS) as started:
        yield started


def command(daemon: Daemon, *words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command; it must end so."""
    done = daemon.cli(*words, stdin=stdin)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout or done.stdout.startswith("{"), done.stdout
    return done


def json_lines(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """Standard output, line by line."""
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- the command --------------------------------------------------------------------------------------------------


def test_submit_get_result_list(daemon: Daemon) -> None:
    """What goes into a pipe is JSON lines, every field included."""
    (job,) = json_lines(command(daemon, "submit", "add", '{"a": 20, "b": 22}', "--label", "by=hand"))
    assert (job["task"], job["args"], job["labels"]) == ("add", {"a": 20, "b": 22}, {"by": "hand"})
    assert command(daemon, "result", job["id"], "--wait").stdout == "42\n"
    assert command(daemon, "result", job["id"]).stdout == "42\n"
    (shown,) = json_lines(command(daemon, "get", job["id"]))
    assert shown == daemon.job(job["id"])
    (row,) = json_lines(command(daemon, "list", "--label", "by=hand", "--state", "succeeded"))
    assert row["id"] == job["id"]
    assert "result" not in row


def test_submit_wait_shows_output_beside_the_result(daemon: Daemon) -> None:
    """Result on standard output; logs and progress on standard error."""
    done = command(daemon, "submit", "talk", '[["x", "y"]]', "--wait")
    assert done.stdout == '"x y"\n'
    assert "said x" in done.stderr
    assert "progress 2/2" in done.stderr


def test_call(daemon: Daemon) -> None:
    """Arguments as an array, an object, or one by one."""
    assert command(daemon, "call", "add", "[1, 2]").stdout == "3\n"
    assert command(daemon, "call", "add", "-a", "a=4", "-a", "b=5").stdout == "9\n"


def test_map(daemon: Daemon) -> None:
    """Lines in, results out in the same order; a failure is null, told on standard error, and exit code 1."""
    done = command(daemon, "map", "add", stdin='[1, 2]\n\n{"a": 3}\n[5, 5]\n')
    assert done.stdout == "3\n3\n10\n"
    many = "".join(f"[{n}]\n" for n in range(1000))
    assert command(daemon, "map", "add", stdin=many).stdout == "".join(f"{n}\n" for n in range(1000))
    failed = command(daemon, "map", "divide", code=1, stdin="[1, 2]\n[1, 0]\n[4, 2]\n")
    assert failed.stdout == "0.5\nnull\n2.0\n"
    assert "line 2:" in failed.stderr
    assert "ZeroDivisionError" in failed.stderr
    full = json_lines(command(daemon, "map", "divide", "--full", code=1, stdin="[1, 0]\n[4, 2]\n"))
    assert [line["line"] for line in full] == [1, 2]
    assert full[0]["error"]["type"] == "ZeroDivisionError"
    assert full[1]["result"] == 2.0


def test_follow(daemon: Daemon) -> None:
    """Events as they are on the wire; the values of a stream alone."""
    (job,) = json_lines(command(daemon, "submit", "talk", '[["x", "y"]]'))
    events = json_lines(command(daemon, "follow", job["id"]))
    assert [event["kind"] for event in events] == [event["kind"] for event in daemon.events(job["id"])]
    assert command(daemon, "follow", job["id"], "--stream", "out").stdout == '"x"\n"y"\n'


def test_cancel_and_retry(daemon: Daemon) -> None:
    """A running job is ended; a final one is the model of a new one."""
    (job,) = json_lines(command(daemon, "submit", "held", '["never"]'))
    daemon.first_item(job["id"])
    (stopping,) = json_lines(command(daemon, "cancel", job["id"]))
    assert stopping["state"] == "stopping"
    assert "cancelled" in command(daemon, "result", job["id"], "--wait", code=1).stderr
    command(daemon, "cancel", job["id"], code=5)
    (again,) = json_lines(command(daemon, "retry", job["id"]))
    assert again["rerun_of"] == job["id"]
    command(daemon, "cancel", again["id"])


def test_tasks_info_reload(daemon: Daemon) -> None:
    """The daemon itself."""
    tasks = {row["name"]: row for row in json_lines(command(daemon, "tasks"))}
    assert set(tasks) == {"add", "divide", "held", "lose", "talk"}
    assert tasks["add"]["doc"] == "Add two numbers."
    (one,) = json_lines(command(daemon, "tasks", "add"))
    assert one == tasks["add"]
    (info,) = json_lines(command(daemon, "info"))
    assert info["tasks"] == 5
    (reloaded,) = json_lines(command(daemon, "reload"))
    assert reloaded["tasks"] == sorted(tasks)


def test_exit_codes(daemon: Daemon, tmp_path: Path) -> None:
    """1 failed, 2 usage, 3 no daemon, 4 not allowed, 5 not found, 124 the time is over."""
    failed = command(daemon, "call", "divide", "[1, 0]", code=1)
    assert "ZeroDivisionError" in failed.stderr
    assert "return a / b" in failed.stderr, "the remote traceback"
    (job,) = json_lines(command(daemon, "submit", "divide", "[1, 0]"))
    command(daemon, "result", job["id"], "--wait", code=1)
    command(daemon, "submit", "divide", "[1, 0]", "--wait", code=1)
    command(daemon, "submit", code=2)
    command(daemon, "submit", "add", "{not json", code=2)
    command(daemon, "frobnicate", code=2)
    assert "/args/a" in command(daemon, "submit", "add", '{"a": "x"}', code=1).stderr
    command(daemon, "--data-dir", str(tmp_path), "info", code=3)
    command(daemon, "--url", "http://127.0.0.1:9", "--token", daemon.token, "info", code=3)
    command(daemon, "--url", daemon.url, "--token", "jobsvc_a.b", "info", code=4)
    command(daemon, "get", "01938f00-0000-7000-8000-000000000000", code=5)
    command(daemon, "submit", "no_such_task", code=5)
    (waiting,) = json_lines(command(daemon, "submit", "held", '["codes"]'))
    command(daemon, "result", waiting["id"], code=124)
    command(daemon, "result", waiting["id"], "--wait-s", "0.2", code=124)
    command(daemon, "call", "held", '["codes"]', "--wait-s", "0.2", code=124)
    daemon.open_gate("codes")
    assert command(daemon, "result", waiting["id"], "--wait").stdout == '"through"\n'


# -- the clients --------------------------------------------------------------------------------------------------


def program(daemon: Daemon, text: str) -> list[Any]:
    """Run a Python program with what the wheel installed; what it printed, one JSON value a line."""
    path = daemon.folder / "program.py"
    path.write_text(text)
    done = subprocess.run(
        [daemon.env.program("python"), "-W", "error", str(path)],
        cwd=daemon.folder,
        env=clean_environ(daemon.folder, {"JOBSVC_DATA_DIR": str(daemon.data_dir)}),
        capture_output=True,
        text=True,
        timeout=PROGRAM_DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


BLOCKING = """
import json
from pathlib import Path
from jobsvc.client import BulkRefused, Client, JobCancelled, JobFailed, JobLost, Refused, WaitTimeout

def say(*values):
    print(json.dumps(values))

def raised(kind, act):
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")

with Client() as client:
    job = client.submit("add", {"a": 1, "b": 2}, priority=5, labels={"by": "client"})
    say("submit", job.state in ("queued", "running"), job.priority)
    say("result", client.result(job), client.wait(job).state, client.get(job.id).result)
    say("call", client.call("add", [3, 4]))
    ids = client.submit_many([("add", [n]) for n in range(500)])
    say("submit_many", len(set(ids)), client.result(ids[7]))
    say("map", sum(client.map("add", ([n, n] for n in range(1000)))))
    mapped = list(client.map("divide", [[1, 2], [1, 0], [4, 2]], return_errors=True))
    say("map errors", mapped[0], mapped[1].type, mapped[2])
    talk = client.submit("talk", [["x", "y", "z"]])
    say("stream", list(client.stream(talk)), list(client.stream(talk, from_=2)))
    events = list(client.events(talk))
    numbers = [e.seq for e in events[:-1]]
    say("events", numbers == list(range(1, len(events))), events[-1].kind, events[-1].data["result"])
    half = events[: len(events) // 2]
    say("resumed", half + list(client.events(talk, from_=half[-1].seq + 1)) == events)
    failed = raised(JobFailed, lambda: client.call("divide", [1, 0]))
    say("failed", failed.kind, failed.type, "return a / b" in failed.remote_traceback)
    say("lost", raised(JobLost, lambda: client.call("lose")).kind)
    held = client.submit("held", ["never"])
    next(client.stream(held))
    say("timeout", raised(WaitTimeout, lambda: client.wait(held, timeout=0.1)).job.state)
    say("cancel", client.cancel(held).state, raised(JobCancelled, lambda: client.result(held)).state)
    again = client.retry(failed.job_id)
    say("retry", again.rerun_of == failed.job_id, client.wait(again).state)
    say("list", [job.id for job in client.list(labels={"by": "client"})] == [job.id],
        len(list(client.list(task="add", limit=1200))))
    refused = raised(Refused, lambda: client.submit("add", ["x"]))
    say("refused", refused.code, refused.status, refused.errors[0]["pointer"])
    bulk = raised(BulkRefused, lambda: client.submit_many([("add", [1]), ("add", ["x"]), ("add", [3])]))
    say("bulk refused", [isinstance(each, str) for each in bulk.ids], bulk.line)
    say("keys", client.submit("add", [1], key="k").id == client.submit("add", [1], key="k").id)
    say("tasks", len(client.tasks()["tasks"]), client.info()["durability"])
"""

TWISTED = """
import json
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from jobsvc.client import JobCancelled, JobFailed, JobLost, Refused, WaitTimeout
from jobsvc.client.twisted import TwistedClient

def say(*values):
    print(json.dumps(values))

async def raised(kind, deferred):
    try:
        await deferred
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")

async def main(reactor):
    client = TwistedClient(reactor)
    job = await client.submit("add", {"a": 1, "b": 2}, priority=5, labels={"by": "twisted"})
    say("submit", job.state in ("queued", "running"), job.priority)
    say("result", await client.result(job), (await client.wait(job)).state, (await client.get(job.id)).result)
    say("call", await client.call("add", [3, 4]))
    ids = await client.submit_many([("add", [n]) for n in range(500)])
    say("submit_many", len(set(ids)), await client.result(ids[7]))
    say("map", sum([value async for value in client.map("add", ([n, n] for n in range(1000)))]))
    mapped = [v async for v in client.map("divide", [[1, 2], [1, 0], [4, 2]], return_errors=True)]
    say("map errors", mapped[0], mapped[1].type, mapped[2])
    talk = await client.submit("talk", [["x", "y", "z"]])
    say("stream", [v async for v in client.stream(talk)], [v async for v in client.stream(talk, from_=2)])
    events = [e async for e in client.events(talk)]
    numbers = [e.seq for e in events[:-1]]
    say("events", numbers == list(range(1, len(events))), events[-1].kind, events[-1].data["result"])
    half = events[: len(events) // 2]
    say("resumed", half + [e async for e in client.events(talk, from_=half[-1].seq + 1)] == events)
    failed = await raised(JobFailed, client.call("divide", [1, 0]))
    say("failed", failed.kind, failed.type, "return a / b" in failed.remote_traceback)
    say("lost", (await raised(JobLost, client.call("lose"))).kind)
    held = await client.submit("held", ["never"])
    stream = client.stream(held)
    await anext(stream)
    await stream.aclose()
    say("timeout", (await raised(WaitTimeout, client.wait(held, timeout=0.1))).job.state)
    say("cancel", (await client.cancel(held)).state, (await raised(JobCancelled, client.result(held))).state)
    again = await client.retry(failed.job_id)
    say("retry", again.rerun_of == failed.job_id, (await client.wait(again)).state)
    say("list", [j.id async for j in client.list(labels={"by": "twisted"})] == [job.id],
        len([j async for j in client.list(task="add", limit=1200)]))
    refused = await raised(Refused, client.submit("add", ["x"]))
    say("refused", refused.code, refused.status, refused.errors[0]["pointer"])
    say("keys", (await client.submit("add", [1], key="t")).id == (await client.submit("add", [1], key="t")).id)
    say("tasks", len((await client.tasks())["tasks"]), (await client.info())["durability"])
    await client.close()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

SAID: list[list[Any]] = [
    ["submit", True, 5],
    ["result", 3, "succeeded", 3],
    ["call", 7],
    ["submit_many", 500, 7],
    ["map", 999_000],
    ["map errors", 0.5, "ZeroDivisionError", 2.0],
    ["stream", ["x", "y", "z"], ["y", "z"]],
    ["events", True, "end", "x y z"],
    ["resumed", True],
    ["failed", "task_error", "ZeroDivisionError", True],
    ["lost", "lost"],
    ["timeout", "running"],
    ["cancel", "stopping", "cancelled"],
    ["retry", True, "failed"],
    ["list", True, 1200],
    ["refused", "invalid_args", 422, "/args/0"],
    ["bulk refused", [True, False, True], 2],
    ["keys", True],
    ["tasks", 5, "power"],
]


def test_blocking_client(daemon: Daemon) -> None:
    """Each of its methods, and each of its errors."""
    assert program(daemon, BLOCKING) == SAID


def test_twisted_client(daemon: Daemon) -> None:
    """The same with Deferreds."""
    assert program(daemon, TWISTED) == [line for line in SAID if line[0] != "bulk refused"]


OUTLASTS = """
import sys
from jobsvc.client import Client

with Client() as client:
    job = client.submit("held", ["after"])
    values = client.stream(job)
    print(next(values), flush=True)
    print(client.result(job), flush=True)
"""


def test_waiting_client_outlasts_a_restart(start_daemon: StartDaemon) -> None:
    """The daemon is stopped and started on another port while the client waits; the client gets the result."""
    daemon = start_daemon(TASKS, "--drain-s", "0")
    (daemon.folder / "program.py").write_text(OUTLASTS)
    environ = clean_environ(daemon.folder, {"JOBSVC_DATA_DIR": str(daemon.data_dir)})
    with subprocess.Popen(
        [daemon.env.program("python"), "program.py"],
        cwd=daemon.folder,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "in\n"
        daemon.options += ("--listen", f"tcp:{daemon.url.rpartition(':')[2]}:interface=127.0.0.1")
        assert daemon.stop() == 0
        daemon.start()
        daemon.open_gate("after")
        assert client.stdout.readline() == "through\n"
        assert client.wait(60) == 0
