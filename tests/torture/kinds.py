"""The kinds of jobs that a run submits, and what is known beforehand of each: its value, the ends it may come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, Literal, NamedTuple

import msgspec

CancelMode = Literal["polite", "deadline", "now"]
Upload = Literal["bulk", "atomic"]
SLOW_S: Final = (0.1, 0.8)
CANCELLED_S: Final = 30.0
"""Of a job that a client cancels once it runs: so long that only the cancel can have ended it so soon."""
DELAYED_S: Final = 60.0
"""Of a job that a client moves forward by a PATCH: likewise."""
SECRET: Final = "planted-8c1d5e"
"""How every secret of a run begins."""
OVERDUE_S: Final = 20.0
"""Far longer than its timeout (0.3 s) and the grace that a process is given (1 s)."""
OVERDUE_THREAD_S: Final = 4.0
"""The same of a thread, which is not killed: so long its retry has to wait."""


class JobSpec(msgspec.Struct, frozen=True):
    """One job to submit. `mark` is its idempotency key and stands in its arguments.

    `ends`: the final states it may come to; `value`: what its result holds, if it succeeds; `cancel`: the mode in
    which a client cancels it once it runs; `stream`: a client follows its events. `errors`: the kinds by which it may
    fail; `upload` and `batch`: it is sent with its neighbours of the same batch; `moved`: a client takes its delay
    away; `again`: a client asks for a rerun once it has failed.
    """  # fmt: skip

    mark: str
    task: str
    args: dict[str, Any]
    fields: dict[str, Any] = {}
    ends: tuple[str, ...] = ("succeeded",)
    value: int | None = None
    cancel: CancelMode | None = None
    stream: bool = False
    errors: tuple[str, ...] = ()
    upload: Upload | None = None
    batch: str = ""
    moved: bool = False
    again: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The body of its submit."""
        return {"task": self.task, "args": {"mark": self.mark, **self.args}, "key": self.mark, **self.fields}


class _Draw(NamedTuple):
    """What every kind is made of."""

    random: Random
    mark: str
    n: int
    executor: str
    seconds: float
    stream: bool

    def spec(self, task: str, fields: Mapping[str, Any] | None = None, **more: Any) -> JobSpec:
        """A job of this task; `ends` and `value` as it succeeds, if nothing else is said."""
        ends = more.pop("ends", ("succeeded",))
        args = {"n": self.n, **more.pop("args", {})}
        value = 3 * self.n + 1 if "succeeded" in ends else None
        return JobSpec(self.mark, task, args, dict(fields or {}), ends, value, **more)


def _quick(draw: _Draw) -> JobSpec:
    return draw.spec(draw.executor, stream=draw.stream)


def _slow(draw: _Draw) -> JobSpec:
    return draw.spec(draw.executor, args={"seconds": draw.seconds}, stream=draw.stream)


def _flaky(draw: _Draw) -> JobSpec:
    fields = {"retries": 3, "backoff": {"base_s": 0.2, "max_s": 1}}
    return draw.spec("flaky", fields, args={"failures": draw.random.randint(1, 3)})


def _failing(draw: _Draw) -> JobSpec:
    fields = {"retries": 1, "backoff": {"base_s": 0.1}}
    again = draw.random.random() < 0.5
    return draw.spec(
        "flaky", fields, args={"failures": 9}, ends=("failed",), errors=("task_error",), again=again
    )


def _once(draw: _Draw) -> JobSpec:
    ends = ("succeeded", "failed")
    return draw.spec("once", args={"seconds": draw.seconds}, ends=ends, errors=("lost",))


def _cancelled(draw: _Draw) -> JobSpec:
    killable = draw.executor == "on_process"
    mode: CancelMode = draw.random.choice(("polite", "deadline", "now")) if killable else "polite"
    # One of whose cancel nobody knows may come to its end: then C10 says how late that is.
    ends = ("cancelled", "succeeded")
    fields = {"timeouts": {"run": 60}}
    args = {"seconds": CANCELLED_S}
    return draw.spec(draw.executor, fields, args=args, ends=ends, cancel=mode, stream=draw.stream)


def _overdue(draw: _Draw) -> JobSpec:
    fields = {"timeouts": {"run": 0.3}, "retries": 1, "backoff": {"base_s": 0.1}}
    task, seconds = draw.random.choice((("deaf", OVERDUE_S), ("deaf_thread", OVERDUE_THREAD_S)))
    return draw.spec(task, fields, args={"seconds": seconds}, ends=("failed",), errors=("timeout",))


def _program(draw: _Draw) -> JobSpec:
    return JobSpec(draw.mark, "program", {"seconds": draw.seconds}, stream=draw.stream)


def _leaver(draw: _Draw) -> JobSpec:
    return draw.spec("leaver", args={"seconds": draw.seconds})


def _crash(draw: _Draw) -> JobSpec:
    how = draw.random.choice(("segfault", "exit", "exit_0"))
    return draw.spec("crash", args={"how": how}, ends=("failed",), errors=("crashed",))


def _flood(draw: _Draw) -> JobSpec:
    return draw.spec("flood")


def _hog(draw: _Draw) -> JobSpec:
    # Whether it is stopped from outside or an allocation is refused to it first is a matter of moments.
    return draw.spec("hog", ends=("failed",), errors=("crashed", "task_error"))


def _secretive(draw: _Draw) -> JobSpec:
    return draw.spec("secretive", args={"word": f"{SECRET}-{draw.mark}"})


def _moved(draw: _Draw) -> JobSpec:
    return draw.spec(draw.executor, {"delay_s": DELAYED_S}, moved=True)


KINDS: Final[Mapping[Callable[[_Draw], JobSpec], int]] = {
    _quick: 44, _slow: 15, _flaky: 8, _failing: 4, _once: 5, _cancelled: 5, _overdue: 2, _program: 4, _leaver: 1,
    _crash: 3, _flood: 1, _hog: 1, _secretive: 4, _moved: 3,
}  # fmt: skip
"""With their weights."""


def draw_job(random: Random, mark: str, n: int) -> JobSpec:
    """The n-th job of a run, by its mark."""
    stream = random.random() < 0.1
    seconds = round(random.uniform(*SLOW_S), 2)
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    executor = random.choice(("on_process", "on_thread", "on_loop"))
    return kind(_Draw(random, mark, n, executor, seconds, stream))
