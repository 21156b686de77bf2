"""F3: refusals of who asks, with what RFC 6750 wants to stand in WWW-Authenticate. Decides nothing."""

from __future__ import annotations

from typing import Any, Final

from jobsvc.model.errors import Code, JobsvcError

CHALLENGE: Final = b'Bearer realm="jobsvc"'
"""What a request without any token is told: which scheme is wanted, and no error (RFC 6750, section 3.1)."""


class Challenge(JobsvcError):
    """A refusal for the token's sake.

    Attributes:
        challenge: the value of WWW-Authenticate.
    """

    def __init__(self, code: Code, detail: str, challenge: bytes = CHALLENGE, **context: Any) -> None:
        super().__init__(code, detail, **context)
        self.challenge = challenge


def invalid_token(detail: str) -> Challenge:
    """A token was sent, and it is not good."""
    return Challenge("unauthenticated", detail, CHALLENGE + b', error="invalid_token"')


def malformed(detail: str) -> Challenge:
    """What was sent is no token at all."""
    return Challenge("unauthenticated", detail, CHALLENGE + b', error="invalid_request"')


def lacks(scope: str) -> Challenge:
    """The token is good, but not for this."""
    return Challenge(
        "forbidden",
        f"The token lacks the scope {scope!r}.",
        CHALLENGE + b', error="insufficient_scope", scope="%b"' % scope.encode(),
    )
