"""F29: workers that cannot start: a module that fails or kills at its import, an interpreter that is gone."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import TASKS_MODULE, Daemon, WheelEnv, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import StartDaemon

TASKS = """
import os
from jobsvc import task

@task(executor="process")
def whole() -> int:
    return os.getpid()

@task
def whole_thread() -> int:
    return os.getpid()
"""
FRAIL = """
from jobsvc import task

@task(executor="process")
def frail() -> int:
    return 7
"""
BREAKS = {
    "missing module": ("import no_such_dependency\n", "no_such_dependency"),
    "kills the interpreter": ("import os; os.abort()\n", "SIGABRT"),
}


def checks(daemon: Daemon) -> dict[str, Any]:
    """`/readyz?verbose` by check, and whether it is ready on the whole."""
    reply = daemon.get("/readyz", params={"verbose": "1"})
    assert reply.json()["ready"] == (reply.status_code == 200)
    return {"status": reply.status_code, **{row["check"]: row for row in reply.json()["checks"]}}


def broken(daemon: Daemon) -> str:
    """The gauge of the module."""
    name = 'jobsvc_module_broken{module="frail"}'
    (line,) = [line for line in daemon.get("/metrics").text.splitlines() if line.startswith(name)]
    return line.rpartition(" ")[2]


@pytest.mark.parametrize("how", BREAKS)
def test_a_module_that_stops_loading_leaves_the_others_at_work(start_daemon: StartDaemon, how: str) -> None:
    """F29: its jobs are accepted and wait with the reason, those of the other module run, the daemon stays ready; a
    reload with the mended module brings all back, and the jobs that waited run.
    """  # fmt: skip
    source, words = BREAKS[how]
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    daemon.stop()
    daemon.write_tasks(FRAIL, "frail")
    daemon.options = (*daemon.options, "--tasks", "frail")
    daemon.start()
    assert daemon.succeeded(daemon.submit("frail")["id"]) == 7
    assert broken(daemon) == "0.0"
    daemon.write_tasks(source + FRAIL, "frail")
    os.kill(daemon.workers("cpu")[0]["pid"], signal.SIGKILL)
    daemon.wait_log("module frail is broken")
    waiting = daemon.submit("frail")["id"]
    assert isinstance(daemon.succeeded(daemon.submit("whole")["id"]), int)
    assert isinstance(daemon.succeeded(daemon.submit("whole_thread")["id"]), int)
    assert (daemon.job(waiting)["state"], daemon.job(waiting)["reason"]) == ("queued", "module_broken")
    assert "frail" in {task["name"] for task in daemon.get("/v1/tasks").json()["tasks"]}
    seen = checks(daemon)
    assert seen["status"] == 200
    assert seen["module frail"]["ok"] is False
    for part in ("broken since 2", words, "tried again at 2"):
        assert part in seen["module frail"]["detail"]
    assert broken(daemon) == "1.0"
    daemon.write_tasks(FRAIL, "frail")
    assert daemon.post("/v1/reload").status_code == 200
    assert daemon.succeeded(waiting) == 7
    assert daemon.attempts(waiting)[-1]["epoch"] == 1
    assert "module frail" not in checks(daemon)
    assert broken(daemon) == "0.0"
    assert daemon.log.count("module frail is broken") == daemon.log.count("module frail works again") == 1


def test_a_module_that_is_mended_comes_back_by_itself(start_daemon: StartDaemon) -> None:
    """F29: nobody has to ask for it."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    daemon.write_tasks("raise OSError('the disk of the models is gone')\n" + TASKS)
    os.kill(daemon.workers("cpu")[0]["pid"], signal.SIGKILL)
    daemon.wait_log(f"module {TASKS_MODULE} is broken")
    waiting = daemon.submit("whole")["id"]
    assert "the disk of the models is gone" in checks(daemon)[f"module {TASKS_MODULE}"]["detail"]
    assert isinstance(daemon.succeeded(daemon.submit("whole_thread")["id"]), int), (
        "the io worker holds it still"
    )
    assert checks(daemon)["status"] == 200
    daemon.write_tasks(TASKS)
    assert isinstance(daemon.succeeded(waiting), int)
    assert f"module {TASKS_MODULE}" not in checks(daemon)


def test_not_ready_when_no_module_works_anywhere(start_daemon: StartDaemon) -> None:
    """F29: then, and only then, a supervisor is told."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    daemon.write_tasks("import no_such_dependency\n")
    for kind in ("cpu", "io"):
        os.kill(daemon.workers(kind)[0]["pid"], signal.SIGKILL)
    seen = daemon.wait_for(
        "503",
        lambda: seen if (seen := checks(daemon))["status"] == 503 and seen["workers"]["ok"] else None,
        30,
    )
    assert seen["modules"]["detail"] == "0 of 1 work"


def test_an_interpreter_that_is_gone(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """F29: who is left works on; the reason is told; when the interpreter is there again, so is the worker."""
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(wheel_env.prefix / "pyvenv.cfg", prefix)
    (prefix / "lib").symlink_to(wheel_env.prefix / "lib")
    python = prefix / "bin" / "python"
    real = (wheel_env.prefix / "bin" / "python").resolve()
    python.symlink_to(real)
    script = (wheel_env.prefix / "bin" / "twistd").read_text()
    (prefix / "bin" / "twistd").write_text(script.replace(str(wheel_env.prefix), str(prefix)))
    (prefix / "bin" / "twistd").chmod(0o755)
    folder = tmp_path / "daemon"
    folder.mkdir()
    daemon = Daemon(WheelEnv(prefix, wheel_env.wheel), folder, ("--cpu-workers", "1"))
    with running(daemon, TASKS):
        python.unlink()
        os.kill(daemon.workers("cpu")[0]["pid"], signal.SIGKILL)
        daemon.wait_for(
            "the reason", lambda: "could not be started" in checks(daemon)["workers"]["detail"], 30
        )
        assert checks(daemon)["status"] == 200
        assert isinstance(daemon.succeeded(daemon.submit("whole_thread")["id"]), int)
        python.symlink_to(real)
        assert isinstance(daemon.succeeded(daemon.submit("whole")["id"]), int)
