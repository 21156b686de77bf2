"""Workers that hang in an import or grow too large, in real processes; the time is a Clock's, so nobody waits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from jobsvc.model.frames import Result
from jobsvc.pool.config import PoolConfig
from jobsvc.pool.launcher import PACKAGE_DIR
from jobsvc.pool.process import START_S
from jobsvc.pool.recycle import LOOK_S, Recycling
from jobsvc.pool.supervision import Pool
from tests.pool.harness import BOOT, WAIT_S, pause, reactor, start
from tests.pool.test_pool import Engine

TASK = "import jobsvc\n@jobsvc.task(executor='process')\ndef {name}() -> int:\n    return 7\n"
GROW = (
    "import jobsvc\nkept = []\n@jobsvc.task(executor='process')\ndef grow(mib: int) -> None:\n"
    "    kept.append(bytearray(mib << 20))\n"
)
LIMIT_BYTES = 300 << 20


class TimelessEngine(Engine):
    """One whose pool lives on a clock that only the test turns; file, exit and message come in real time."""

    def __init__(self, folder: Path, *modules: str, recycle: Recycling | None = None) -> None:
        super().__init__(folder, *modules)
        self.time = Clock()
        self.pool = Pool(
            reactor(),
            self,
            PoolConfig(
                modules=modules, path=(str(folder),), cpu_workers=1, threads=2, recycle=recycle or Recycling()
            ),
            boot=BOOT,
            environ={**os.environ, "PYTHONPATH": str(PACKAGE_DIR)},
            clock=self.time,
            monotonic=time.monotonic,
        )

    async def ready(self) -> TimelessEngine:
        """Start it."""
        await self.started()
        return self

    async def see(self, what: Callable[[], object]) -> None:
        """Wait until this is so; short pauses of the pool pass meanwhile."""
        for _ in range(int(WAIT_S / 0.02)):
            self.time.advance(0.02)
            if what():
                return
            await pause(0.02)
        raise AssertionError("it has not come to that")

    async def does(self, task: str, body: bytes) -> bytes:
        """The result of this attempt on a cpu worker."""
        self.worker("cpu").send([start(task, 1, body)])
        await self.see(lambda: self.of(Result))
        (result,) = self.of(Result)
        return result.body

    def pid(self, kind: str) -> int:
        """Of the worker of this kind."""
        (row,) = [row for row in self.pool.workers() if row["kind"] == kind]
        assert row["pid"] is not None
        return row["pid"]

    def importing(self) -> list[str | None]:
        """The modules that workers import just now."""
        return [slot.worker.loading for slot in self.pool._slots if slot.worker is not None]

    async def stopped(self) -> None:
        """End it."""
        stop = self.pool.stop(kill=True)
        await self.see(lambda: stop.called)
        await stop


@pytest_twisted.ensureDeferred
async def test_a_module_that_hangs_in_its_import(tmp_path: Path) -> None:
    """F29: after `START_S` it is left out, and the worker serves with the other one."""
    for name in ("sound", "hangs"):
        (tmp_path / f"{name}.py").write_text(TASK.format(name=name))
    engine = await TimelessEngine(tmp_path, "sound", "hangs").ready()
    (tmp_path / "hangs.py").write_text("import signal\nwhile True:\n    signal.pause()\n")
    os.kill(engine.pid("cpu"), signal.SIGKILL)
    await engine.see(lambda: "hangs" in engine.importing())
    assert {row.name for row in engine.pool.modules() if row.broken} == set()
    engine.time.advance(START_S)
    assert [row.broken.line for row in engine.pool.modules() if row.broken] == [
        f"module hangs has not loaded within {START_S:g} s: its import hangs"
    ]
    await engine.see(lambda: any(worker.kind == "cpu" for worker in engine.workers.values()))
    assert engine.worker("cpu").lacks == {"hangs"}
    assert await engine.does("sound", b"{}") == b"7"
    await engine.stopped()


@pytest.mark.parametrize("mib", [1, 400])
@pytest_twisted.ensureDeferred
async def test_a_worker_that_has_grown_too_large_is_replaced(tmp_path: Path, mib: int) -> None:
    """The memory is what the kernel says of the process; one that stays small stays."""
    (tmp_path / "grows.py").write_text(GROW)
    engine = await TimelessEngine(tmp_path, "grows", recycle=Recycling(rss_bytes=LIMIT_BYTES)).ready()
    old = engine.worker("cpu")
    await engine.does("grow", b'{"mib":%d}' % mib)
    engine.time.advance(LOOK_S)
    if mib == 1:
        assert len(engine.pool.workers()) == 3
    else:
        await engine.see(lambda: engine.retiring == [old])
        assert engine.worker("cpu") is not old
    await engine.stopped()
