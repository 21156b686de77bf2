"""Commits take time: what may come in between. Each test names the two things that meet."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from jobsvc.model.errors import Exit
from jobsvc.ports import Death
from tests.engine.fakes import Slow, at_once, error_of, result_of


def test_claim_and_death_of_the_worker(slow: Slow) -> None:
    rig, store = slow
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    [submitted] = result_of(answer)
    job = submitted.job
    assert job is not None
    worker = rig.worker()
    assert store.kinds == ["claim"]
    worker.lose()
    store.settle_down()
    assert worker.handed == {}
    assert rig.state(job) == ("queued", "recalled")
    assert rig.get(job).attempt == 0
    assert rig.free()
    other = rig.worker()
    store.settle_down()
    assert other.start_of(job).attempt == 1


def test_submit_and_death_of_the_worker(slow: Slow) -> None:
    rig, store = slow
    worker, other = rig.worker(), rig.worker("io")
    answer = rig.engine.submit([rig.job("add", {"a": 1}), rig.job("thumbnail")])
    worker.lose()
    store.settle_down()
    first, second = (submitted.job for submitted in result_of(answer))
    assert first is not None
    assert second is not None
    assert rig.state(first) == ("queued", "recalled")
    assert other.has(second)
    assert rig.engine.board.running["add"] == 0


def test_submit_and_reload(slow: Slow) -> None:
    """The old worker takes nothing more; the job waits for the new one, or for its task to come back."""
    rig, store = slow
    old = rig.worker()
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    specs = dict(rig.engine.tasks)
    rig.reload({name: spec for name, spec in specs.items() if name != "add"})
    rig.engine.worker_retiring(old)
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    assert rig.state(submitted.job) == ("queued", "no_such_task")
    assert old.handed == {}
    new = rig.worker()
    rig.reload(specs)
    store.settle_down()
    assert new.has(submitted.job)


def test_claim_and_retirement(slow: Slow) -> None:
    """A worker that is replaced by its like runs what the claim brings, and then goes: no second claim."""
    rig, store = slow
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    worker = rig.worker()
    rig.engine.worker_retiring(worker)
    assert worker.quits == 0
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    assert (worker.recalls, worker.quits, worker.has(submitted.job)) == (0, 0, True)
    worker.succeed(submitted.job)
    store.settle_down()
    assert worker.quits == 1
    assert (rig.get(submitted.job).epoch, rig.get(submitted.job).attempt) == (1, 1)


def test_a_placed_submit_and_retirement(slow: Slow) -> None:
    """The same for a job whose slot was taken at its submit: the worker waits for the commit."""
    rig, store = slow
    worker = rig.worker()
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    rig.engine.worker_retiring(worker)
    assert worker.quits == 0
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    assert worker.has(submitted.job)
    worker.succeed(submitted.job)
    store.settle_down()
    assert (worker.quits, rig.get(submitted.job).epoch) == (1, 1)


def test_claim_and_reload(slow: Slow) -> None:
    """On new code nothing begins on the old: what the claim brings goes back, and then the worker goes."""
    rig, store = slow
    rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    worker = rig.worker()
    rig.reload(dict(rig.engine.tasks))
    rig.engine.worker_retiring(worker)
    assert worker.quits == 0
    store.settle_down()
    assert worker.handed == {}
    assert worker.quits == 1


def test_an_empty_claim_and_retirement(slow: Slow) -> None:
    rig, store = slow
    answer = rig.engine.submit([rig.job("thumbnail")])
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    cancelled = rig.cancel(submitted.job)
    worker = rig.worker("io")
    assert store.kinds == ["move", "claim"]
    rig.engine.worker_retiring(worker)
    store.settle_down()
    assert result_of(cancelled)[1]
    assert worker.quits == 1


def test_claim_and_drain(slow: Slow) -> None:
    """Nothing starts any more, and the drain is not over before the claim is undone."""
    rig, store = slow
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    worker = rig.worker()
    rig.engine.stop_claiming()
    idle = Deferred.fromCoroutine(rig.engine.idle())
    assert not idle.called
    store.pump()
    assert not idle.called
    store.settle_down()
    assert idle.called
    assert worker.handed == {}
    assert rig.state(submitted.job) == ("queued", "recalled")


def test_submit_and_drain(slow: Slow) -> None:
    """Accepted means kept; it starts after the restart."""
    rig, store = slow
    worker = rig.worker()
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    rig.engine.stop_claiming()
    idle = Deferred.fromCoroutine(rig.engine.idle())
    assert not idle.called
    store.settle_down()
    assert idle.called
    [submitted] = result_of(answer)
    assert submitted.job is not None
    assert worker.handed == {}
    assert rig.state(submitted.job)[0] == "queued"


def test_replayed_submit_and_drain(slow: Slow) -> None:
    rig, store = slow
    rig.engine.submit([rig.job("thumbnail", key="k")])
    store.settle_down()
    rig.worker("cpu")
    worker = rig.worker("io", {"thread": 1})
    store.settle_down()
    worker.handed.clear()
    rig.engine.submit([rig.job("thumbnail", key="k")])
    rig.engine.stop_claiming()
    store.settle_down()
    assert rig.engine.board.running["thumbnail"] == 1


def test_result_and_cancel(slow: Slow) -> None:
    """The result came while the ask was being written: it succeeded, and the numbers of the events have no hole."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    store.held = True
    cancelled = rig.cancel(job)
    worker.succeed(job, b"1")
    assert store.kinds == ["step"]
    store.settle_down()
    assert result_of(cancelled)[1] is False
    assert rig.state(job) == ("succeeded", None)
    assert rig.get(job).result == b"1"
    assert rig.states(job) == ["running", "stopping", "succeeded"]
    assert worker.cancels == []
    assert rig.free()


def test_result_and_cancel_and_death(slow: Slow) -> None:
    """The first end counts: it had returned before its worker died."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    store.held = True
    rig.cancel(job)
    worker.succeed(job, b"1")
    worker.lose()
    store.settle_down()
    assert (rig.state(job), rig.get(job).result) == (("succeeded", None), b"1")


def test_death_and_cancel(slow: Slow) -> None:
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.begin(job)
    store.held = True
    rig.cancel(job)
    worker.crash()
    store.settle_down()
    assert rig.state(job) == ("cancelled", "cancel_asked")
    assert rig.free()


def test_settle_and_cancel(slow: Slow) -> None:
    """The answer waits for the truth."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    store.held = True
    worker.succeed(job)
    cancelled = rig.cancel(job)
    assert store.kinds == ["settle"]
    assert not cancelled.called
    store.settle_down()
    assert error_of(cancelled).code == "conflict"
    assert rig.state(job)[0] == "succeeded"


def test_failure_with_tries_left_and_cancel(slow: Slow) -> None:
    """It goes back to waiting, and there it is cancelled."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("flaky")
    worker.begin(job)
    store.held = True
    worker.fail(job)
    cancelled = rig.cancel(job)
    store.settle_down()
    assert result_of(cancelled)[1] is True
    assert rig.state(job) == ("cancelled", "cancel_asked")
    assert rig.states(job) == ["running", "retrying", "cancelled"]


def test_claim_and_cancel(slow: Slow) -> None:
    """Whichever the store applies first; no attempt starts after the outcome."""
    rig, store = slow
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    worker = rig.worker()
    cancelled = rig.cancel(submitted.job)
    assert store.kinds == ["claim", "move"]
    store.settle_down()
    assert result_of(cancelled)[1] is True
    assert worker.handed == {}
    assert rig.state(submitted.job)[0] == "cancelled"
    assert rig.free()


def test_committed_claim_and_cancel(slow: Slow) -> None:
    rig, store = slow
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    worker = rig.worker()
    store.pump()
    cancelled = rig.cancel(submitted.job)
    store.settle_down()
    assert result_of(cancelled)[1] is False
    assert rig.state(submitted.job) == ("stopping", "cancel_asked")
    worker.give_back(submitted.job)
    store.settle_down()
    assert rig.state(submitted.job)[0] == "cancelled"


def test_two_cancels_at_once(slow: Slow) -> None:
    """Both are answered once it is true, and it is asked once."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("add", {"a": 1})
    worker.begin(job)
    store.held = True
    first, second = rig.cancel(job), rig.cancel(job, "now")
    assert not first.called
    assert not second.called
    store.settle_down()
    assert result_of(first)[0].state == result_of(second)[0].state == "stopping"
    assert len(worker.cancels) == 1
    rig.clock.advance(0)
    assert len(worker.killed) == 1


@pytest.mark.parametrize("end", ["gives up", "returns", "dies", "snoozes"])
def test_timeout_and_cancel_and_end(slow: Slow, end: str) -> None:
    """The cancel is on the disk before it is answered, whatever the job was stopping for; its end waits for that."""
    rig, store = at_once(slow)
    worker = rig.worker()
    job = rig.submit("watched", timeouts={"idle": None})
    worker.begin(job)
    store.held = True
    rig.clock.advance(5)
    assert store.kinds == ["step"]
    cancelled, again = rig.cancel(job), rig.cancel(job, "now")
    store.pump()
    assert not cancelled.called
    assert store.kinds == ["step"], "one for both cancels"
    {
        "gives up": lambda: worker.fail(job, "cancelled"),
        "returns": lambda: worker.succeed(job, b"1"),
        "dies": worker.crash,
        "snoozes": lambda: worker.snooze(job, 60),
    }[end]()
    assert store.kinds == ["step"]
    store.pump()
    assert [result_of(answer)[0].reason for answer in (cancelled, again)] == ["cancel_asked"] * 2
    store.settle_down()
    assert rig.state(job)[0] == ("succeeded" if end == "returns" else "cancelled")
    assert rig.states(job)[:3] == ["running", "stopping", "stopping"]
    assert [event.seq for event in rig.read(job)] == [1, 2, 3, 4, 5]
    assert rig.free()


def test_a_requeue_and_the_next_claim_in_one_group(slow: Slow) -> None:
    """The next attempt comes into memory before the last one leaves it, and stays there."""
    rig, store = at_once(slow)
    worker = rig.worker("io", {"thread": 1})
    job = rig.submit("thumbnail")
    other = rig.submit("thumbnail")
    worker.begin(job)
    second = rig.worker("io", {"thread": 1})
    assert second.has(other)
    third = rig.submit("thumbnail")
    store.held = True
    second.succeed(other)  # settle, then a claim for the free slot
    worker.lose()  # and in the same group the step back of the first
    store.settle_down()
    running = [each for each in (job, third) if rig.state(each)[0] == "running"]
    assert len(running) == 1
    assert set(rig.engine.board.active) == {running[0].id}


def test_a_reload_and_an_old_claim_that_comes_back_empty(slow: Slow) -> None:
    """It proves nothing of what the new tasks have waiting."""
    rig, store = slow
    answer = rig.engine.submit([rig.job("add", {"a": 1})])
    store.settle_down()
    [submitted] = result_of(answer)
    assert submitted.job is not None
    rig.cancel(submitted.job)
    worker = rig.worker()
    claim = store.kinds
    assert claim == ["move", "claim"]
    rig.reload(dict(rig.engine.tasks))
    later = rig.engine.submit([rig.job("add", {"a": 2})])
    store.settle_down()
    [queued] = result_of(later)
    assert queued.job is not None
    assert worker.has(queued.job)


def test_one_key_twice_in_one_group(slow: Slow) -> None:
    """One job, one attempt; the slot of the other is free again."""
    rig, store = slow
    worker = rig.worker("io", {"thread": 4})
    answers = [rig.engine.submit([rig.job("thumbnail", key="k")]) for _ in range(2)]
    store.settle_down()
    [[first], [second]] = map(result_of, answers)
    assert first.job is not None
    assert second.job is not None
    assert (first.job.id, first.replayed, second.replayed) == (second.job.id, False, True)
    assert len(worker.handed) == 1
    worker.succeed(first.job)
    store.settle_down()
    assert rig.free()


@pytest.mark.parametrize("how", ["killed", "quit", "lost"])
def test_drained_and_dead(slow: Slow, how: str) -> None:
    rig, store = at_once(slow)
    worker = rig.worker("io")
    job, once = rig.submit("thumbnail"), rig.submit("thumbnail", on_lost="fail")
    worker.begin(job)
    worker.begin(once)
    rig.engine.stop_claiming()
    store.held = True
    rig.engine.stop_all()
    worker.die(Death(how, Exit(signal=9, name="SIGKILL")))  # type: ignore[arg-type]
    idle = Deferred.fromCoroutine(rig.engine.idle())
    store.settle_down()
    assert idle.called
    assert rig.state(job) == ("queued", "drained")
    assert rig.get(job).attempt == 0
    assert (rig.state(once)[0], rig.error(once).kind) == ("failed", "lost")
