"""Every row of the catalogue of bad input that the edge answers by itself, over TCP, TLS and a Unix socket (B70)."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.edge.cases import MARKER, Case
from tests.edge.rows import ROWS
from tests.edge.talk import TRANSPORTS, Front, Transport
from tests.http.wire import Reply

pytestmark = pytest.mark.filterwarnings(
    "ignore:Passing pyOpenSSL:DeprecationWarning"  # Twisted's own TLS code does
)

PROBLEM_MAX_BYTES = 10_000
"""The largest names a hundred wrong lines; whatever is sent, it does not grow with it."""
_FIELDS = {"type", "title", "status", "detail", "instance", "code", "source", "retry_safe"}
_MORE = {"errors", "retry_after_s", "job", "error"}


def check_reply(case: Case, reply: Reply) -> None:
    """The status, and a small problem document with nothing of the input in it."""
    shown = (case.data[:200], reply)
    assert reply.status in case.statuses, shown
    if reply.status < 400:
        return
    assert reply.headers["content-type"] == "application/problem+json", shown
    problem = reply.json()
    assert _FIELDS <= set(problem) <= _FIELDS | _MORE | {"status"}, shown
    assert problem["status"] == reply.status, shown
    assert problem["instance"] == reply.headers["x-request-id"], shown
    assert not case.codes or problem["code"] in case.codes, shown
    assert len(reply.body) < PROBLEM_MAX_BYTES, shown
    assert MARKER not in reply.body, shown
    assert "access-control-allow-origin" not in reply.headers, shown
    if reply.status == 405:
        assert reply.headers["allow"], shown
    if reply.status == 401:
        assert reply.headers["www-authenticate"].startswith("Bearer"), shown


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("row", ROWS)
@pytest_twisted.ensureDeferred
async def test_row(front: Front, row: str, transport: Transport) -> None:
    """One reply with the right status; where the framing is broken, the end; and the next client is served."""
    for case in ROWS[row]:
        talker = await front.ask(transport, case.data)
        try:
            replies = talker.replies()
            assert len(replies) == 1, (case.data[:200], talker.got)
            check_reply(case, replies[0])
            assert (b" 100 Continue" in talker.got) == case.says_continue, case.data[:200]
            if case.closes:
                assert replies[0].headers.get("connection") == "close", (case.data[:200], replies)
                assert await front.ends(talker), case.data[:200]
        finally:
            await front.hang_up(talker)
    await front.alive(transport)
