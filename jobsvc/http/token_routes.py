"""F3: the table of the routes of tokens and of sharing, beside `routes`."""

from __future__ import annotations

from typing import Final

from jobsvc.http import api_tokens
from jobsvc.http.route import READING, Answer, Route

_MADE = Answer("The new token; its text is shown this once.", api_tokens.NewTokenView, headers=("Location",))

TOKEN_ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/v1/tokens",
        name="tokens.list",
        scope="admin",
        handler=api_tokens.tokens,
        doc="All tokens, oldest first, without their secrets; of another tenant than the operator's, its own.",
        answers={200: Answer("The tokens.", dict[str, list[api_tokens.TokenView]])},
    ),
    Route(
        method="POST",
        path="/v1/tokens",
        name="tokens.create",
        scope="admin",
        handler=api_tokens.create,
        doc="A new token with these scopes, narrowed to these tasks and queues if there are any.",
        answers={201: _MADE},
        takes_body=True,
        body=api_tokens.TokenIn,
        refusals=(*READING, "conflict", "disk_full", "overloaded"),
    ),
    Route(
        method="GET",
        path="/v1/tokens/self",
        name="tokens.self",
        scope="any",
        handler=api_tokens.whoami,
        doc="The token that asks.",
        answers={200: Answer("The token.", api_tokens.TokenView)},
    ),
    Route(
        method="GET",
        path="/v1/tokens/{token_id}",
        name="tokens.get",
        scope="admin",
        handler=api_tokens.token,
        doc="One token.",
        answers={200: Answer("The token.", api_tokens.TokenView)},
        refusals=("not_found",),
    ),
    Route(
        method="DELETE",
        path="/v1/tokens/{token_id}",
        name="tokens.revoke",
        scope="admin",
        handler=api_tokens.revoke,
        doc="Refuse a token from now on; what streams with it is cut off.",
        answers={204: Answer("It is revoked.", media=())},
        refusals=("not_found", "conflict", "disk_full", "overloaded"),
    ),
    Route(
        method="POST",
        path="/v1/tokens/{token_id}/rotate",
        name="tokens.rotate",
        scope="admin",
        handler=api_tokens.rotate,
        doc="A new token in the place of this one, which ends at once or after grace_s.",
        answers={201: _MADE},
        takes_body=True,
        body=api_tokens.Rotate,
        refusals=(*READING, "not_found", "conflict", "disk_full", "overloaded"),
    ),
    Route(
        method="POST",
        path="/v1/jobs/{job_id}/share",
        name="jobs.share",
        handler=api_tokens.share,
        doc="A ticket by which whoever has it can follow this job for a while, and do nothing else.",
        answers={201: Answer("The ticket, and the path of the events with it.", api_tokens.TicketView)},
        takes_body=True,
        body=api_tokens.ShareIn,
        refusals=(*READING, "not_found", "purged"),
    ),
)
