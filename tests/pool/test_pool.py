"""The pool with the real workers: tasks found, jobs done, workers replaced, code exchanged, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import pytest_twisted

from jobsvc.model.frames import Begin, Message, Result
from jobsvc.model.task import TaskSpec
from jobsvc.pool.config import PoolConfig
from jobsvc.pool.generation import ModuleLoadError
from jobsvc.pool.launcher import PACKAGE_DIR
from jobsvc.pool.supervision import Pool
from jobsvc.ports import Death, Worker
from tests.pool.harness import BOOT, WAIT_S, Record, alive, reactor, start

TASKS = Path(__file__).with_name("pool_tasks.py")


class Engine(Record):
    """A listener that sends jobs by hand, with the pool it listens to."""

    def __init__(self, folder: Path, *modules: str, **more: Any) -> None:
        super().__init__()
        self.tasks: Mapping[str, TaskSpec] = {}
        self.workers: dict[str, Worker] = {}
        self.retiring: list[Worker] = []
        self.deaths: dict[str, Death] = {}
        self.pool = Pool(
            reactor(),
            self,
            PoolConfig(modules=modules, path=(str(folder),), cpu_workers=1, threads=2, loop_slots=8, **more),
            boot=BOOT,
            environ={**os.environ, "PYTHONPATH": str(PACKAGE_DIR)},
        )

    async def started(self) -> Self:
        await self.pool.start().addTimeout(WAIT_S, reactor())
        return self

    def worker(self, kind: str) -> Worker:
        return next(
            worker for worker in self.workers.values() if worker.kind == kind and worker not in self.retiring
        )

    async def run(self, kind: str, task: str, body: bytes, executor: str, no: int = 1) -> Result:
        self.worker(kind).send([start(task, no, body, executor)])
        (result,) = await self.until(lambda: [result for result in self.of(Result) if result.no == no])
        return result

    # -- WorkerListener

    def tasks_changed(self, tasks: Mapping[str, TaskSpec]) -> None:
        self.tasks = tasks

    def worker_ready(self, worker: Worker) -> None:
        assert self.tasks, "tasks come first"
        self.workers[worker.id] = worker
        self.happened()

    def worker_retiring(self, worker: Worker) -> None:
        self.retiring.append(worker)
        self.happened()

    def worker_messages(self, worker: Worker, messages: Sequence[Message]) -> None:
        self.messages += messages
        self.happened()

    def worker_died(self, worker: Worker, death: Death) -> None:
        self.deaths[worker.id] = death
        del self.workers[worker.id]
        self.happened()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pool_tasks.py").write_text(TASKS.read_text())
    return tmp_path


@pytest.fixture
def engine(folder: Path) -> Engine:
    return Engine(folder, "pool_tasks")


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest_twisted.async_yield_fixture
async def clean(engine: Engine) -> AsyncIterator[None]:
    before = descriptors_open()
    yield
    pids = [pid for row in engine.pool.workers() if (pid := row["pid"]) is not None]
    await engine.pool.stop().addTimeout(WAIT_S, reactor())
    assert engine.workers == {}
    assert not any(alive(pid) for pid in pids)
    assert descriptors_open() == before, "a descriptor has been left open"


pytestmark = pytest.mark.usefixtures("clean")


@pytest_twisted.ensureDeferred
async def test_jobs_run_on_all_three_kinds(engine: Engine) -> None:
    await engine.started()
    assert {"add", "leave", "lower", "echo"} <= set(engine.tasks)
    assert (await engine.run("cpu", "add", b'{"a":1,"b":2}', "process", 1)).body == b"3"
    assert (await engine.run("io", "lower", b'{"word":"ABC"}', "thread", 2)).body == b'"abc"'
    assert (await engine.run("command", "echo", b'{"word":"hello"}', "command", 3)).body == b'{"code":0}'
    assert engine.items() == ["hello"]
    rows = {row["kind"]: row for row in engine.pool.workers()}
    assert rows["cpu"]["id"] == f"cpu-1@{BOOT[:8]}"
    assert rows["io"]["slots"] == {"loop": 8, "thread": 2}
    assert [row["state"] for row in rows.values()] == ["ready"] * 3
    for kind in ("io", "cpu"):
        assert (rows[kind]["rss"] or 0) > 5_000_000


@pytest_twisted.ensureDeferred
async def test_native_output_belongs_to_its_job(engine: Engine) -> None:
    await engine.started()
    for no in range(1, 6):
        await engine.run("cpu", "print_natively", b'{"word":"word %d"}' % no, "process", no)
        assert engine.logs("stdout") == [f"word {n}" for n in range(1, no + 1)]


@pytest_twisted.ensureDeferred
async def test_a_worker_that_exits_is_replaced(engine: Engine) -> None:
    await engine.started()
    engine.worker("cpu").send([start("leave", 1, b'{"status":9}')])
    await engine.until(lambda: engine.deaths)
    death = engine.deaths[f"cpu-1@{BOOT[:8]}"]
    assert (death.how, death.exit and death.exit.code, death.running) == ("exit", 9, (1, 1))
    await engine.until(lambda: f"cpu-2@{BOOT[:8]}" in engine.workers)
    assert (await engine.run("cpu", "add", b'{"a":1,"b":2}', "process", 2)).body == b"3"


@pytest_twisted.ensureDeferred
async def test_a_running_attempt_is_killed_with_the_program_it_runs(engine: Engine) -> None:
    await engine.started()
    worker = engine.worker("cpu")
    worker.send([start("sleep", 1, b'{"seconds":600}')])
    await engine.until(lambda: engine.of(Begin))
    assert worker.kill(1, 1)
    await engine.until(lambda: engine.deaths)
    assert engine.deaths[worker.id].how == "killed"


@pytest_twisted.ensureDeferred
async def test_a_reload_brings_new_code_and_leaves_running_jobs_alone(engine: Engine, folder: Path) -> None:
    await engine.started()
    old = engine.worker("cpu")
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    old.send([start("read_line", 1, msgspec.json.encode({"fifo": str(fifo)}))])
    await engine.until(lambda: engine.of(Begin))
    text = TASKS.read_text().replace("return a + b", "return a * b")
    (folder / "pool_tasks.py").write_text(text + "\n\n@task\ndef extra() -> None: ...\n")
    report = await engine.pool.reload().addTimeout(WAIT_S, reactor())
    assert (report.added, report.removed, report.changed) == (["extra"], [], [])
    assert {worker.id for worker in engine.retiring} == {f"io-1@{BOOT[:8]}", f"cpu-1@{BOOT[:8]}"}
    assert (await engine.run("cpu", "add", b'{"a":5,"b":2}', "process", 2)).body == b"10"
    assert [result.no for result in engine.of(Result)] == [2], "the old job still runs"
    fifo.write_text("go on")
    await engine.until(lambda: [result for result in engine.of(Result) if result.no == 1])
    for worker in engine.retiring:
        worker.quit()
    await engine.until(lambda: len(engine.deaths) == 2)
    assert {death.how for death in engine.deaths.values()} == {"quit"}


@pytest_twisted.ensureDeferred
async def test_a_reload_of_broken_code_shows_the_traceback_and_changes_nothing(
    engine: Engine, folder: Path
) -> None:
    await engine.started()
    (folder / "pool_tasks.py").write_text("def broken(:\n")
    with pytest.raises(ModuleLoadError, match="SyntaxError"):
        await engine.pool.reload().addTimeout(WAIT_S, reactor())
    assert engine.retiring == []
    assert (await engine.run("cpu", "add", b'{"a":1,"b":2}', "process")).body == b"3"


@pytest_twisted.ensureDeferred
async def test_modules_that_cannot_be_used_end_the_start(folder: Path) -> None:
    (folder / "leaves.py").write_text("import os; os.write(2, b'bye'); os._exit(4)")
    for module, words in (("no_such_module", "no_such_module"), ("leaves", "bye")):
        engine = Engine(folder, module)
        with pytest.raises(ModuleLoadError, match=words):
            await engine.started()
        assert engine.workers == {}
        await engine.pool.stop().addTimeout(WAIT_S, reactor())
