"""A write of an attempt that its fence refuses: counted by reason, and logged with job, epoch and owner."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import capturedLogs

from jobsvc.model.events import Chunk
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job
from jobsvc.ports import Append, WriteRefusal
from tests.contract.store_harness import NOW, Held, end_of, step_of


def chunk_of(job: Job, **fields: Any) -> Append:
    """One line of log of an attempt."""
    owner = fields.pop("owner", job.owner)
    usual: dict[str, Any] = {
        "no": job.no,
        "seq": job.seq + 1,
        "count": 1,
        "kind": "log",
        "epoch": job.epoch,
        "at": NOW,
        "body": b"1",
    }
    return Append(Chunk(**(usual | fields)), owner)


def attempt(held: Held, reason: WriteRefusal) -> tuple[Job, dict[str, Any]]:
    """A job as its worker knows it, and what is wrong in the write it will send."""
    job = held.running()
    wrong: dict[str, Any] = {}
    if reason == "gone":
        assert held(held.store.settle([end_of(job)])) == [True]
        assert held(held.store.delete(job.id))
    elif reason == "epoch":
        assert held(held.store.step([step_of(job, "queued")])) == [True]
        held.claimed()
    elif reason == "final":
        assert held(held.store.settle([end_of(job)])) == [True]
    elif reason == "state":
        assert held(held.store.step([step_of(job, "queued")])) == [True]
    else:
        wrong["owner"] = "cpu-9"
    return job, wrong


@pytest.mark.parametrize("what", ["settle", "step", "append"])
@pytest.mark.parametrize("reason", ["gone", "epoch", "final", "state", "owner"])
def test_each_refusal_has_its_reason(held: Held, reason: WriteRefusal, what: str) -> None:
    """Beside a write that is not refused, whatever kind of write it is; nothing of the refused one is stored."""
    job, wrong = attempt(held, reason)
    good = held.running(task="other")
    before = held(held.store.get(job.id))
    with capturedLogs() as events:
        if what == "settle":
            done = held(held.store.settle([end_of(job, **wrong), end_of(good)]))
        elif what == "step":
            done = held(held.store.step([step_of(job, "retrying", **wrong), step_of(good, "retrying")]))
        else:
            done = held(held.store.append([chunk_of(job, **wrong), chunk_of(good)]))
    assert done == [False, True]
    assert {name: count for name, count in held.store.refusals.items() if count} == {reason: 1}
    (told,) = (event for event in events if event.get("action") == "write_refused")
    named = {name: told[name] for name in ("what", "job", "no", "epoch", "owner", "reason")}
    assert named == {
        "what": what,
        "job": None if reason == "gone" else id_text(job.id),
        "no": job.no,
        "epoch": job.epoch,
        "owner": wrong.get("owner", "cpu-1"),
        "reason": reason,
    }
    assert held(held.store.get(job.id)) == before


def test_a_state_that_the_table_does_not_lead_from(held: Held) -> None:
    """The attempt is the right one, but a running job must be seen to stop before it is cancelled."""
    job = held.running()
    assert held(held.store.settle([end_of(job, "cancelled")])) == [False]
    assert held.store.refusals["state"] == 1


def test_nothing_is_counted_of_writes_that_pass(held: Held) -> None:
    """Every reason is there from the start, at 0: a metric that comes only with the trouble is easily missed."""
    job = held.running()
    assert held(held.store.append([chunk_of(job)])) == [True]
    assert held(held.store.settle([end_of(job, seq=job.seq + 2)])) == [True]
    assert held.store.refusals == dict.fromkeys(("gone", "epoch", "final", "state", "owner"), 0)
