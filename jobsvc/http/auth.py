"""F3: who may ask: one bearer token, compared in constant time by its SHA-256.

Must not read files: the token is given as text by the composition root.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest

from jobsvc.http.request import Request
from jobsvc.model.access import Principal
from jobsvc.model.errors import JobsvcError

OPEN_PATHS = frozenset((b"/livez", b"/healthz", b"/readyz", b"/docs"))
"""For load balancers and supervisors, and the page about the API, which is the same everywhere;
/readyz with a query tells more, and asks for the token."""
_SCHEME = b"bearer "


class Gate:
    """Lets in who brings the token.

    Args:
        token: the text `jobsvc_<id>.<secret>`; only its digest is kept.
    """

    def __init__(self, token: str) -> None:
        self._digest = sha256(token.encode()).digest()
        self._principal = Principal(token=token.removeprefix("jobsvc_").partition(".")[0])

    def admit(self, request: Request) -> None:
        """Say who asks. Raises `unauthenticated` unless the request may pass."""
        if request.path in OPEN_PATHS and not request.query:
            return
        given = request.requestHeaders.getRawHeaders(b"authorization")
        if given is None:
            raise JobsvcError("unauthenticated", "Send the token: Authorization: Bearer …")
        if len(given) != 1 or given[0][: len(_SCHEME)].lower() != _SCHEME:
            raise JobsvcError("unauthenticated", "Authorization is expected once, as Bearer and the token.")
        if not compare_digest(sha256(given[0][len(_SCHEME) :].strip()).digest(), self._digest):
            raise JobsvcError("unauthenticated", "This token is not valid here.")
        request.principal = self._principal
