"""F3: limits that only the edge knows, each with its unit and its reason."""

from __future__ import annotations

from jobsvc.model.limits import KIB, MIB

REQUEST_DEADLINE_S = 60.0
"""A request, head and body, has to be in within this, plus its length at `REQUEST_MIN_BYTES_PER_S`."""
REQUEST_MIN_BYTES_PER_S = 16 * KIB
"""Slower bodies are cut: a slow sender must not hold memory for hours."""
IDLE_S = 60.0
"""A connection between two requests, and a streamed upload without a byte, is closed after this."""
WRITE_STALL_S = 30.0
"""A client that takes nothing of a waiting reply for this long is cut off; streams can be resumed."""
SWEEP_S = 5.0
"""How often connections are looked over for the three limits above: one timer for all of them."""
LINGER_S = 2.0
"""After an early refusal we read and discard this long, or the client sees a reset instead of the reply."""
CONNECTIONS_MAX = 20_000
"""Open connections; each costs about 10 KiB."""
BODY_HARD_FACTOR = 4
"""A body over the limit is read and thrown away up to this many times the limit, so that the connection lives on."""
ENVELOPE_BYTES = 64 * KIB
"""Room beside the arguments in a submit's body."""
BULK_SLICE_S = 0.005
"""Decoding bulk lines holds the reactor for this long at a time."""
BULK_SLICE_LINES = 1_000
"""At most this many lines go to the store in one piece: larger groups gain nothing."""
BULK_UNCOMMITTED_LINES = 8_000
"""More lines on the way to the store than this pause the upload."""
BULK_UNCOMMITTED_BYTES = 16 * MIB
"""The same in bytes, for lines with long arguments."""
BULK_UNREAD_BYTES = 1 * MIB
"""More bytes received and not yet decoded than this pause the upload."""
FOLLOW_HELD_BYTES = 8 * MIB
"""Outcomes held for a slow reader of `follow=out`; beyond it only ids are kept, and the rows are read again."""
FOLLOW_ROWS = 100
"""How many such rows are read again at a time."""
STREAM_READ_BYTES = 256 * KIB
"""One read of a stream from the store: large enough to be cheap, small enough to be dropped by a slow reader."""
ATOMIC_ERRORS_MAX = 100
"""Bad lines named in the refusal of an atomic upload."""
REQUEST_ID_MAX_CHARS = 64
"""A client's own X-Request-ID; a longer one is replaced."""
NESTING_MAX = 64
"""Depth of arrays and objects: more is an attack or a mistake, and every reader after us recurses."""
