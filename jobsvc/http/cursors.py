"""F3: the cursors of lists: where the next page begins, bound to what was listed. Opaque: clients only send them back.

A place is a row number, so a page stays where it is however many jobs come in. A cursor that is sent with other filters
or another order would give a page of nothing known, hence it carries a mark of both; it is no secret and no signature.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import msgspec

from jobsvc.model.errors import JobsvcError
from jobsvc.ports import JobFilter

_PLAIN = re.compile(rb"2:([0-9a-f]{12}):([0-9]{1,18})")
_encode = msgspec.json.Encoder(order="sorted").encode


def cursor_behind(no: int, wanted: JobFilter) -> str:
    """The cursor of the page that begins behind this row of the list."""
    return urlsafe_b64encode(f"2:{_mark(wanted)}:{no}".encode()).decode().rstrip("=")


def place_of(text: str, wanted: JobFilter) -> int:
    """The row behind which the page begins.

    Raises:
        JobsvcError: bad_query; it is no cursor of ours, or of another list.
    """
    try:
        plain = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        plain = b""
    found = _PLAIN.fullmatch(plain)
    if found is None:
        raise JobsvcError("bad_query", "cursor: send back `next` of the page before, as it is.")
    if found[1].decode() != _mark(wanted):
        raise JobsvcError(
            "bad_query",
            "cursor: it belongs to a list with another order or other filters; keep them from page to page.",
        )
    return int(found[2])


def _mark(wanted: JobFilter) -> str:
    """The same for every page of one list: who asks, in which order, for which jobs; not how many, how much of them."""
    states = sorted(set(wanted.states))
    what = (
        wanted.tenant, wanted.ascending, states, wanted.task, wanted.queue, wanted.labels, wanted.since,
    )  # fmt: skip
    return sha256(_encode(what)).hexdigest()[:12]
