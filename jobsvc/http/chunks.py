"""F3: a body in chunks, read more strictly than twisted.web does: its trailers, and how long a chunk may say it is.

twisted.web throws trailers away without a look. But where a line of them ends in LF alone, a proxy in front may see
the end of the body, and what we would throw away is its next request: two readers of the same bytes must not differ.
"""

from __future__ import annotations

from twisted.web import http

from jobsvc.http import framing


class Chunks(http._ChunkedTransferDecoder):  # noqa: SLF001 - it has no public name
    """See the module."""

    length: int

    def _dataReceived_CHUNK_LENGTH(self) -> bool:  # noqa: N802 - Twisted's name
        known = super()._dataReceived_CHUNK_LENGTH()
        if known and self.length > framing.CHUNK_MAX_BYTES:
            raise http._MalformedChunkedDataError("chunk too long")  # noqa: SLF001
        return known

    def _dataReceived_TRAILER(self) -> bool:  # noqa: N802 - Twisted's name
        seen = len(self._trailerHeaders)
        more = super()._dataReceived_TRAILER()
        if not all(map(framing.is_field, self._trailerHeaders[seen:])):
            raise http._MalformedChunkedDataError("a trailer is no header line")  # noqa: SLF001
        return more
