"""F3: limits that only the edge knows, each with its unit and its reason."""

from __future__ import annotations

from jobsvc.model.limits import KIB, MIB

HEAD_DEADLINE_S = 10.0
"""A head has to be in within this from its first byte, whatever trickles in meanwhile: 408, then closed."""
BODY_GRACE_S = 10.0
"""Start of a body, before its rate is looked at: a slow link may need a moment."""
BODY_MIN_BYTES_PER_S = KIB
"""A body that comes slower than this, on average since its start and beyond the grace, is cut: 408."""
IDLE_S = 60.0
"""A connection between two requests, and a streamed upload without a byte, is closed after this."""
WRITE_STALL_S = 30.0
"""A client that takes nothing of a waiting reply for this long is cut off; streams can be resumed."""
SWEEP_S = 1.0
"""How often connections in the middle of a request are looked over: one timer for all of them."""
SWEEP_ALL_S = 5.0
"""How often the idle and the blocked ones are looked over too: there may be 20,000, and half a minute is long."""
LINGER_S = 2.0
"""After an early refusal we read and discard this long, or the client sees a reset instead of the reply."""
DISCARD_BYTES = 64 * KIB
"""A body that is refused by its head is read away up to this length, so that the connection lives on."""
CONNECTIONS_MAX = 20_000
"""Open connections; each costs about 10 KiB."""
OPEN_FILES_SHARE = 0.8
"""Of the process's open files, what connections may take; workers, database and logs need the rest."""
UNPROVEN_PER_ADDRESS_MAX = 64
"""Connections of one address that have not yet sent a full, authorised request. A browser opens six."""
REFUSALS_MAX = 64
"""Connections over a cap that are told so at the same time; more are closed without a word."""
REFUSAL_LOG_S = 10.0
"""A flood of connections makes one line in the log in this time."""
REQUESTS_PER_CONNECTION = 10_000
"""Then the connection closes with its reply: what leaks per connection stays small, balancers can shift load."""
WRITE_SLICE_BYTES = 64 * KIB
"""A large reply goes to the connection in pieces of this; the next when the client has taken what was written."""
REPLIES_HELD_BYTES = 256 * MIB
"""Large replies that wait for their readers, all together; beyond it one more is refused until some are gone. A stall
limit bounds how long each of them stays."""
HEADERS_COUNT_MAX = 500
"""Header lines of one request; browsers send about twenty."""
LENGTH_DIGITS_MAX = 18
"""A Content-Length of more digits is over any limit; Python refuses numbers of 4,300 digits with an exception."""
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
ROWS_AT_ONCE = 50
"""Rows of one page that one turn of the reactor renders, at 10 µs each: as many as a page has that names no limit."""
LONG_PAGES_AT_ONCE = 2
"""Pages of more rows than that which are made at the same time: while one is read, another one is rendered. What each
of them holds in memory has `PAGE_BYTES` and more."""
TAIL_WINDOW_BYTES = 512 * KIB
"""Rendered pieces kept for those readers of a tail that are still taking an earlier one: two pages of the store."""
TAIL_SLICE_READERS = 32
"""Readers that one turn of the reactor hands a piece to: each costs about 0.1 ms, and others are served in between."""
ATOMIC_ERRORS_MAX = 100
"""Bad lines named in the refusal of an atomic upload."""
REQUEST_ID_MAX_CHARS = 64
"""A client's own X-Request-ID; a longer one is replaced."""
ECHO_MAX_CHARS = 200
"""Of a client's own words (a field's name, a task's), what a problem document repeats."""
ELEMENTS_MAX = 100_000
"""Values in one body: each costs a Python object of 30 bytes or more wherever it is decoded."""
UNIQUE_KEYS_BYTES = 64 * KIB
"""Bodies up to this length are looked through for a key that stands twice in one object; longer ones, and bulk lines,
take the last."""
NESTING_MAX = 64
"""Depth of arrays and objects: more is an attack or a mistake, and every reader after us recurses."""
