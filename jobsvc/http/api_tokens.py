"""F3: handlers of tokens: make, list, replace, revoke, and who am I; and of tickets that share one job.

A token's text leaves in the reply that makes it and never again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jobsvc.http.bodies import decode, json_body
from jobsvc.http.edge import Edge, json_reply
from jobsvc.http.grants import Grant
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.http.tickets import TICKET_MAX_S, TICKET_S, Ticket
from jobsvc.model.access import DEFAULT_TENANT, Scope
from jobsvc.model.clock import named_time_us, time_text
from jobsvc.model.errors import JobsvcError, invalid_field
from jobsvc.model.ids import id_text
from jobsvc.model.job import NAME_PATTERN, AwareTime, PositiveSeconds
from jobsvc.model.limits import NAME_MAX_CHARS
from jobsvc.model.tokens import FIRST_TOKEN_NAME, Token

NARROWED_MAX: Final = 100
"""Tasks, or queues, that one token may be narrowed to: all of them stand in the WHERE of its lists."""
GRACE_MAX_S: Final = 7 * 86_400.0
"""How long a token may be good beside the one that replaces it: a week is time to bring the new one everywhere."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]


class TokenIn(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/tokens`. `tenant`: the asker's own when left out. Without expiry it is good until revoked."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX_CHARS)]
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    tenant: Name | UnsetType = UNSET
    tasks: Annotated[list[Name], Meta(max_length=NARROWED_MAX)] = []
    queues: Annotated[list[Name], Meta(max_length=NARROWED_MAX)] = []
    expires_at: AwareTime | UnsetType = UNSET
    ttl_s: PositiveSeconds | UnsetType = UNSET


class Rotate(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a rotation. `grace_s`: how long the old token is good beside the new one."""

    grace_s: Annotated[float, Meta(ge=0, le=GRACE_MAX_S)] = 0.0


class ShareIn(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a share. `ttl_s`: how long the ticket is good."""

    ttl_s: Annotated[float, Meta(gt=0, le=TICKET_MAX_S)] = TICKET_S


class TokenView(msgspec.Struct):
    """A token as it is served: everything but the secret. Empty `tasks`, `queues`: not narrowed."""

    id: str
    name: str
    tenant: str
    scopes: Sequence[Scope]
    tasks: Sequence[str]
    queues: Sequence[str]
    state: Literal["active", "expired", "revoked"]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    used_at: str | None


class NewTokenView(TokenView):
    """The same with `token`, its text, which is never shown again."""

    token: str


class TicketView(msgspec.Struct):
    """A ticket. `url`: the path of the job's events, with the ticket."""

    ticket: str
    url: str
    expires_at: str


_token_decoder = msgspec.json.Decoder(TokenIn)
_rotate_decoder = msgspec.json.Decoder(Rotate)
_share_decoder = msgspec.json.Decoder(ShareIn)


async def tokens(edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /v1/tokens`."""
    now = edge.engine.now_us()
    shown = [_view(grant, now) for grant in edge.registry.all() if _manages(request, grant)]
    return json_reply(request, 200, {"tokens": shown})


async def create(edge: Edge, request: Request, _query: Query) -> bytes:
    """`POST /v1/tokens`."""
    template = _template(edge, request, decode(_token_decoder, json_body(request)))
    made, text = await edge.background.detached(lambda: edge.registry.create(template))
    return _created(edge, request, made, text)


async def token(edge: Edge, request: Request, _query: Query, token_id: str) -> bytes:
    """`GET /v1/tokens/{id}`."""
    return json_reply(request, 200, _view(_found(edge, request, token_id), edge.engine.now_us()))


async def whoami(edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /v1/tokens/self`."""
    grant = edge.registry.get(request.asker.token)
    assert grant is not None  # it has just let this request in
    return json_reply(request, 200, _view(grant, edge.engine.now_us()))


async def revoke(edge: Edge, request: Request, _query: Query, token_id: str) -> bytes:
    """`DELETE /v1/tokens/{id}`."""
    grant = _found(edge, request, token_id)
    await edge.background.detached(lambda: edge.registry.revoke(grant))
    return request.reply(204, b"", b"")


async def rotate(edge: Edge, request: Request, _query: Query, token_id: str) -> bytes:
    """`POST /v1/tokens/{id}/rotate`."""
    body = json_body(request)
    grace_s = (decode(_rotate_decoder, body) if body else Rotate()).grace_s
    grant = _found(edge, request, token_id)
    made, text = await edge.background.detached(lambda: edge.registry.rotate(grant, grace_s))
    return _created(edge, request, made, text)


async def share(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`POST /v1/jobs/{id}/share`."""
    body = json_body(request)
    ttl_s = (decode(_share_decoder, body) if body else ShareIn()).ttl_s
    await edge.engine.get(job_id, request.tenant)  # it is there, and the tenant's
    expires_at = edge.engine.now_us() + int(ttl_s * 1e6)
    text = edge.tickets.write(Ticket(job_id, expires_at, request.asker.token))
    url = f"/v1/jobs/{id_text(job_id)}/events?ticket={text}"
    return json_reply(request, 201, TicketView(text, url, time_text(expires_at)))


def _template(edge: Edge, request: Request, asked: TokenIn) -> Token:
    """The token that is asked for, but for its id and secret. Raises invalid_field, forbidden."""
    now = edge.engine.now_us()
    tenant = request.tenant if asked.tenant is UNSET else asked.tenant
    if request.tenant not in (DEFAULT_TENANT, tenant):
        raise JobsvcError(
            "forbidden", f"/tenant: this token makes tokens of its own tenant {request.tenant!r} only."
        )
    if not asked.name.isprintable() or asked.name == FIRST_TOKEN_NAME:
        raise invalid_field("/name", f"printable characters, and not {FIRST_TOKEN_NAME!r}, are expected")
    if "admin" in asked.scopes and (asked.tasks or asked.queues):
        raise invalid_field("/scopes", "admin may do everything: a token with it cannot be narrowed")
    expires_at = None
    if asked.expires_at is not UNSET:
        if asked.ttl_s is not UNSET:
            raise invalid_field("/ttl_s", "give expires_at or ttl_s, not both")
        expires_at = named_time_us("/expires_at", asked.expires_at)
    elif asked.ttl_s is not UNSET:
        expires_at = now + int(asked.ttl_s * 1e6)
    if expires_at is not None and expires_at <= now:
        raise invalid_field("/expires_at", "has passed already")
    return Token(
        id="",
        name=asked.name,
        hash=b"",
        tenant=tenant,
        scopes=tuple(dict.fromkeys(asked.scopes)),
        tasks=tuple(dict.fromkeys(asked.tasks)),
        queues=tuple(dict.fromkeys(asked.queues)),
        created_at=now,
        expires_at=expires_at,
    )


def _manages(request: Request, grant: Grant) -> bool:
    """Whether the asker, who has the scope admin, has a say in that token: the operator in all, others in their own."""
    return request.tenant in (DEFAULT_TENANT, grant.token.tenant)


def _found(edge: Edge, request: Request, token_id: str) -> Grant:
    grant = edge.registry.get(token_id)
    if grant is None or not _manages(request, grant):
        raise JobsvcError("not_found", "There is no such token; GET /v1/tokens lists them.")
    return grant


def _created(edge: Edge, request: Request, made: Grant, text: str) -> bytes:
    view = _view(made, edge.engine.now_us())
    request.header(b"Location", b"/v1/tokens/" + view.id.encode())
    request.target = view.id  # in the audit log
    return json_reply(request, 201, NewTokenView(**msgspec.structs.asdict(view), token=text))


def _view(grant: Grant, now: int) -> TokenView:
    token = grant.token
    ended = grant.ended(now)
    return TokenView(
        id=token.id,
        name=token.name,
        tenant=token.tenant,
        scopes=token.scopes,
        tasks=token.tasks,
        queues=token.queues,
        state="active" if ended is None else ended,
        created_at=time_text(token.created_at),
        expires_at=_time(token.expires_at),
        revoked_at=_time(token.revoked_at),
        used_at=_time(grant.used_at),
    )


def _time(at: int | None) -> str | None:
    return None if at is None else time_text(at)
