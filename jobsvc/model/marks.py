"""F0: what a worker tells outside its channel, where a message would cost too much or come too late. Pure.

The mark says who runs at this moment, and still does so after the worker's death. The seal says in a pipe of printed
text where the text of one attempt ends.
"""

from __future__ import annotations

from struct import Struct

MARK = Struct("<qqqq")
"""Row number, epoch, wall clock at begin in microseconds, generation (counts the begins; a reader that sees it change
reads again). A negative row number: that one has ended and nothing runs; 0: nothing has run yet."""

SEAL_START = b"\x1ejobsvc end "
"""ASCII's record separator: no text that people print starts so."""
SEAL_MAX_BYTES = 54
"""One write of this size is never torn by another; a read may still end in the middle of it."""


def seal_of(no: int, epoch: int) -> bytes:
    """The seal: all before it was printed by this attempt."""
    return SEAL_START + b"%d %d\n" % (no, epoch)
