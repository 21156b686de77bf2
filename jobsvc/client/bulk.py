"""F2: bodies of bulk submits, made lazily in batches of bounded size. No I/O.

Two writers make lines: `MapLines` (one task, many arguments) and `SubmitLines` (whole submissions). Encoding goes
straight into one buffer, so a line costs well under a microsecond beside the encoding itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from jobsvc.client.calls import encode, encoder, holds_nan, submission
from jobsvc.client.shapes import Args, Options

FIRST_LINES = 256
"""The first batch is small, so that results of a slowly produced input begin early; each next one is twice as large."""
BATCH_LINES = 8_192
"""Largest batch: from here on the cost of the request itself is lost in the noise."""
BATCH_BYTES = 4 * 1024 * 1024
"""A batch is sent at this size, whatever its lines: with two of them in flight a map stays below 20 MB."""
GATHER_S = 0.1
"""A batch is sent at the first line after this time, so that a slow source does not hold back what it gave."""

_NEWLINE = b"\n"
_NULL = b"null"

Submission: TypeAlias = Mapping[str, Any] | tuple[str, Args]
"""One job of `submit_many`: `(task, args)`, or the fields of a submit body, `task` among them."""


class Batch(NamedTuple):
    """Lines `first` … `first + lines - 1` of the whole input (from 1). `repeatable`: every line has a key."""

    first: int
    lines: int
    body: bytes
    repeatable: bool


class LineWriter(Protocol):
    """Appends one line to a buffer; answers whether it has a key."""

    def __call__(self, buffer: bytearray, number: int, entry: Any) -> bool:
        """`number` is the line's number in the whole input, from 1. Raises TypeError or ValueError for bad input."""


class MapLines:
    """One task, one line for each entry's arguments; with a key, line n gets `key:n`."""

    def __init__(self, task: str, options: Options) -> None:
        rest = dict(options)
        self._key = rest.pop("key", None)
        self._head = b'{"task":' + encode(task) + b',"args":'
        self._tail = (b"," + encode(rest)[1:] if rest else b"}") + _NEWLINE

    def __call__(self, buffer: bytearray, number: int, entry: Any) -> bool:
        """See `LineWriter`."""
        buffer += self._head
        start = len(buffer)
        encoder.encode_into({} if entry is None else entry, buffer, -1)
        if buffer.find(_NULL, start) >= 0 and holds_nan(entry):
            raise ValueError(f"line {number}: NaN and infinities cannot be sent: JSON has no such numbers")
        if self._key is not None:
            buffer += b',"key":' + encode(f"{self._key}:{number}")
        buffer += self._tail
        return self._key is not None


class SubmitLines:
    """One line for each whole submission."""

    def __call__(self, buffer: bytearray, number: int, entry: Any) -> bool:
        """See `LineWriter`."""
        body = entry if isinstance(entry, Mapping) else submission(entry[0], entry[1], {})
        start = len(buffer)
        encoder.encode_into(body, buffer, -1)
        if buffer.find(_NULL, start) >= 0 and holds_nan(body):
            raise ValueError(f"line {number}: NaN and infinities cannot be sent: JSON has no such numbers")
        buffer += _NEWLINE
        return body.get("key") is not None


def batches(entries: Iterable[Any], write: LineWriter, clock: Callable[[], float]) -> Iterator[Batch]:
    """Batches of lines, made when asked for. What `entries` or the encoding raises comes after what was good before."""
    source = iter(entries)
    first, size = 1, FIRST_LINES
    while True:
        buffer, count, repeatable = bytearray(), 0, True
        trouble: Exception | None = None
        began = clock()
        good = 0
        try:
            for entry in source:
                repeatable &= write(buffer, first + count, entry)
                count += 1
                good = len(buffer)
                if count >= size or good >= BATCH_BYTES or clock() - began > GATHER_S:
                    break
        except Exception as error:  # noqa: BLE001 - kept, and raised in its place below
            trouble = error
        if count:
            yield Batch(first, count, bytes(memoryview(buffer)[:good]), repeatable)
        if trouble is not None:
            raise trouble
        if not count:
            return
        first += count
        size = min(BATCH_LINES, size * 2)
