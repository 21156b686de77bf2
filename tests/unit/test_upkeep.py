"""Reading again: every hook has its turn, what fails is told and the old goes on; early and late signals harm none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from jobsvc.http.certificates import BadCertificate
from jobsvc.model.errors import JobsvcError
from jobsvc.runtime.systemd import Notifier
from jobsvc.runtime.watchdog import Stall
from jobsvc.upkeep import Upkeep
from tests.conftest import FlushFailures
from tests.contract.store_harness import PumpedReactor


class Scene:
    """The upkeep of a daemon that is nothing else."""

    def __init__(self, folder: Path) -> None:
        self.reactor = PumpedReactor()
        self.told: list[str] = []
        self.reloads: list[Deferred[Any]] = []
        self.upkeep = Upkeep(
            self.reactor.provided,
            None,
            None,
            Notifier("/manager", None, self.tell),
            self.reload,
            lambda: {"jobs": {"active": 1}},
            folder,
            lambda: 1_795_000_000_000_000,
        )

    def tell(self, data: bytes) -> None:
        self.told.append(data.decode().split("\n")[0])

    def reload(self) -> Deferred[Any]:
        self.reloads.append(Deferred())
        return self.reloads[-1]


def test_hooks_are_run_in_order_whatever_fails(tmp_path: Path, flush_failures: FlushFailures) -> None:
    """At once or later; one that raises and one that fails are told, the others are read."""
    upkeep = Scene(tmp_path).upkeep
    done: list[str] = []

    def certificate() -> Deferred[str | None]:
        done.append("certificate")
        return succeed("until 2027")

    upkeep.on_hangup += [
        ("certificate", certificate),
        ("broken", lambda: str(1 // 0)),
        ("gone", lambda: fail(FileNotFoundError("no such file"))),
        ("certificates", lambda: fail(BadCertificate("k.pem cannot be read"))),
        ("audit", lambda: done.append("audit")),
    ]
    failed: list[list[str]] = []
    Deferred.fromCoroutine(upkeep.reread()).addCallback(failed.append)
    assert done == ["certificate", "audit"]
    assert [words.partition(":")[0] for words in failed[0]] == ["broken", "gone", "certificates"]
    # What the operator has to mend is told without a traceback.
    assert len(flush_failures(ZeroDivisionError, FileNotFoundError)) == 2
    assert flush_failures(BadCertificate) == []


def test_a_hangup_reloads_and_the_manager_is_told(tmp_path: Path) -> None:
    """Reloading, and ready again when it is done; what comes meanwhile is the same one."""
    scene = Scene(tmp_path)
    scene.upkeep.ready("ready on x")
    scene.upkeep.hangup()
    scene.upkeep.hangup()
    assert (scene.told, len(scene.reloads)) == (["READY=1", "RELOADING=1"], 1)
    scene.reloads[0].callback(None)
    assert scene.told[2:] == ["READY=1"]
    scene.upkeep.hangup()
    scene.reloads[1].errback(JobsvcError("conflict", "the new code does not load"))
    assert scene.told[3:] == ["RELOADING=1", "READY=1"]


def test_a_store_that_hangs_is_missed_by_the_manager(tmp_path: Path) -> None:
    """F66: the reactor turns, but nothing is stored: the watchdog of the service manager hears nothing."""
    scene = Scene(tmp_path)
    scene.upkeep.notifier.watchdog_s = 30.0
    scene.upkeep._reactor = clock = Clock()
    stored = [True]
    scene.upkeep.checks.add("store", lambda: (stored[0], "as the test says"))
    scene.upkeep.ready("x")
    clock.advance(15)
    assert scene.told == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    stored[0] = False
    clock.pump([15] * 4)
    assert len(scene.told) == 3
    stored[0] = True
    clock.advance(15)
    assert scene.told[3:] == ["WATCHDOG=1"]
    scene.upkeep.notifier.close()


def test_an_unexpected_failure_ends_nothing(tmp_path: Path, flush_failures: FlushFailures) -> None:
    """It is logged, and the next SIGHUP has its turn."""
    scene = Scene(tmp_path)
    scene.upkeep.ready("x")
    scene.upkeep.hangup()
    scene.reloads[0].errback(RuntimeError("bug"))
    assert len(flush_failures(RuntimeError)) == 1
    scene.upkeep.hangup()
    assert len(scene.reloads) == 2
    scene.reloads[1].callback(None)


def test_early_and_late(tmp_path: Path) -> None:
    """F65: before it is ready a SIGHUP is kept; in a stop nothing is reloaded, and the manager is not told "ready"."""
    scene = Scene(tmp_path)
    scene.upkeep.hangup()
    scene.upkeep.hangup()
    assert scene.reloads == []
    scene.upkeep.ready("x")
    assert len(scene.reloads) == 1
    scene.upkeep.stopping()
    scene.reloads[0].errback(JobsvcError("draining", "The daemon is stopping."))
    scene.upkeep.hangup()
    assert len(scene.reloads) == 1
    assert scene.told == ["READY=1", "RELOADING=1", "STOPPING=1"]


def test_a_dump_is_written_by_a_thread(tmp_path: Path) -> None:
    """And when it cannot be, that is all."""
    scene = Scene(tmp_path)
    scene.upkeep.dump()
    scene.reactor.wait(scene.upkeep._threads.run(lambda: None))
    (path,) = tmp_path.glob("dump-*.txt")
    assert "active: 1" in path.read_text()
    scene.upkeep.dump()  # the same moment: the name is taken
    scene.reactor.wait(Deferred.fromCoroutine(scene.upkeep.end()))
    assert len(list(tmp_path.glob("dump-*.txt"))) == 1


@pytest.mark.parametrize("ago_s", [1.0, 1e6])
def test_stalls_are_told_for_a_while(tmp_path: Path, ago_s: float) -> None:
    """`/readyz?verbose` shows it; it does not make the daemon unready."""
    from time import monotonic

    upkeep = Scene(tmp_path).upkeep
    upkeep.watchdog.last = Stall(monotonic() - ago_s, 0.2, (), "")
    upkeep.watchdog.turns.stalls = 3
    (check,) = upkeep.checks.ask()
    assert (check.name, check.ok, check.decides) == ("reactor", ago_s > 60, False)
    assert "3 stalls over 50 ms" in check.detail
