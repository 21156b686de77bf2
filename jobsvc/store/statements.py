"""F2: the SQL statements of writes and what goes with them, each with its reason. Texts only; nothing is run here.

Those that only read are in `queries`.

Many rows go into one statement as multi-row VALUES: `executemany` offers the interpreter lock at every row. Texts for
many rows are built for the sizes `BATCHES` only and kept, so that SQLite's prepared statements are found again.
Lists of numbers are bound as one JSON array, which needs one text for every length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, Literal

from jobsvc.model.states import ACTIVE, FINAL, WAITING, State, sources
from jobsvc.store.rows import CHUNK_COLUMNS, JOB_COLUMNS, job_array
from jobsvc.store.schema import ACTIVE_WHEN, DUE_WHEN, EXPIRES_WHEN, FINISHED_WHEN, READY_WHEN, quoted

BATCHES: Final = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one multi-row statement: few statements for any number of rows, since between two of them the interpreter
lock is offered, and a busy reactor keeps it for half a millisecond. Per row, 32 to 512 cost the same."""
VARIABLES_MAX: Final = BATCHES[0] * len(JOB_COLUMNS)
"""Variables of the longest statement; SQLite's own limit is 32,766 since 3.32."""

NOS: Final = "no IN (SELECT value FROM json_each(?))"


def batches(rows: int) -> Iterator[int]:
    """Cut a number of rows into pieces whose sizes are in `BATCHES`."""
    for size in BATCHES:
        while rows >= size:
            yield size
            rows -= size


def _rows(row: str, count: int) -> str:
    return ",".join([row] * count)


def marks(count: int) -> str:
    """So many placeholders."""
    return ",".join("?" * count)


# -- submit --------------------------------------------------------------------------------------------------------
# Most jobs of one group are of one task: what they share is bound once (?1…), as a binding costs as much as a column.
SUBMIT_SHARED: Final = ("task", "executor", "queue", "tenant")
"""Bound once, then the policy (and for jobs that run at once owner and claimed_at)."""
SUBMIT_OWN: Final = ("no", "id", "created_at", "priority", "args")
"""Bound per row."""
SUBMIT_OWN_NAMED: Final = (*SUBMIT_OWN, "key", "key_hash", "request_id", "traceparent")
"""The same of jobs that their client gave a key or ids of its own."""


def _own_rows(shared: int, own: int, count: int, tail: str) -> str:
    """Rows of `count` times `own` values that follow the shared ones, each row with `tail` behind it."""
    starts = range(shared + 1, shared + 1 + count * own, own)
    return ",".join(f"({','.join(f'?{start + place}' for place in range(own))}{tail})" for start in starts)


@cache
def insert_queued(count: int, own: tuple[str, ...] = SUBMIT_OWN) -> str:
    """The INSERT of new jobs in which nothing but the usual is set, but what is `own` to each."""
    columns = ",".join((*own, *SUBMIT_SHARED, "policy", "state"))
    tail = ",?1,?2,?3,?4,?5,'queued'"
    return f"INSERT INTO jobs ({columns}) VALUES {_own_rows(5, len(own), count, tail)}"


@cache
def insert_running(count: int, own: tuple[str, ...] = SUBMIT_OWN) -> str:
    """The same for jobs claimed at once: submit and first claim in one INSERT."""
    claimed = ("owner", "claimed_at", "state", "epoch", "attempt", "claim_seq", "seq", "revision")
    columns = ",".join((*own, *SUBMIT_SHARED, "policy", *claimed))
    tail = ",?1,?2,?3,?4,?5,?6,?7,'running',1,1,2,2,2"
    return f"INSERT INTO jobs ({columns}) VALUES {_own_rows(7, len(own), count, tail)}"


@cache
def insert_full(count: int) -> str:
    """The INSERT with every column."""
    return f"INSERT INTO jobs ({','.join(JOB_COLUMNS)}) VALUES {_rows(f'({marks(len(JOB_COLUMNS))})', count)}"


@cache
def key_holders(count: int) -> str:
    """The jobs that hold one of these (tenant, key). CROSS fixes which side is looked up by index."""
    return (
        f"SELECT json_group_array(j.no) FROM (VALUES {_rows('(?,?)', count)}) AS v"
        " CROSS JOIN jobs AS j ON j.tenant = v.column1 AND j.key = v.column2"
    )


@cache
def insert_payload(count: int) -> str:
    """Texts too large for the row."""
    return f"INSERT INTO payload (no, which, body) VALUES {_rows('(?,?,?)', count)}"


INSERT_POLICY: Final = "INSERT INTO policies (no, body) VALUES (?, ?)"
POLICIES: Final = "SELECT no, body FROM policies"

# -- fenced changes of active jobs: WHERE no, epoch, owner, and a state from which the table leads to the new one ------


def _fence(to: State) -> str:
    # An empty list refuses everything: no active job may become `expired`, say.
    return f"state IN ({quoted(sources(to, ACTIVE))})"


def _fenced(to: State, fixed: str, columns: Sequence[str], count: int) -> str:
    """`columns` are bound per row, then no, epoch, owner. One row is cheaper as a plain UPDATE: 4 µs, not 20."""
    if count == 1:
        changes = ",".join(_assign(column, "?") for column in columns)
        return f"UPDATE jobs SET state='{to}',{fixed}{changes} WHERE no=? AND epoch=? AND owner=? AND {_fence(to)}"
    places = [f"v.column{place}" for place in range(1, len(columns) + 4)]
    changes = ",".join(_assign(column, place) for column, place in zip(columns, places, strict=False))
    no, epoch, owner = places[-3:]
    return (
        f"UPDATE jobs SET state='{to}',{fixed}{changes} FROM (VALUES {_rows(f'({marks(len(places))})', count)}) AS v"
        f" WHERE jobs.no={no} AND jobs.epoch={epoch} AND jobs.owner={owner} AND jobs.{_fence(to)}"
    )


def _assign(column: str, value: str) -> str:
    # Bits are added: large arguments stay large when a large result comes.
    return f"large=large|{value}" if column == "large" else f"{column}={value}"


SETTLE_FIELDS: Final = (
    "reason", "attempt", "losses", "started_at", "finished_at", "seq", "revision", "result", "error", "large",
)  # fmt: skip


@cache
def settle(to: State, count: int) -> str:
    """Outcomes of any kind: `SETTLE_FIELDS`, then the fence, per row."""
    return _fenced(to, "", SETTLE_FIELDS, count)


SETTLE_SHARED: Final = ("reason", "attempt", "losses", "epoch", "owner")
SETTLE_OWN: Final = ("started_at", "finished_at", "seq", "revision", "result", "no")


@cache
def settle_alike(to: State, count: int) -> str:
    """Outcomes without error or large result, of one worker and epoch: a third cheaper than `settle`.

    Bound are `SETTLE_SHARED` once, then `SETTLE_OWN` per row.
    """
    fixed = f"UPDATE jobs SET state='{to}',error=NULL,reason=?1,attempt=?2,losses=?3"
    if count == 1:
        return (
            f"{fixed},started_at=?6,finished_at=?7,seq=?8,revision=?9,result=?10"
            f" WHERE no=?11 AND epoch=?4 AND owner=?5 AND {_fence(to)}"
        )
    return (
        f"{fixed},started_at=v.column1,finished_at=v.column2,seq=v.column3,revision=v.column4,result=v.column5"
        f" FROM (VALUES {_own_rows(len(SETTLE_SHARED), len(SETTLE_OWN), count, '')}) AS v"
        f" WHERE jobs.no=v.column6 AND jobs.epoch=?4 AND jobs.owner=?5 AND jobs.{_fence(to)}"
    )


STEP_FIELDS: Final = ("reason", "attempt", "losses", "due_at", "seq", "revision")


@cache
def step(to: State, count: int) -> str:
    """Changes that do not end a job. Back to waiting it has no owner, and its next attempt has not begun."""
    return _fenced(to, "owner=NULL,started_at=NULL," if to in WAITING else "", STEP_FIELDS, count)


ATTEMPT_WIDTH: Final = 8


@cache
def insert_attempts(count: int) -> str:
    """Attempts that ended and were not the last of their job."""
    columns = "no, epoch, attempt, state, began_at, finished_at, worker, error"
    return f"INSERT INTO attempts ({columns}) VALUES {_rows(f'({marks(ATTEMPT_WIDTH)})', count)}"


STATE_CHUNKS: Final = (
    "INSERT INTO chunks (no, seq, count, kind, epoch, at, body)"
    " SELECT no, seq, 1, 'state', epoch, ?, CAST(json_object('state', state, 'reason', reason, 'attempt', attempt,"
    f" 'epoch', epoch, 'revision', revision) AS BLOB) FROM jobs WHERE {NOS}"
)
"""The state event of each of these jobs as its row stands now; the same text as `model.events.state_data` makes."""


@cache
def insert_chunks(count: int) -> str:
    """Chunks of running attempts; those the fence refuses are left out. Per row `CHUNK_COLUMNS`, then the owner."""
    columns = ",".join(f"v.column{place}" for place in range(1, len(CHUNK_COLUMNS) + 1))
    return (
        f"INSERT INTO chunks ({','.join(CHUNK_COLUMNS)}) SELECT {columns}"
        f" FROM (VALUES {_rows(f'({marks(len(CHUNK_COLUMNS) + 1)})', count)}) AS v"
        f" CROSS JOIN jobs AS j ON j.no=v.column1 AND j.epoch=v.column5 AND j.owner=v.column{len(CHUNK_COLUMNS) + 1}"
        f" AND j.{ACTIVE_WHEN}"
    )


KEEP_SUBMITTED: Final = (
    "INSERT OR IGNORE INTO chunks (no, seq, count, kind, epoch, at, body) VALUES (?, 1, 1, 'job', 0, ?, ?)"
)
"""The first event of a job that is changed, as it was before: the row tells it no more. An earlier one stays."""
PROGRESS: Final = (
    "UPDATE jobs SET progress=?,seq=max(seq, ?),revision=max(revision, ?)"
    f" WHERE no=? AND epoch=? AND owner=? AND {ACTIVE_WHEN}"
)
"""The newest progress in the row, so that one read shows it; comes after its chunk has passed the fence."""
REFUSED_ROW: Final = "SELECT id, epoch, owner, state FROM jobs WHERE no=?"
"""What a fence saw that refused a write of this job."""
NEXT_ITEM: Final = (
    "SELECT coalesce((SELECT n+count FROM chunks WHERE no=? AND stream=? AND n IS NOT NULL"
    " ORDER BY n DESC LIMIT 1), 1)"
)
"""Number of the next item of a stream."""
DROP_CHUNKS: Final = "DELETE FROM chunks WHERE no=? AND kind=? AND stream IS ? AND seq>=? AND seq+count-1<=?"
"""Quota: the oldest chunks of one stream (or of the log) go."""

# -- audit log -------------------------------------------------------------------------------------------------------
AUDIT_ANCHOR: Final = "INSERT OR IGNORE INTO audit_heads (seq, hash, at) VALUES (?, ?, ?)"
"""What was seen once is never changed."""
AUDIT_FORGET: Final = (
    "DELETE FROM audit_heads WHERE seq <= (SELECT seq FROM audit_heads ORDER BY seq DESC LIMIT 1 OFFSET ?)"
)
"""The chain itself vouches for what lies before the newest."""
AUDIT_HEADS: Final = "SELECT seq, hash FROM audit_heads"

# -- claim -----------------------------------------------------------------------------------------------------------
READY: Final = (
    "SELECT json_group_array(json_array(-priority, no)) FROM (SELECT priority, no FROM jobs"
    f" WHERE task=? AND {READY_WHEN} ORDER BY priority DESC, no LIMIT ? OFFSET ?)"
)
"""The next queued jobs of a task; the index `jobs_ready` alone answers it."""
CLAIM: Final = (
    "UPDATE jobs SET state='running',reason=NULL,owner=?,executor=?,epoch=epoch+1,attempt=attempt+1,"
    "claimed_at=coalesce(claimed_at, ?),claim_seq=coalesce(claim_seq, seq+1),seq=seq+1,revision=revision+1,"
    f"started_at=NULL WHERE {NOS} AND {READY_WHEN}"
)
"""Queued → running for one worker, all of its jobs at once."""

# -- changes of waiting jobs -----------------------------------------------------------------------------------------


@cache
def move(to: State, frm: tuple[State, ...]) -> str:
    """One waiting job by id, with a given reason (bound twice) or (NULL) any, and so its revision. The table of states
    decides too, whatever the caller allows. A retry without a moment waits for a thread that still runs: only who names
    its reason moves it.
    """  # fmt: skip
    among = quoted(sources(to, frm))
    this = (
        f" WHERE id=? AND reason IS coalesce(?, reason) AND state IN ({among})"
        " AND (? IS NOT NULL OR state<>'retrying' OR due_at IS NOT NULL) AND revision=coalesce(?, revision)"
    )
    if to in FINAL:
        return (
            f"UPDATE jobs SET state='{to}',reason=?,finished_at=?,error=?,seq=seq+1,revision=revision+1"
            + this
        )
    due = ",due_at=NULL" if to == "queued" else ""
    return f"UPDATE jobs SET state='{to}',reason=?{due},seq=seq+1,revision=revision+1" + this


CHANGE_FIELDS: Final = ("priority", "run_at", "expires_at", "policy", "labels")


@cache
def change(to: Literal["queued"] | None) -> str:
    """New fields for a waiting job, by id and the revision that its client has seen: `CHANGE_FIELDS`, reason and due_at
    (NULL: as they are), id, revision. To `queued` only by a way of the table, and not while a thread of it still runs.
    """  # fmt: skip
    fields = ",".join(f"{field}=?" for field in CHANGE_FIELDS) + ",seq=seq+1,revision=revision+1"
    if to is None:
        return (
            f"UPDATE jobs SET {fields},reason=coalesce(?, reason),due_at=coalesce(?, due_at)"
            f" WHERE id=? AND revision=? AND state IN ({quoted(WAITING)})"
        )
    among = quoted(sources(to, ("scheduled", "retrying")))
    return (
        f"UPDATE jobs SET state='{to}',{fields},reason=?,due_at=?"
        f" WHERE id=? AND revision=? AND state IN ({among}) AND due_at IS NOT NULL"
    )


DUE: Final = (
    "SELECT json_group_array(no) FROM"
    f" (SELECT no FROM jobs WHERE {DUE_WHEN} AND due_at <= ? ORDER BY due_at LIMIT ?)"
)
"""Jobs whose time has come."""
WAKE: Final = (
    "UPDATE jobs SET state='queued',reason=NULL,due_at=NULL,seq=seq+1,revision=revision+1"
    f" WHERE {NOS} AND state IN ({quoted(sources('queued', ('scheduled', 'retrying')))})"
)
SHIFT_RETRIES: Final = (
    f"UPDATE jobs SET due_at=due_at+? WHERE {DUE_WHEN} AND state='retrying' AND reason='retry'"
)
"""A backoff is a number of seconds, though it is stored as a moment: it moves with the clock that was set. No event:
nothing but the moment changes."""
COUNT_TASKS: Final = (
    f"SELECT json_group_object(task, n) FROM (SELECT task, count(*) AS n FROM jobs WHERE {NOS} GROUP BY task)"
)
EXPIRED: Final = (
    "SELECT json_group_array(no) FROM"
    f" (SELECT no FROM jobs WHERE {EXPIRES_WHEN} AND expires_at <= ? ORDER BY expires_at LIMIT ?)"
)
"""Waiting jobs that nobody wants any more."""
EXPIRE: Final = (
    "UPDATE jobs SET state='expired',reason=NULL,finished_at=?,error=?,seq=seq+1,revision=revision+1"
    f" WHERE {NOS} AND state IN ({quoted(sources('expired', WAITING))})"
)

# -- removal ---------------------------------------------------------------------------------------------------------
FINISHED: Final = (
    "SELECT json_group_array(no) FROM"
    f" (SELECT no FROM jobs WHERE {FINISHED_WHEN} AND finished_at < ? ORDER BY finished_at LIMIT ?)"
)
"""What retention takes, oldest end first."""
FINAL_NO: Final = f"SELECT no FROM jobs WHERE id=? AND state IN ({quoted(tuple(sorted(FINAL)))})"
REMOVE: Final = tuple(
    f"DELETE FROM {table} WHERE {NOS}" for table in ("payload", "chunks", "attempts", "jobs")
)
"""A job and all that belongs to it, children first."""
REMEMBER_LAST_NO: Final = (
    "INSERT INTO meta (name, value) VALUES ('last_no', ?)"
    " ON CONFLICT (name) DO UPDATE SET value=max(value, excluded.value)"
)
"""Written with every removal: a number must not be given twice, even when the newest jobs are gone."""
LAST_NO: Final = (
    "SELECT max(coalesce((SELECT max(no) FROM jobs), 0),"
    " coalesce((SELECT value FROM meta WHERE name='last_no'), 0))"
)
FREE_PAGES: Final = "SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count"

# -- recovery --------------------------------------------------------------------------------------------------------
ORPHANS_GONE: Final = (
    f"UPDATE jobs SET due_at=? WHERE {DUE_WHEN} AND state='retrying' AND reason='orphan_running'"
)
"""Retries that waited for a thread of the old daemon, which is gone: due at once."""
SET_BACK: Final = (
    "UPDATE jobs SET due_at=? + due_at - ended_at"
    " FROM (SELECT no AS of_no, epoch AS of_epoch, finished_at AS ended_at FROM attempts)"
    f" WHERE of_no=no AND of_epoch=epoch AND ended_at>? AND {DUE_WHEN} AND state='retrying' AND reason='retry'"
)
"""Retries of attempts that ended, by the clock, later than now: it was set back while no daemon ran. A backoff is a
number of seconds, and begins anew."""
CANCELLED_ORPHANS: Final = (
    "UPDATE jobs SET state='cancelled',finished_at=?,error=?,seq=seq+1,revision=revision+1"
    f" WHERE {DUE_WHEN} AND state='retrying' AND reason='cancel_asked'"
)
"""Those of them that were to be cancelled once it had returned."""
INTERRUPTED: Final = f"SELECT {job_array()} FROM jobs WHERE {ACTIVE_WHEN}"
"""What was active when the last daemon ended."""
LAST_EVENTS: Final = (
    "SELECT json_group_array(json_array(no, last)) FROM"
    f" (SELECT no, max(seq + count - 1) AS last FROM chunks WHERE {NOS} GROUP BY no)"
)
"""Chunks are numbered ahead of the row: events of items and logs do not touch it."""
