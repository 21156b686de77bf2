"""`jobsvc token` over the true edge in memory: what it prints once, what the daemon then thinks of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from click.testing import CliRunner

from jobsvc.cli import exits
from jobsvc.cli.arguments import duration_s
from jobsvc.cli.root import root, run
from jobsvc.cli.shell import Shell
from jobsvc.client import Client
from tests.http.wire import TOKEN

if TYPE_CHECKING:
    from tests.http.house import House


class IntoHouse(httpx2.BaseTransport):
    """Brings a client's requests to the edge, each on a connection of its own."""

    def __init__(self, house: House) -> None:
        self._house = house

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        wire = self._house.wire()
        headers = {"Authorization": request.headers["authorization"], "Content-Type": "application/json"}
        wire.request(request.method, request.url.raw_path.decode(), request.read(), headers, token=None)
        reply = wire.reply()
        return httpx2.Response(reply.status, headers=reply.headers, content=reply.body)


class Command:
    """Runs `jobsvc token` in this process, as a program (pipes) or for a person (`terminal`)."""

    def __init__(self, house: House, capsys: pytest.CaptureFixture[str]) -> None:
        self.house = house
        self.token = TOKEN
        self._capsys = capsys

    def __call__(self, *words: str, terminal: bool = False) -> tuple[int, str, str]:
        shell = Shell(
            lambda: Client("http://localhost:8787", self.token, transport=IntoHouse(self.house)),
            terminal=terminal,
        )
        code = run(list(words) if words[0] == "share" else ["token", *words], shell)
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def token(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    # Imported late: Klein brings a reactor, and this file is read before the one asked for is installed.
    from tests.http.house import House

    monkeypatch.setenv("COLUMNS", "160")
    house = House()
    yield Command(house, capsys)
    house.close()


def status(token: Command, text: str) -> int:
    return token.house.ask("GET", "/v1/info", headers={"Authorization": f"Bearer {text}"}).status


def test_create_prints_the_token_once(token: Command) -> None:
    """JSON for a program, the text alone for a person or with --bare; it works at once, with what was asked for."""
    words = [
        "ci",
        "--scope",
        "read",
        "--scope",
        "submit",
        "--task",
        "echo",
        "--queue",
        "fast",
        "--tenant",
        "acme",
        "--expires",
        "30d",
    ]
    code, out, err = token("create", *words)
    made = json.loads(out)
    assert (code, err) == (exits.OK, "")
    assert (made["name"], made["tenant"], made["scopes"]) == ("ci", "acme", ["read", "submit"])
    assert (made["tasks"], made["queues"]) == (["echo"], ["fast"])
    assert made["created_at"][:10] < made["expires_at"][:10]
    assert status(token, made["token"]) == 200
    code, out, err = token("create", "mine", "--scope", "read", terminal=True)
    assert status(token, out.strip()) == 200
    assert "will not be shown again" in err
    assert out.strip() not in err
    assert status(token, token("create", "mine", "--scope", "read", "--bare")[1].strip()) == 200


def test_list_shows_no_secret(token: Command) -> None:
    """Those that are good, with --all the others too; a table for a person."""
    kept = json.loads(token("create", "kept", "--scope", "read", "--task", "echo")[1])
    gone = json.loads(token("create", "gone", "--scope", "admin")[1])
    assert token("revoke", gone["id"])[0] == exits.OK
    code, out, _ = token("list")
    assert code == exits.OK
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["first", "kept"]
    _, out, _ = token("list", "--all", terminal=True)
    assert kept["token"].partition(".")[2] not in out
    first, *rows = out.splitlines()
    assert first.split()[:2] == ["ID", "STATE"]
    assert [row.split()[:2] for row in rows] == [
        ["test", "active"],
        [kept["id"], "active"],
        [gone["id"], "revoked"],
    ]
    assert "kept (tasks: echo)" in rows[1]


def test_a_narrow_terminal_takes_nothing_from_an_id(token: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is wider than the terminal then: half an id cannot be revoked."""
    kept = json.loads(token("create", "kept", "--scope", "read", "--scope", "submit")[1])
    monkeypatch.setenv("COLUMNS", "30")
    first, *rows = token("list", terminal=True)[1].splitlines()
    assert first.split() == ["ID", "STATE", "TENANT", "SCOPES", "EXPIRES", "LAST", "USED", "NAME"]
    assert rows[1].split() == [kept["id"], "active", "default", "read,submit", "never", "never", "kept"]
    assert "…" not in "".join(rows)


def test_revoke_is_effective_at_once(token: Command) -> None:
    """One bad id does not keep the others from their end; its code is the answer."""
    one, two = (json.loads(token("create", name, "--scope", "read")[1]) for name in ("one", "two"))
    code, out, err = token("revoke", one["id"], "nobody", two["id"])
    assert (code, out) == (exits.NOT_FOUND, "")
    assert "nobody" in err
    assert [status(token, made["token"]) for made in (one, two)] == [401, 401]


def test_rotate_prints_the_new_one(token: Command) -> None:
    """The old one ends at once, or after --grace."""
    old = json.loads(token("create", "ci", "--scope", "read")[1])
    new = json.loads(token("rotate", old["id"], "--grace", "10m")[1])
    assert [status(token, made["token"]) for made in (old, new)] == [200, 200]
    token.house.after(600)
    assert [status(token, made["token"]) for made in (old, new)] == [401, 200]
    code, out, err = token("rotate", new["id"], terminal=True)
    assert (code, status(token, out.strip()), status(token, new["token"])) == (exits.OK, 200, 401)
    assert "not be shown again" in err
    assert token("rotate", new["id"])[0] == exits.NOT_FOUND  # 409: it has ended


def test_show_is_the_token_in_use(token: Command) -> None:
    token.token = token("create", "viewer", "--scope", "read", "--bare")[1].strip()
    _, out, _ = token("show")
    assert json.loads(out)["name"] == "viewer"
    drawn = token("show", terminal=True)[1]
    assert "viewer" in drawn
    assert "revoked_at" not in drawn
    code, _, err = token("create", "more", "--scope", "admin")
    assert code == exits.NOT_ALLOWED
    assert "lacks the scope 'admin'" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "x"], "--scope"),
        (["create", "x", "--scope", "root"], "'root' is not one of"),
        (["create", "x", "--scope", "read", "--expires", "soon"], "30d, 12h"),
        (["create", "x", "--scope", "read", "--expires", "5y"], "30d, 12h"),
        (["rotate", "x", "--grace", "-3"], "30d, 12h"),
        (["revoke"], "ID..."),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(token: Command, words: list[str], said: str) -> None:
    code, out, err = token(*words)
    assert (code, out) == (exits.USAGE, "")
    assert said in err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 2_592_000), ("12h", 43_200), ("90m", 5_400), ("1.5 min", 90), ("45", 45), ("2W", 1_209_600)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert duration_s(text, "--expires") == seconds


def test_a_moment_is_sent_as_it_is(token: Command) -> None:
    made = json.loads(token("create", "x", "--scope", "read", "--expires", "2099-01-31T00:00:00Z")[1])
    assert made["expires_at"] == "2099-01-31T00:00:00.000000Z"
    code, _, err = token("create", "x", "--scope", "read", "--expires", "2099-01-31T00:00")
    assert code == exits.FAILED
    assert "expires_at" in err


def test_the_shell_completes_commands_and_scopes() -> None:
    """As click does, from the same definitions."""
    for words, current, expected in (
        ("jobsvc token ", "", {"create", "list", "show", "rotate", "revoke"}),
        ("jobsvc token create x --scope ", "", {"read", "submit", "operate", "admin"}),
    ):
        environ: dict[str, Any] = {
            "_JOBSVC_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split())),
        }
        done = CliRunner().invoke(root, [], prog_name="jobsvc", complete_var="_JOBSVC_COMPLETE", env=environ)
        assert {line.partition(",")[2] for line in done.output.splitlines()} == expected, current
    assert "jobsvc.cli.tokens" in sys.modules


def test_share_prints_where_to_follow(token: Command) -> None:
    """The path of the events for a person, the ticket as JSON for a program; it opens the events without a token."""
    job = token.house.done("echo")
    ticket = json.loads(token("share", job["id"], "--expires", "5m")[1])
    code, out, err = token("share", job["id"], terminal=True)
    assert (code, out.startswith(f"/v1/jobs/{job['id']}/events?ticket=")) == (exits.OK, True)
    assert "until" in err
    for target in (ticket["url"], out.strip()):
        wire = token.house.wire()
        wire.request("GET", target, token=None)
        assert wire.reply().status == 200
    assert token("share", "nothing")[0] == exits.NOT_FOUND
    assert token("share", job["id"], "--expires", "2h")[0] == exits.FAILED  # an hour at most
