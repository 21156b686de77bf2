"""Tokens on a real daemon: made by the command, used by a plain client, revoked, replaced; a restart keeps them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

TASKS = """
from jobsvc import task

@task
async def held(gate: str) -> str:
    import asyncio
    from pathlib import Path
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return "through"
"""
TIMEOUT_S = 60.0


def made(daemon: Daemon, *words: str) -> dict[str, Any]:
    """What `jobsvc token` prints."""
    done = daemon.cli("token", *words)
    assert done.returncode == 0, done.stderr
    token: dict[str, Any] = json.loads(done.stdout)
    return token


def status(daemon: Daemon, token: str, path: str = "/v1/jobs") -> int:
    """What a client that knows nothing but HTTP gets."""
    request = urllib.request.Request(daemon.url + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            code: int = reply.status
            return code
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_tokens_of_a_real_daemon(start_daemon: StartDaemon) -> None:
    """Create, use, revoke: at once, streams too. Rotate, also the first one. Both ends of it survive a restart, a
    kill among them, and no secret is in any file but the one it belongs to.
    """  # fmt: skip
    daemon = start_daemon(TASKS)
    job = daemon.submit("held", "gate")
    kept = made(daemon, "create", "kept", "--scope", "read", "--expires", "30d")
    gone = made(daemon, "create", "gone", "--scope", "read")
    assert [status(daemon, token["token"]) for token in (kept, gone)] == [200, 200]

    ticket = daemon.post(f"/v1/jobs/{job['id']}/share").json()
    with (
        httpx2.stream("GET", daemon.url + ticket["url"], timeout=TIMEOUT_S, trust_env=False) as shared,
        httpx2.stream(
            "GET",
            f"{daemon.url}/v1/jobs/{job['id']}/events",
            headers={"Authorization": f"Bearer {gone['token']}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        ) as followed,
    ):
        assert (shared.status_code, followed.status_code) == (200, 200)
        lines = followed.iter_lines()
        next(lines)
        assert daemon.cli("token", "revoke", gone["id"]).returncode == 0
        assert status(daemon, gone["token"]) == 401
        with pytest.raises(httpx2.TransportError):
            list(lines)  # cut off, without a clean end
        daemon.open_gate()
        assert any("event: end" in line for line in shared.iter_lines())

    first, file = daemon.token, daemon.data_dir / "token"
    rotated = made(daemon, "rotate", first.partition("_")[2].partition(".")[0])
    assert file.read_text().strip() == rotated["token"] != first
    assert file.stat().st_mode & 0o777 == 0o600
    assert [status(daemon, text) for text in (first, rotated["token"])] == [401, 200]

    for end in (daemon.stop, daemon.kill):
        end()
        daemon.start()
        wanted = {kept["token"]: 200, gone["token"]: 401, first: 401, rotated["token"]: 200}
        assert {text: status(daemon, text) for text in wanted} == wanted
    listed = [json.loads(line) for line in daemon.cli("token", "list", "--all").stdout.splitlines()]
    assert [(token["name"], token["state"]) for token in listed] == [
        ("first", "active"),
        ("kept", "active"),
        ("gone", "revoked"),
    ]
    assert listed[1]["used_at"] is not None
    daemon.stop()

    secrets = {
        text.partition(".")[2].encode() for text in (kept["token"], gone["token"], first, rotated["token"])
    }
    for place in daemon.data_dir.rglob("*"):
        if place.is_file() and place != file:
            body = place.read_bytes()
            assert not any(secret in body for secret in secrets), place
    assert not any(secret.decode() in daemon.log for secret in secrets)
    assert ticket["ticket"] not in daemon.log
