"""An envelope and a policy become a job, or a refusal that names the field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jobsvc.engine.engine import EngineConfig
from jobsvc.model import limits
from jobsvc.model.clock import time_text
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Submit, policy_of
from jobsvc.model.task import Backoff, Timeouts
from tests.engine.fakes import Rig


def refusal(rig: Rig, task: str, args: object = None, **fields: Any) -> tuple[str, str]:
    """(code, pointer) of what is refused."""
    with pytest.raises(JobsvcError) as info:
        rig.job(task, args, **fields)
    [error] = info.value.context["errors"]
    assert error["detail"]
    assert info.value.detail.startswith(error["pointer"])
    return info.value.code, error["pointer"]


def test_the_policy_comes_from_the_task(rig: Rig) -> None:
    job = rig.job("watched")
    policy = policy_of(job.policy)
    assert (policy.max_attempts, policy.timeouts, policy.on_lost) == (2, Timeouts(run=5.0, idle=2.0), "retry")
    assert rig.job("watched").policy is job.policy  # one text for all jobs of the task


def test_the_envelope_changes_what_it_names_and_nothing_else(rig: Rig) -> None:
    job = rig.job(
        "watched", timeouts={"idle": None, "total": 60}, retries=4, backoff={"max_s": 9}, on_lost="fail"
    )
    policy = policy_of(job.policy)
    assert policy.timeouts == Timeouts(run=5.0, idle=None, total=60.0)
    assert (policy.max_attempts, policy.backoff, policy.on_lost) == (
        5,
        Backoff(limits.BACKOFF_BASE_S, 9.0),
        "fail",
    )


def test_arguments_travel_as_they_came(rig: Rig) -> None:
    submit = msgspec.json.decode(b'{"task":"add","args":{"b" : 2,  "a":1.0e0}}', type=Submit)
    assert rig.engine.prepare(submit, "default").args == b'{"b" : 2,  "a":1.0e0}'
    assert rig.job("add", [1, 2]).args == b"[1,2]"
    assert rig.job("quick").args == b"{}"


def test_each_refusal_names_its_field(rig: Rig) -> None:
    assert refusal(rig, "nothing") == ("no_such_task", "/task")
    assert refusal(rig, "add", {"a": "x"}) == ("invalid_args", "/args/a")
    assert refusal(rig, "add", {"a": 1, "z": 1}) == ("invalid_args", "/args/z")
    assert refusal(rig, "add")[0] == "invalid_args"
    assert refusal(rig, "quick", run_at="2026-01-01T00:00:00Z", delay_s=1) == ("invalid_field", "/delay_s")
    assert refusal(rig, "quick", run_at="2999-01-01T00:00:00Z") == ("invalid_field", "/run_at")
    assert refusal(rig, "quick", expires_at="2020-01-01T00:00:00Z") == ("invalid_field", "/expires_at")
    soon = time_text(rig.now_us() + 1_000_000)
    assert refusal(rig, "quick", delay_s=60, expires_at=soon) == ("invalid_field", "/expires_at")
    assert refusal(rig, "quick", key="a", header="b") == ("invalid_field", "/key")
    assert refusal(rig, "quick", header="") == ("invalid_field", "/key")
    assert refusal(rig, "quick", header="x" * (limits.KEY_MAX_CHARS + 1)) == ("invalid_field", "/key")


@pytest.mark.parametrize(
    ("labels", "pointer"),
    [
        ({f"k{n}": "v" for n in range(limits.LABELS_MAX + 1)}, "/labels"),
        ({"": "v"}, "/labels/"),
        ({"1st": "v"}, "/labels/1st"),
        ({"a/b~c": "v"}, "/labels/a~1b~0c"),
        ({"ä": "v"}, "/labels/ä"),
        ({"k" * (limits.LABEL_KEY_MAX_CHARS + 1): "v"}, "/labels/" + "k" * (limits.LABEL_KEY_MAX_CHARS + 1)),
        ({"k": "v" * (limits.LABEL_VALUE_MAX_CHARS + 1)}, "/labels/k"),
        ({"k": "a\nb"}, "/labels/k"),
        ({"k": "a\x7fb"}, "/labels/k"),
        ({"k": "a\x85b"}, "/labels/k"),
    ],
)
def test_labels_keep_their_rules(rig: Rig, labels: dict[str, str], pointer: str) -> None:
    assert refusal(rig, "quick", labels=labels) == ("invalid_field", pointer)


def test_good_labels_are_kept(rig: Rig) -> None:
    labels = {
        "_a": "",
        "team.name-1": "Größe \u00a0 ✓",
        "k" * limits.LABEL_KEY_MAX_CHARS: "v" * limits.LABEL_VALUE_MAX_CHARS,
    }
    assert msgspec.json.decode(rig.job("quick", labels=labels).labels) == labels


def test_arguments_have_a_limit_that_the_operator_sets() -> None:
    rig = Rig(config=EngineConfig(args_max_bytes=100))
    assert len(rig.job("thumbnail", {"path": "x" * 80}).args or b"") > 80
    assert refusal(rig, "thumbnail", {"path": "x" * 100}) == ("too_large", "/args")
    rig.close()


def test_the_same_body_is_known_by_its_meaning(rig: Rig) -> None:
    """Order of members and the place of the key do not matter; every other field does."""
    base = rig.job("add", {"a": 1, "b": 2}, key="k", labels={"x": "1", "y": "2"})
    same = rig.job("add", {"b": 2, "a": 1}, header="k", labels={"y": "2", "x": "1"})
    assert base.key_hash == same.key_hash
    assert (base.key, same.key) == ("k", "k")
    others = [
        rig.job("add", {"a": 1, "b": 3}, key="k", labels={"x": "1", "y": "2"}),
        rig.job("add", {"a": 1, "b": 2}, key="k"),
        rig.job("add", {"a": 1, "b": 2}, key="k", labels={"x": "1", "y": "2"}, priority=1),
        rig.job("add", {"a": 1, "b": 2}, key="k", labels={"x": "1", "y": "2"}, delay_s=1),
    ]
    assert base.key_hash not in {job.key_hash for job in others}
    assert rig.job("quick").key_hash is None
