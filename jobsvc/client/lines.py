"""F2: NDJSON out of bytes, in whatever pieces they come. No I/O; decoding many lines costs one call."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class LineParser(Generic[T]):
    """Feed it bytes, take the values of the lines that are complete. Empty lines (heartbeats) are skipped.

    Raises `msgspec.DecodeError` when a line is no JSON or has another shape.
    """

    def __init__(self, shape: type[T]) -> None:
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(shape)
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[T]:
        """The values that `chunk` completes; the rest of an unfinished line is kept for the next call."""
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            # Only collected: a line of many megabytes is joined once, not at every piece.
            self._parts.append(chunk)
            return []
        block = b"".join((*self._parts, chunk[:cut])) if self._parts else chunk[:cut]
        self._parts = [chunk[cut:]] if cut < len(chunk) else []
        return self._decoder.decode_lines(block)

    def end(self) -> list[T]:
        """At a clean end: the value of a last line without newline."""
        block, self._parts = b"".join(self._parts), []
        return self._decoder.decode_lines(block)
