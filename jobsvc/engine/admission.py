"""F2: admission: a client's envelope and a task's policy become a job, or a refusal that names the field.

Nothing is stored here. The arguments are decoded only to be checked; the bytes that travel on are the client's.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from unicodedata import category

import msgspec
from msgspec import UNSET

from jobsvc.engine.board import Board, TaskState
from jobsvc.model import limits
from jobsvc.model.clock import named_time_us
from jobsvc.model.errors import JobsvcError, invalid_args, invalid_field
from jobsvc.model.ids import id_text
from jobsvc.model.job import BackoffIn, Job, Submit, TimeoutsIn, policy_of
from jobsvc.model.sealing import KeyRing, SecretUnreadable
from jobsvc.model.task import Backoff, Policy, Timeouts
from jobsvc.model.text import has_break
from jobsvc.model.types import ArgsError
from jobsvc.model.typetree import TypeNode

_NO_LABELS = b"{}"
_NO_ARGS = b"{}"


class Admission:
    """Turns envelopes into jobs.

    Args:
        new_id: makes the id of a job that is made at that microsecond.
        args_max_bytes: largest arguments, in bytes of JSON text.
    """

    def __init__(
        self, board: Board, new_id: Callable[[int], bytes], now_us: Callable[[], int], args_max_bytes: int
    ) -> None:
        self._board = board
        self._new_id = new_id
        self._now_us = now_us
        self._args_max_bytes = args_max_bytes

    def prepare(self, submit: Submit, tenant: str, key_header: str | None = None) -> Job:
        """The job that `submit` asks for, not stored yet.

        Args:
            key_header: the Idempotency-Key of the request, if it had one.

        Raises:
            JobsvcError: no_such_task, invalid_args, invalid_field, too_large; the pointer names the field.
        """
        task = self._board.tasks.get(submit.task)
        if task is None:
            raise JobsvcError(
                "no_such_task",
                f"/task: there is no task {submit.task!r}; GET /v1/tasks lists them",
                errors=[{"pointer": "/task", "detail": "no such task"}],
            )
        spec = task.spec
        args = _NO_ARGS if submit.args is UNSET else bytes(submit.args)
        self.check_args(task, args)
        if has_break(args):
            args = msgspec.json.format(args, indent=-1)
        now = self._now_us()
        job = Job(
            id=self._new_id(now),
            tenant=tenant,
            task=spec.name,
            executor=spec.executor,
            queue=spec.queue if submit.queue is UNSET else submit.queue,
            priority=spec.priority if submit.priority is UNSET else submit.priority,
            created_at=now,
            policy=_policy(task, submit),
            labels=_NO_LABELS if submit.labels is UNSET else labels_text(submit.labels),
            args=args,
        )
        if task.secrets is not None:
            job.args = self._ring.seal(task.secrets, args, job.id)
        keyed = submit.key is not UNSET or key_header is not None
        if submit.run_at is not UNSET or submit.delay_s is not UNSET or submit.expires_at is not UNSET:
            _times(job, submit, now)
            if _is_late(job):
                if not keyed:
                    raise late(job)
                job.state = "expired"  # the store looks for the job of its key, and stores none
        _bound_by_total(job, now)
        if keyed:
            job.key = _key(submit, key_header)
            job.key_hash = fingerprint(submit)
            if task.secrets is not None:
                job.key_hash = self._ring.fingerprint(job.key_hash)
        return job

    def again(self, old: Job) -> Job:
        """A new job with the spec of `old`, to run at once. Raises as `prepare` when the task is gone or another."""
        task = self._board.tasks.get(old.task)
        if task is None:
            raise JobsvcError("no_such_task", f"there is no task {old.task!r} any more")
        args = old.args if old.args is not None else _NO_ARGS
        if task.secrets is not None:
            args = self._unsealed(task.secrets, args, old)
        self.check_args(task, args)
        now = self._now_us()
        job_id = self._new_id(now)
        if task.secrets is not None:
            args = self._ring.seal(task.secrets, args, job_id)
        job = Job(
            id=job_id, tenant=old.tenant, task=old.task, executor=task.spec.executor, queue=old.queue,
            priority=old.priority, created_at=now, policy=old.policy, labels=old.labels, args=args,
            parent=old.parent, rerun_of=old.id,
        )  # fmt: skip
        _bound_by_total(job, now)
        return job

    @property
    def _ring(self) -> KeyRing:
        ring = self._board.ring
        assert ring is not None  # who composes an engine for tasks with secrets gives it one
        return ring

    def _unsealed(self, node: TypeNode, args: bytes, old: Job) -> bytes:
        try:
            return self._ring.unseal(node, args, old.id)
        except SecretUnreadable as error:
            raise JobsvcError(
                "conflict", f"job {id_text(old.id)} cannot be submitted again: {error}", job=id_text(old.id)
            ) from None

    def check_args(self, task: TaskState, args: bytes) -> None:
        """Raise unless `args`, a JSON text, fits the signature of `task`."""
        if len(args) > self._args_max_bytes:
            raise JobsvcError(
                "too_large",
                f"/args: {len(args)} bytes; at most {self._args_max_bytes} (the daemon's --args-max raises it)",
                errors=[{"pointer": "/args", "detail": "too large"}],
            )
        try:
            task.check(args)
        except ArgsError as error:
            raise invalid_args(f"/args{error.pointer}", error.detail) from None


def _policy(task: TaskState, submit: Submit) -> bytes:
    """The policy text: the task's own, the very same object, unless the envelope says otherwise."""
    if (
        submit.timeouts is UNSET
        and submit.retries is UNSET
        and submit.backoff is UNSET
        and submit.on_lost is UNSET
    ):
        return task.policy_text
    base = task.spec.policy
    return msgspec.json.encode(
        Policy(
            max_attempts=base.max_attempts if submit.retries is UNSET else submit.retries + 1,
            backoff=base.backoff if submit.backoff is UNSET else _backoff(base.backoff, submit.backoff),
            on_lost=base.on_lost if submit.on_lost is UNSET else submit.on_lost,
            timeouts=base.timeouts
            if submit.timeouts is UNSET
            else timeouts_over(base.timeouts, submit.timeouts),
        )
    )


def timeouts_over(base: Timeouts, given: TimeoutsIn) -> Timeouts:
    """`base` with what is given in its place."""
    return Timeouts(
        run=base.run if given.run is UNSET else given.run,
        idle=base.idle if given.idle is UNSET else given.idle,
        total=base.total if given.total is UNSET else given.total,
    )


def _backoff(base: Backoff, given: BackoffIn) -> Backoff:
    base_s = base.base_s if given.base_s is UNSET else given.base_s
    max_s = base.max_s if given.max_s is UNSET else given.max_s
    if max_s < base_s:
        field = "base_s" if given.max_s is UNSET else "max_s"
        raise invalid_field(f"/backoff/{field}", f"max_s ({max_s:g}) is less than base_s ({base_s:g})")
    return Backoff(base_s=base_s, max_s=max_s)


def labels_text(labels: dict[str, str]) -> bytes:
    """The stored text of labels that keep the rules of design section 8."""
    if len(labels) > limits.LABELS_MAX:
        raise invalid_field("/labels", f"{len(labels)} labels; at most {limits.LABELS_MAX}")
    for key, value in labels.items():
        pointer = f"/labels/{key.replace('~', '~0').replace('/', '~1')}"
        named = key[:1].isascii() and (key[:1].isalpha() or key[:1] == "_")
        if not named or not all(c.isascii() and (c.isalnum() or c in "_.-") for c in key):
            raise invalid_field(
                pointer, "a label's key is a name: letters, digits, `_.-`, starting with a letter or `_`"
            )
        if len(key) > limits.LABEL_KEY_MAX_CHARS:
            raise invalid_field(pointer, f"a label's key has at most {limits.LABEL_KEY_MAX_CHARS} characters")
        if len(value) > limits.LABEL_VALUE_MAX_CHARS:
            raise invalid_field(
                pointer, f"a label's value has at most {limits.LABEL_VALUE_MAX_CHARS} characters"
            )
        if not value.isprintable() and any(category(c) == "Cc" for c in value):
            raise invalid_field(pointer, "control characters are not allowed in a label's value")
    return msgspec.json.encode(labels)


def _times(job: Job, submit: Submit, now: int) -> None:
    """Set run_at, due_at, expires_at and the first state."""
    if submit.run_at is not UNSET and submit.delay_s is not UNSET:
        raise invalid_field("/delay_s", "give run_at or delay_s, not both")
    if submit.run_at is not UNSET:
        job.run_at = named_time_us("/run_at", submit.run_at)
    elif submit.delay_s is not UNSET:
        job.run_at = now + int(submit.delay_s * 1_000_000)
    if job.run_at is not None:
        if job.run_at - now > limits.DURATION_MAX_S * 1e6:
            raise invalid_field("/run_at", "more than a year ahead")
        if job.run_at > now:
            job.state, job.reason, job.due_at = "scheduled", "run_at", job.run_at
    if submit.expires_at is not UNSET:
        job.expires_at = named_time_us("/expires_at", submit.expires_at)


def _is_late(job: Job) -> bool:
    """Whether it could never run. A submit that was in time comes late when it is repeated after a lost reply."""
    return job.expires_at is not None and job.expires_at <= max(job.created_at, job.run_at or 0)


def late(job: Job) -> JobsvcError:
    """The refusal of such a job."""
    assert job.expires_at is not None
    if job.expires_at <= job.created_at:
        return invalid_field("/expires_at", "has passed already")
    return invalid_field("/expires_at", "is not after run_at: the job could never run")


def _bound_by_total(job: Job, now: int) -> None:
    """The total timeout runs while the job waits, too: it expires no later than that."""
    total_s = policy_of(job.policy).timeouts.total
    if total_s is None:
        return
    end = now + int(total_s * 1_000_000)
    if job.run_at is not None and job.run_at >= end:
        raise invalid_field("/timeouts/total", "is over before run_at: the job could never run")
    job.expires_at = end if job.expires_at is None else min(end, job.expires_at)


def _key(submit: Submit, header: str | None) -> str:
    """The idempotency key, from the body or the header."""
    if submit.key is UNSET:
        assert header is not None  # the caller asked only with one of the two
        if not 0 < len(header) <= limits.KEY_MAX_CHARS:
            raise invalid_field("/key", f"Idempotency-Key has 1 to {limits.KEY_MAX_CHARS} characters")
        return header
    if header is not None and header != submit.key:
        raise invalid_field("/key", "differs from the Idempotency-Key header")
    return submit.key


def fingerprint(submit: Submit) -> bytes:
    """SHA-256 of the decoded body with its keys sorted, without `key`: what "the same body" means."""
    fields = {
        name: value
        for name in submit.__struct_fields__
        if name != "key" and (value := getattr(submit, name)) is not UNSET
    }
    if "args" in fields:
        fields["args"] = msgspec.json.decode(submit.args)  # type: ignore[arg-type]
    return sha256(msgspec.json.encode(fields, order="sorted")).digest()
