"""F2: every read of the store, on any connection: the writer's own or a reader's. Changes nothing.

Each answer that has rows is one JSON text (`rows`), so that a read holds its thread for as few steps as possible.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from jobsvc.model.audit import Head
from jobsvc.model.events import Attempt, Chunk
from jobsvc.model.job import ARGS_LARGE, RESULT_LARGE, Job
from jobsvc.model.states import FINAL
from jobsvc.model.tokens import Token
from jobsvc.ports import JobFilter, JobPage
from jobsvc.store import queries as sql
from jobsvc.store.rows import LARGE_FIELDS, Policies, attempts_of, chunks_of, jobs_of
from jobsvc.store.tokens import TOKENS, tokens_of

_IDS_AT_ONCE: Final = 250
"""Ids in one statement; each count is a text of its own."""

_decode_states = msgspec.json.Decoder(list[tuple[str, str]]).decode
_decode_counts = msgspec.json.Decoder(dict[str, int]).decode


_Chunks = list[Chunk]
_Attempts = list[Attempt]
_Tokens = list[Token]


class Reads:
    """The reads of the `Store`, as plain values."""

    def __init__(self, db: sqlite3.Connection, policies: Policies) -> None:
        self._db = db
        self._policies = policies

    def steady(self, kind: str, *args: Any, **options: Any) -> Any:
        """Run the read of this name on one state of the database, also where it takes several statements."""
        self._db.execute("BEGIN")
        try:
            return getattr(self, kind)(*args, **options)
        finally:
            self._db.execute("COMMIT")

    def _value(self, statement: str, *parameters: Any) -> Any:
        return self._db.execute(statement, parameters).fetchone()[0]

    # -- jobs
    def _jobs(self, condition: str, parameters: Sequence[Any], *, args: bool, result: bool) -> list[Job]:
        text = self._value(sql.jobs_where(condition, args=args, result=result), *parameters)
        return self._with_large(jobs_of(text, self._policies), args=args, result=result)

    def _with_large(self, jobs: list[Job], *, args: bool, result: bool) -> list[Job]:
        """Fetch the texts that do not lie in the row; few jobs have them."""
        for job in jobs:
            if job.large:
                for (bit, field), wanted in zip(LARGE_FIELDS, (args, result), strict=True):
                    if wanted and job.large & bit:
                        setattr(job, field, self._value(sql.PAYLOAD, job.no, bit))
        return jobs

    def by_nos(self, nos: Sequence[int], *, args: bool, result: bool) -> list[Job]:
        """Jobs by their row numbers, in any order."""
        return self._jobs(sql.BY_NOS, (str(list(nos)),), args=args, result=result) if nos else []

    def get(self, job_id: bytes, *, args: bool = True, result: bool = True) -> Job | None:
        """One job."""
        return next(iter(self._jobs(sql.BY_ID, (job_id,), args=args, result=result)), None)

    def get_many(self, ids: Sequence[bytes], max_bytes: int | None = None) -> dict[bytes, Job]:
        """Those that are there; all with their large texts, or so many bytes of them: first those that are done."""
        found: dict[bytes, Job] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[start : start + _IDS_AT_ONCE]
            text = self._value(sql.jobs_where(sql.by_ids(len(some)), args=True, result=True), *some)
            found.update((job.id, job) for job in jobs_of(text, self._policies))
        large = [found[i] for i in ids if i in found and found[i].large]
        if max_bytes is not None:
            large.sort(key=lambda job: not job.done)
            large = self._within(large, max_bytes, args=True, result=True)
        self._with_large(large, args=True, result=True)
        return found

    def done(self, ids: Sequence[bytes], tenant: str) -> dict[bytes, bool]:
        """Of the tenant's jobs among these: whether each is done."""
        found: dict[bytes, bool] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[start : start + _IDS_AT_ONCE]
            rows = _decode_states(self._value(sql.states_of(len(some)), tenant, *some))
            found.update((bytes.fromhex(job_id), state in FINAL) for job_id, state in rows)
        return found

    def by_key(self, tenant: str, key: str) -> Job | None:
        """The job that holds an idempotency key."""
        return next(iter(self._jobs(sql.BY_KEY, (tenant, key), args=True, result=True)), None)

    def by_keys(self, tenant: str, keys: Sequence[str]) -> dict[str, Job]:
        """The jobs that hold these keys, without arguments and results."""
        found: dict[str, Job] = {}
        for start in range(0, len(keys), _IDS_AT_ONCE):
            some = keys[start : start + _IDS_AT_ONCE]
            jobs = self._jobs(sql.by_keys(len(some)), (tenant, *some), args=False, result=False)
            found.update((job.key, job) for job in jobs if job.key is not None)
        return found

    def _within(self, jobs: list[Job], max_bytes: int, *, args: bool, result: bool) -> list[Job]:
        """As many as have no more arguments and results, at least one. Of large texts only lengths are read."""
        left = max_bytes
        for place, job in enumerate(jobs):
            left -= len(job.args or b"") + len(job.result or b"")
            if job.large and (args or result):
                which = args * ARGS_LARGE + result * RESULT_LARGE
                left -= self._value(sql.PAYLOAD_BYTES, job.no, which)
            if left < 0 and place:
                return jobs[:place]
        return jobs

    def list(self, wanted: JobFilter) -> JobPage:
        """One page, newest first or ascending."""
        conditions: list[str] = []
        parameters: list[Any] = []

        def add(condition: str, *values: Any) -> None:
            conditions.append(condition)
            parameters.extend(values)

        if wanted.cursor is not None:
            add("no > ?" if wanted.ascending else "no < ?", wanted.cursor)
        if wanted.tenant is not None:
            add("tenant=?", wanted.tenant)
        if wanted.states:
            add(f"state IN ({','.join('?' * len(wanted.states))})", *wanted.states)
        if wanted.task is not None:
            add("task=?", wanted.task)
        if wanted.queue is not None:
            add("queue=?", wanted.queue)
        for column, among in (("task", wanted.among_tasks), ("queue", wanted.among_queues)):
            if among:
                add(f"{column} IN ({','.join('?' * len(among))})", *sorted(among))
        if wanted.since is not None:
            add("created_at >= ?", wanted.since)
        for key, value in wanted.labels.items():
            add(sql.LABEL, key, value)
        statement = sql.jobs_page(
            " AND ".join(conditions) or "1", "ASC" if wanted.ascending else "DESC",
            args=wanted.args, result=wanted.result,
        )  # fmt: skip
        # One more than the page has tells whether there is a next one.
        jobs = jobs_of(self._value(statement, *parameters, wanted.limit + 1), self._policies)
        jobs.sort(key=lambda job: job.no, reverse=not wanted.ascending)
        page = jobs[: wanted.limit]
        if wanted.max_bytes is not None:
            page = self._within(page, wanted.max_bytes, args=wanted.args, result=wanted.result)
        self._with_large(page, args=wanted.args, result=wanted.result)
        return JobPage(page, len(page) < len(jobs))

    # -- events
    def chunks(
        self, no: int, after: int, max_bytes: int, kinds: Sequence[str] = (), streams: Sequence[str] = ()
    ) -> _Chunks:
        """Chunks that hold events numbered above `after`, in order, at least one and about `max_bytes`."""
        condition, parameters = sql.CHUNKS_AFTER, [no, no, after, after]
        for column, among in (("kind", kinds), ("stream", streams)):
            if among:
                condition += f" AND {column} IN ({','.join('?' * len(among))})"
                parameters += among  # type: ignore[arg-type]
        return self._page(condition, parameters, max_bytes)

    def items(self, no: int, stream: str, after: int, max_bytes: int, epoch: int | None) -> _Chunks:
        """Chunks of one stream that hold items numbered above `after`; of one epoch or of all."""
        condition, parameters = sql.ITEMS_AFTER, [no, stream, no, stream, after, after]
        if epoch is not None:
            condition += " AND epoch=?"
            parameters.append(epoch)
        return self._page(condition, parameters, max_bytes)

    def _page(self, condition: str, parameters: Sequence[Any], max_bytes: int) -> _Chunks:
        window = self._db.execute(
            sql.chunk_window(condition), (*parameters, sql.WINDOW_CHUNKS, max(1, max_bytes))
        )
        first, last = window.fetchone()
        if first is None:
            return []
        return chunks_of(self._value(sql.chunks_between(condition), *parameters, first, last))

    def attempts(self, no: int) -> _Attempts:
        """Ended attempts that were not the last."""
        return attempts_of(self._value(sql.ATTEMPTS, no))

    # -- who may ask
    def tokens(self) -> _Tokens:
        """All tokens, oldest first."""
        return tokens_of(self._value(TOKENS))

    # -- what the engine plans by
    def queued(self) -> Mapping[str, int]:
        """How many jobs are queued, by task."""
        return _decode_counts(self._value(sql.QUEUED))

    def audit_head(self) -> Head | None:
        """Where the audit log stood last."""
        found = self._db.execute(sql.AUDIT_HEAD).fetchone()
        return None if found is None else Head(found[0], bytes(found[1]).hex())

    def depths(self) -> Mapping[str, int]:
        """How many jobs are queued, scheduled or retrying, by tenant."""
        return _decode_counts(self._value(sql.WAITING_TENANTS))

    def next_due(self) -> int | None:
        """The earliest moment at which `wake` or `expire` has work."""
        moments = (self._value(sql.NEXT_DUE), self._value(sql.NEXT_EXPIRES))
        return min((moment for moment in moments if moment is not None), default=None)
