"""F3: conditional requests (RFC 9110, section 13): If-Match and If-None-Match as revisions of a job. Values in and out.

Parsed strictly: a condition that cannot be read is refused, since to pass over it would do what the client forbade.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError

_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_OURS = re.compile(rb'"r([1-9]\d{0,17})"')
_BETWEEN = b" \t,"


class Tags(NamedTuple):
    """The entity tags of one header, in their quotes. `every`: it was `*`."""

    every: bool
    strong: frozenset[bytes] = frozenset()
    weak: frozenset[bytes] = frozenset()

    def includes(self, tag: bytes) -> bool:
        """Whether `tag` is among them, by weak comparison."""
        return self.every or tag in self.strong or tag in self.weak


def etag(revision: int) -> bytes:
    """The entity tag of a job: strong, as every change of what is served has its own revision."""
    return b'"r%d"' % revision


def tags_of(request: Request, name: bytes) -> Tags | None:
    """The entity tags of that header; None when the request has none.

    Raises:
        JobsvcError: bad_query, for what is neither `*` nor a list of quoted tags.
    """
    given = request.requestHeaders.getRawHeaders(name)
    if given is None:
        return None
    text = b",".join(given)
    if text.strip(b" \t") == b"*":
        return Tags(every=True)
    strong: list[bytes] = []
    weak: list[bytes] = []
    at, listed = 0, True  # `listed`: a comma, or the start, stands before what comes
    while at < len(text):
        if text[at] in _BETWEEN:
            listed = listed or text[at] == ord(",")
            at += 1
            continue
        found = _TAG.match(text, at)
        if found is None or not listed:
            break
        (weak if found[1] else strong).append(found[2])
        at, listed = found.end(), False
    if at < len(text) or not (strong or weak):
        title = name.decode().title()
        raise JobsvcError("bad_query", f'{title}: `*`, or ETags in quotes joined by commas: {title}: "r3".')
    return Tags(False, frozenset(strong), frozenset(weak))


def if_match(request: Request) -> frozenset[int] | None:
    """The revisions that a change may find; None = any.

    By strong comparison: a weak tag (`W/`) never matches, nor does a tag that is none of ours. Raises bad_query.
    """
    tags = tags_of(request, b"if-match")
    return None if tags is None or tags.every else _revisions(tags.strong)


def required_match(request: Request) -> frozenset[int] | None:
    """The same where the request must say it, be it by `*`. Raises precondition_required, bad_query."""
    if not request.requestHeaders.hasHeader(b"if-match"):
        raise JobsvcError(
            "precondition_required",
            "If-Match is required: send the ETag of the job as you know it, so that no other change is lost.",
        )
    return if_match(request)


class Known(NamedTuple):
    """The revisions of a job that the client has, by If-None-Match. `every`: whichever there is."""

    every: bool
    revisions: frozenset[int]

    def includes(self, revision: int) -> bool:
        """Whether it has this one."""
        return self.every or revision in self.revisions

    @property
    def single(self) -> int | None:
        """The only one; None when there are more, or none of ours."""
        return next(iter(self.revisions)) if len(self.revisions) == 1 and not self.every else None


def if_none_match(request: Request) -> Known | None:
    """What the client has; None when it does not say. Weak tags count. Raises bad_query."""
    tags = tags_of(request, b"if-none-match")
    return None if tags is None else Known(tags.every, _revisions(tags.strong | tags.weak))


def _revisions(tags: frozenset[bytes]) -> frozenset[int]:
    return frozenset(int(found[1]) for tag in tags if (found := _OURS.fullmatch(tag)) is not None)
