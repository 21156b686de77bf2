"""F2: the SQL statements of reads. Texts only; nothing is run here.

Rows come as one JSON text, which costs less than a tuple for each and is decoded at once.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from jobsvc.store.rows import ATTEMPT_ARRAY, CHUNK_ARRAY, job_array
from jobsvc.store.schema import DUE_WHEN, EXPIRES_WHEN, READY_WHEN
from jobsvc.store.statements import NOS, marks


@cache
def jobs_where(condition: str, *, args: bool = True, result: bool = True) -> str:
    """Rows by a condition with its own placeholders."""
    return f"SELECT {job_array(args=args, result=result)} FROM jobs WHERE {condition}"


@cache
def jobs_page(conditions: str, order: str, *, args: bool, result: bool) -> str:
    """One page of a list, by the row number, which is stable under inserts."""
    return (
        f"SELECT {job_array(args=args, result=result)} FROM"
        f" (SELECT * FROM jobs WHERE {conditions} ORDER BY no {order} LIMIT ?)"
    )


BY_NOS: Final = NOS
BY_ID: Final = "id=?"
BY_KEY: Final = "tenant=? AND key=?"
LABEL: Final = "EXISTS (SELECT 1 FROM json_each(labels) AS l WHERE l.key=? AND l.value=?)"
PAYLOAD: Final = "SELECT body FROM payload WHERE no=? AND which=?"
PAYLOAD_BYTES: Final = "SELECT coalesce(sum(length(body)), 0) FROM payload WHERE no=? AND which & ? != 0"


@cache
def by_ids(count: int) -> str:
    """The condition for several ids."""
    return f"id IN ({marks(count)})"


@cache
def by_keys(count: int) -> str:
    """The condition for several idempotency keys of one tenant."""
    return f"tenant=? AND key IN ({marks(count)})"


@cache
def states_of(count: int) -> str:
    """Of several ids of one tenant, how each job stands; nothing else of the rows is read."""
    return f"SELECT json_group_array(json_array(hex(id), state)) FROM jobs WHERE tenant=? AND {by_ids(count)}"


@cache
def chunk_window(condition: str) -> str:
    """How far one page of chunks goes: [first, last] seq of about so many bytes, at least one chunk.

    Only lengths are looked at, and not of more than `WINDOW_CHUNKS`, so that long streams are read in even steps.
    """
    return (
        "SELECT min(seq), max(seq) FROM (SELECT seq, sum(size) OVER (ORDER BY seq) - size AS before FROM"
        f" (SELECT seq, length(body) AS size FROM chunks WHERE {condition} ORDER BY seq LIMIT ?)) WHERE before < ?"
    )


@cache
def chunks_between(condition: str) -> str:
    """The chunks of that page."""
    return f"SELECT {CHUNK_ARRAY} FROM chunks WHERE {condition} AND seq BETWEEN ? AND ?"


CHUNKS_AFTER: Final = (
    "no=? AND seq >= coalesce((SELECT max(seq) FROM chunks WHERE no=? AND seq <= ?), 0) AND seq+count-1 > ?"
)
"""Chunks of a job that hold events above a number; begins at the chunk that may straddle it."""
ITEMS_AFTER: Final = (
    "no=? AND stream=? AND n >= coalesce("
    "(SELECT max(n) FROM chunks WHERE no=? AND stream=? AND n IS NOT NULL AND n <= ?), 0)"
    " AND n IS NOT NULL AND n+count-1 > ?"
)
"""The same for the items of one stream, by item numbers."""
WINDOW_CHUNKS: Final = 1000

ATTEMPTS: Final = f"SELECT {ATTEMPT_ARRAY} FROM attempts WHERE no=?"
QUEUED: Final = (
    "SELECT json_group_object(task, n) FROM"
    f" (SELECT task, count(*) AS n FROM jobs WHERE {READY_WHEN} GROUP BY task)"
)
WAITING_TENANTS: Final = (
    "SELECT json_group_object(tenant, n) FROM (SELECT tenant, sum(n) AS n FROM ("
    f"SELECT tenant, count(*) AS n FROM jobs WHERE {READY_WHEN} GROUP BY tenant"
    f" UNION ALL SELECT tenant, count(*) FROM jobs WHERE {DUE_WHEN} GROUP BY tenant"
    ") GROUP BY tenant)"
)
"""Jobs that wait, by tenant, found by two indexes. Nothing makes a job `held` or `blocked` yet; what will needs one."""
NEXT_DUE: Final = f"SELECT min(due_at) FROM jobs WHERE {DUE_WHEN}"
NEXT_EXPIRES: Final = f"SELECT min(expires_at) FROM jobs WHERE {EXPIRES_WHEN}"
AUDIT_HEAD: Final = "SELECT seq, hash FROM audit_heads ORDER BY seq DESC LIMIT 1"
