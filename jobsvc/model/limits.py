"""F0: every limit that more than one room knows, each with its unit and its reason.

The published ones are served by `/v1/info`; a limit that only one module knows stands in that module.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# -- what a client may send ---------------------------------------------------------------------------------------
JSON_BODY_MAX_BYTES = 1 * MIB
"""One JSON body, one bulk line: far above any honest envelope, far below what hurts the reactor to decode."""
ARGS_MAX_BYTES = 256 * KIB
"""Arguments of one job by default; `--args-max` raises it, the body limit grows with it."""
ARGS_CEILING_BYTES = 64 * MIB
"""What `--args-max` may ask for at most: arguments travel through memory five times."""
HEADERS_MAX_BYTES = 16 * KIB
"""twisted.web's own total for a header block; published so that clients know."""
BULK_LINES_MAX = 1_000_000
"""Lines of one bulk upload: ids of all of them are kept until the reply starts (about 40 bytes each)."""
BULK_ATOMIC_MAX = 10_000
"""Lines of an all-or-nothing upload: one transaction must not hold the writer for longer than a moment."""
LABELS_MAX = 16
LABEL_KEY_MAX_CHARS = 63
LABEL_VALUE_MAX_CHARS = 255
KEY_MAX_CHARS = 255
"""Idempotency keys are indexed; a UUID has 36."""
NAME_MAX_CHARS = 128
"""Task and queue names."""
PRIORITY_MIN = -100
PRIORITY_MAX = 100
RETRIES_MAX = 1000
DURATION_MAX_S = 366 * 86_400.0
"""No delay or timeout of more than a year: a typing error in milliseconds shows itself."""
WAIT_MAX_S = 300.0
"""Longest wait of one HTTP request; larger is cut, and the client asks again."""
CALL_WAIT_S = 60.0
"""What `call` waits when the client names no time."""
LIST_LIMIT = 50
LIST_LIMIT_MAX = 1_000
PAGE_BYTES = 8 * MIB
"""Arguments and results on one page of a list, which ends early when there are more: of a thousand results each could
have `RESULT_MAX_BYTES`, and a reply is in memory three times while it is made."""
MANY_MAX = 400
"""Ids in one `GET /v1/jobs?id=`: what a request line within `HEADERS_MAX_BYTES` has room for."""

# -- what a job may send ------------------------------------------------------------------------------------------
RESULT_MAX_BYTES = 16 * MIB
ITEM_MAX_BYTES = 1 * MIB
STREAM_QUOTA_BYTES = 64 * MIB
"""Kept stream: past this the oldest items go and readers get `gap`."""
STREAM_WINDOW_BYTES = 256 * KIB
"""Bytes of one stream in flight between a worker and the store before the producer waits."""
LOG_LINE_MAX_BYTES = 16 * KIB
LOG_KEEP_BYTES = 8 * MIB
"""Output kept per job."""
LOG_HEAD_BYTES = 1 * MIB
"""Of `LOG_KEEP_BYTES`, what is kept from the start; the rest is the end."""
PROGRESS_EVERY_S = 0.25
"""Progress makes an event and a revision at most this often; the last one always arrives."""
STDERR_TAIL_BYTES = 4 * KIB
"""How much of a failed command's stderr goes into its error."""
MESSAGE_MAX_CHARS = 4_096
TRACEBACK_MAX_CHARS = 16_384

# -- how work is carried ------------------------------------------------------------------------------------------
INLINE_MAX_BYTES = 2 * KIB
"""Arguments and results up to this size live in the job's row; SQLite rewrites the whole record on every change."""
PART_BYTES = 256 * KIB
"""Bodies above this travel between processes in parts, so that one of them never holds up a channel."""
FRAME_MAX_BYTES = 32 * MIB
"""One frame of the control channel; a longer length prefix means a broken peer."""
PREFETCH_JOBS = 256
PREFETCH_S = 0.020
"""A cpu worker is handed at most this many jobs, and this much estimated work, ahead of what runs."""
PREFETCH_ONE_S = 0.050
"""Of tasks up to this long one waits behind the one that runs, though it be more than `PREFETCH_S` of work: between two
jobs of 22 ms the gap of a commit and two hops cost a fifth of the processor (measured)."""
QUICK_S = 0.001
"""A task that takes less is quick: its results travel in batches and its `begin` is a mark in shared memory."""
RESULT_HOLD_S = 0.002
"""How long a batch of quick results may gather while more work waits in the worker."""
LOSSES_MAX = 3
"""The third loss of one job while the daemon lived fails it: a poison job."""
STALL_S = 10.0
"""An io worker silent for this long is killed."""
PING_S = 1.0
"""Between two questions whether it is alive: ten before it counts as stalled; one costs the daemon about 30 µs."""

# -- what a job may be allowed to use -----------------------------------------------------------------------------
RSS_LEAST_BYTES = 16 * MIB
"""Least `max_rss`: a bare interpreter weighs about that."""
OPEN_FILES_LEAST = 8
"""Least `open_files`: below it a program cannot even find its libraries."""
CPU_MOST_S = 10 * 366 * 86_400
USE_MOST_BYTES = 1024 * 1024 * 1024 * MIB
OPEN_FILES_MOST = 1_048_576
"""Most of each: a typing error shows itself, and the kernel takes the number."""

# -- defaults of policy -------------------------------------------------------------------------------------------
BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 600.0
KEEP_S = 7 * 86_400.0
DRAIN_S = 30.0
GRACE_S = 5.0
QUEUE_MAX = 1_000_000
"""Jobs of one tenant that may wait: as many as one bulk upload brings, a gigabyte of small ones on the disk."""
AUDIT_KEEP_DAYS = 90
"""Of the audit log: a quarter, as long as tokens that have ended are listed."""
THREADS = 32
LOOP_SLOTS = 4_096
HEARTBEAT_S = 15.0
"""Silence on an event stream before a heartbeat: below the 30 s and 60 s after which proxies cut."""
