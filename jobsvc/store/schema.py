"""F2: the shape of the database, as numbered migrations. Data only: who applies them is `migrating`.

A migration once released is never changed; a new one is added behind it. `user_version` counts those applied.

One row of `jobs` is written by one INSERT and, when all goes well, by two UPDATEs (claim, outcome); nothing else.
Therefore every secondary index is partial: it holds only the rows its reader looks for, and costs the others
nothing but the test of its condition.
"""

from __future__ import annotations

from typing import Final

from jobsvc.model.states import ACTIVE, WAITING

APPLICATION_ID: Final = 0x6A6F6273
"""`jobs` in ASCII: in the file's header, so that no foreign database is taken for ours."""
PAGE_BYTES: Final = 4096
"""One small commit writes about three pages of WAL whatever their size: 13 KB with 4 KiB, 50 KB with 16 KiB."""


def quoted(states: tuple[str, ...]) -> str:
    """States as the inside of an IN list. They are our own constants, never a client's text."""
    return ",".join(f"'{state}'" for state in states)


# The planner takes a partial index only for a query that repeats its condition word for word.
READY_WHEN: Final = "state='queued'"
DUE_WHEN: Final = "state IN ('scheduled','retrying')"
EXPIRES_WHEN: Final = f"expires_at IS NOT NULL AND state IN ({quoted(WAITING)})"
ACTIVE_WHEN: Final = f"state IN ({quoted(ACTIVE)})"
FINISHED_WHEN: Final = "finished_at IS NOT NULL"

# Times are microseconds. `policy` is the number of a row of `policies`, or the text itself where the table is full.
# `labels` is NULL for none. `args`, `result` are NULL when the text lies in `payload` (bits of `large`).
_JOBS = """
CREATE TABLE jobs (
  no INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  state TEXT NOT NULL,
  task TEXT NOT NULL,
  executor TEXT NOT NULL,
  queue TEXT NOT NULL,
  priority INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  reason TEXT,
  revision INTEGER NOT NULL DEFAULT 1,
  epoch INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  run_at INTEGER,
  due_at INTEGER,
  expires_at INTEGER,
  claimed_at INTEGER,
  claim_seq INTEGER,
  started_at INTEGER,
  finished_at INTEGER,
  owner TEXT,
  seq INTEGER NOT NULL DEFAULT 1,
  losses INTEGER NOT NULL DEFAULT 0,
  policy NOT NULL,
  labels TEXT,
  key TEXT,
  key_hash BLOB,
  parent BLOB,
  rerun_of BLOB,
  large INTEGER NOT NULL DEFAULT 0,
  progress BLOB,
  args BLOB,
  result BLOB,
  error BLOB
)"""

# `count` events of one kind, numbered from `seq`; `n` is the first item's number in its stream.
_CHUNKS = """
CREATE TABLE chunks (
  no INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  count INTEGER NOT NULL,
  kind TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  stream TEXT,
  n INTEGER,
  at INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (no, seq)
)"""

# Ended attempts that were not the last one of their job.
_ATTEMPTS = """
CREATE TABLE attempts (
  no INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  state TEXT NOT NULL,
  began_at INTEGER,
  finished_at INTEGER NOT NULL,
  worker TEXT,
  error BLOB,
  PRIMARY KEY (no, epoch)
) WITHOUT ROWID"""

# Texts too large for the row; written once, so that changes of the row never rewrite them. `which` is a bit of `large`.
_PAYLOAD = """
CREATE TABLE payload (
  no INTEGER NOT NULL,
  which INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (no, which)
)"""

# Thousands of jobs share one policy text; the number in their row saves a third of what is written per job.
_POLICIES = "CREATE TABLE policies (no INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE)"

# `last_no`: the largest job number ever given, for when the newest jobs have been removed. The others: see `marks`.
_META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID"

_INDEXES = (
    f"CREATE INDEX jobs_ready ON jobs (task, priority DESC, no) WHERE {READY_WHEN}",
    f"CREATE INDEX jobs_due ON jobs (due_at, task) WHERE {DUE_WHEN}",
    f"CREATE INDEX jobs_expires ON jobs (expires_at) WHERE {EXPIRES_WHEN}",
    f"CREATE INDEX jobs_active ON jobs (no) WHERE {ACTIVE_WHEN}",
    f"CREATE INDEX jobs_finished ON jobs (finished_at) WHERE {FINISHED_WHEN}",
    "CREATE UNIQUE INDEX jobs_key ON jobs (tenant, key) WHERE key IS NOT NULL",
    "CREATE INDEX chunks_items ON chunks (no, stream, n) WHERE n IS NOT NULL",
)

# The last line of defence of the outcome, whatever a statement forgets: no column of a final row changes, it can only
# be removed. `finished_at` is set with every final state and only then; comparing the state costs 2.5 µs an UPDATE,
# this a quarter of one. AFTER is cheaper than BEFORE, after which the row must be looked up again; ABORT undoes the
# statement.
_FINAL_TRIGGER = """
CREATE TRIGGER jobs_final AFTER UPDATE ON jobs WHEN OLD.finished_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a final job does not change'); END"""

# What the client called its request, so that a job is found again in its logs and traces. NULL for none.
_ORIGIN = ("ALTER TABLE jobs ADD COLUMN request_id TEXT", "ALTER TABLE jobs ADD COLUMN traceparent TEXT")

# Who may ask. `hash`: SHA-256 of the secret, which is nowhere. `scopes`, `tasks`, `queues`: JSON arrays.
_TOKENS = """
CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  hash BLOB NOT NULL,
  tenant TEXT NOT NULL,
  scopes TEXT NOT NULL,
  tasks TEXT NOT NULL,
  queues TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER,
  used_at INTEGER
) WITHOUT ROWID"""

# Where the audit log stood: the hash of its record number `seq`. A log whose end was cut off no longer has it.
_AUDIT_HEADS = "CREATE TABLE audit_heads (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, at INTEGER NOT NULL)"

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (_JOBS, _CHUNKS, _ATTEMPTS, _PAYLOAD, _POLICIES, _META, *_INDEXES),
    (_FINAL_TRIGGER,),
    (*_ORIGIN, _TOKENS, _AUDIT_HEADS),
)
"""Migration n (from 1) is `MIGRATIONS[n - 1]`, its statements in order."""
