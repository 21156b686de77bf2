"""The command line over a daemon in memory: what it prints where, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import httpx2
import pytest

from jobsvc.cli import exits
from jobsvc.cli.root import run
from jobsvc.cli.shell import Shell
from jobsvc.client import Client
from jobsvc.client.core import Session
from jobsvc.client.errors import ClientError, Refused, Unreachable, WaitTimeout, job_failure
from jobsvc.client.retrying import Retry
from jobsvc.client.shapes import Job, Problem
from tests.client.fake_daemon import TOKEN, URL, Answer, FakeDaemon, job_id, transport


class Command:
    """Runs `jobsvc` in this process, as a program (pipes) or for a person (`terminal`)."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.daemon = FakeDaemon()
        self.token = TOKEN
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *words: str, stdin: bytes = b"", terminal: bool = False) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        shell = Shell(lambda: Client(URL, self.token, transport=transport(self.daemon)), terminal=terminal)
        code = run(list(words), shell)
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def jobsvc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("JOBSVC_URL", "JOBSVC_TOKEN", "JOBSVC_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Command(capsys, monkeypatch)


def objects(out: str) -> list[Any]:
    """Lines of JSON."""
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("words", "stdin", "args"),
    [
        (['{"a":1,"b":2}'], b"", {"a": 1, "b": 2}),
        (["[1, 2]"], b"", [1, 2]),
        (["-"], b' {"a":1}\n', {"a": 1}),
        (["-a", "a=1", "-a", "b=two words", "-a", 'c={"d":null}', "-a", "e=1=2"], b"",
         {"a": 1, "b": "two words", "c": {"d": None}, "e": "1=2"}),
        (['{"a":1,"b":2}', "-a", "b=3"], b"", {"a": 1, "b": 3}),
    ],
)  # fmt: skip
def test_arguments(jobsvc: Command, words: list[str], stdin: bytes, args: Any) -> None:
    """JSON, standard input, and name=value (JSON if it parses, otherwise text), also together."""
    code, out, _ = jobsvc("submit", "later", *words, stdin=stdin)
    assert code == exits.OK
    assert objects(out)[0]["args"] == args


@pytest.mark.parametrize("words", [["{"], ["3"], ["[1]", "-a", "b=3"], ["-a", "b"], ["{}", "--label", "x"]])
def test_bad_arguments_are_wrong_usage(jobsvc: Command, words: list[str]) -> None:
    """Said before anything is sent."""
    code, out, err = jobsvc("submit", "later", *words)
    assert (code, out) == (exits.USAGE, "")
    assert "Error: Invalid value" in err
    assert jobsvc.daemon.asked == []


def test_submit_options_are_those_of_the_wire(jobsvc: Command) -> None:
    """Every option arrives under its name there; what was not given is left out."""
    words = (
        "--key k --queue q --priority -5 --delay 1.5 --timeout 9 --retries 2 --on-lost fail --label team=x"
    )
    jobsvc("submit", "later", *words.split())
    assert json.loads(jobsvc.daemon.asked[0].body) == {
        "task": "later",
        "key": "k",
        "queue": "q",
        "priority": -5,
        "delay_s": 1.5,
        "timeouts": {"run": 9.0},
        "retries": 2,
        "on_lost": "fail",
        "labels": {"team": "x"},
    }


def test_submit_for_a_person_is_short(jobsvc: Command) -> None:
    """The id, to be copied, and the state; `--json` gives the whole job all the same."""
    assert jobsvc("submit", "later", terminal=True)[1] == f"{job_id(1)}  queued\n"
    assert objects(jobsvc("submit", "later", "--json", terminal=True)[1])[0]["id"] == job_id(2)


def test_submit_wait_mirrors_the_job(jobsvc: Command) -> None:
    """Result on standard output; logs and progress on standard error; the exit code says how it ended."""
    code, out, err = jobsvc("submit", "add", "[1, 2]", "--wait")
    assert (code, out) == (exits.OK, "3\n")
    assert err == "adding n=2\nprogress 1/2 half\n"
    code, out, err = jobsvc("submit", "boom", "--wait")
    assert (code, out) == (exits.FAILED, "")
    assert "failed: task_error: ValueError: boom" in err
    assert "In the worker:\nTraceback: far away" in err


def test_call_prints_the_result_alone(jobsvc: Command) -> None:
    """Nothing on standard error, nothing but JSON on standard output."""
    assert jobsvc("call", "add", "[1, 2]") == (exits.OK, "3\n", "")
    assert jobsvc("call", "boom")[0] == exits.FAILED


def test_map_keeps_order_and_lines(jobsvc: Command) -> None:
    """One result a line; blank lines are skipped but counted; a failure is null and is told on standard error."""
    assert jobsvc("map", "add", stdin=b'[1, 2]\n\n{"a": 3}\n') == (exits.OK, "3\n3\n", "")
    code, out, err = jobsvc("map", "boom", "--full", stdin=b"\n{}\n")
    assert code == exits.FAILED
    (record,) = objects(out)
    assert (record["line"], record["state"], record["error"]["type"]) == (2, "failed", "ValueError")
    assert err.startswith(f"line 2: job {record['id']} failed")
    assert jobsvc("map", "boom", stdin=b"{}\n")[1] == "null\n"


def test_map_stops_at_a_line_that_is_no_json(jobsvc: Command) -> None:
    """The results of the lines before come first."""
    code, out, err = jobsvc("map", "add", stdin=b"[1]\n[2\n[3]\n")
    assert (code, out) == (exits.USAGE, "1\n")
    assert "line 2 is no JSON" in err


def test_get_and_result(jobsvc: Command) -> None:
    """The job as it is, the bare result, and what became of those without one."""
    for task in ("add", "boom", "later"):
        jobsvc("submit", task)
    assert objects(jobsvc("get", job_id(1))[1])[0]["task"] == "add"
    assert jobsvc("result", job_id(1)) == (exits.OK, "0\n", "")
    code, out, err = jobsvc("result", job_id(2))
    assert (code, out) == (exits.FAILED, "")
    assert "ValueError: boom" in err
    code, _, err = jobsvc("result", job_id(3))
    assert (code, "is still queued" in err) == (exits.TIMED_OUT, True)
    assert jobsvc("result", job_id(1), "--wait")[:2] == (exits.OK, "0\n")


def test_follow_prints_events_and_ends_as_the_job_does(jobsvc: Command) -> None:
    """NDJSON for programs, one short line each for people, the values of a stream on demand."""
    jobsvc("submit", "add", "[1]")
    jobsvc("submit", "boom")
    code, out, _ = jobsvc("follow", job_id(1))
    assert code == exits.OK
    assert [event["kind"] for event in objects(out)] == ["job", "log", "progress", "end"]
    assert objects(out)[1]["at"] == "2026-11-23T12:00:00.000001Z"
    code, out, _ = jobsvc("follow", job_id(2), terminal=True)
    assert code == exits.FAILED
    assert [line.split("  ", 1)[1].split() for line in out.splitlines()] == [
        ["job", "boom", "failed"],
        ["log", "adding", "n=2"],
        ["progress", "1/2", "half"],
        ["end", "boom", "failed"],
    ]
    assert jobsvc("follow", job_id(1), "--stream", "out", "--from", "2") == (exits.OK, "20\n30\n", "")


def test_list_rows_and_table(jobsvc: Command) -> None:
    """JSON rows as the daemon gave them; a table for people, ids whole."""
    for task in ("add", "boom"):
        jobsvc("submit", task)
    code, out, _ = jobsvc(
        "list", "--state", "succeeded", "--state", "failed", "--label", "a=b", "--limit", "7"
    )
    assert code == exits.OK
    assert [row["id"] for row in objects(out)] == [job_id(2), job_id(1)]
    assert jobsvc.daemon.asked[-1].query == {"state": "succeeded,failed", "label.a": "b", "limit": "7"}
    out = jobsvc("list", terminal=True)[1]
    header, first, *_ = out.splitlines()
    assert header.split()[:3] == ["ID", "TASK", "STATE"]
    assert first.split()[:3] == [job_id(2), "boom", "failed"]
    assert "task_error: ValueError" in first


def test_cancel_and_retry_do_what_they_can(jobsvc: Command) -> None:
    """A refusal for one job does not keep the others from theirs; the code tells of it."""
    jobsvc("submit", "add")
    code, out, err = jobsvc("cancel", "nobody", job_id(1), "--mode", "now")
    assert code == exits.NOT_FOUND
    assert objects(out)[0]["id"] == job_id(1)
    assert err.startswith("jobsvc: nobody: not_found (404)")
    assert jobsvc("retry", job_id(1), terminal=True)[1] == f"{job_id(2)}  succeeded\n"


def test_the_daemon_itself(jobsvc: Command) -> None:
    """Tasks, info and reload, for programs and for people."""
    assert objects(jobsvc("tasks")[1])[0]["name"] == "add"
    assert jobsvc("tasks", terminal=True)[1].splitlines()[1].split() == [
        "add",
        "process",
        "a",
        "[b]",
        "Add",
        "numbers.",
    ]
    assert objects(jobsvc("info")[1]) == [{"version": "1", "limits": {"lines": 3}}]
    assert '{"lines":3}' in jobsvc("info", terminal=True)[1]
    assert objects(jobsvc("reload")[1]) == [{"tasks": ["add"]}]


def test_no_token_is_not_allowed(jobsvc: Command) -> None:
    """The daemon's own words, and exit code 4."""
    jobsvc.token = "wrong"
    code, out, err = jobsvc("list")
    assert (code, out, err) == (exits.NOT_ALLOWED, "", "jobsvc: unauthenticated (401): A token is needed.\n")


def test_no_daemon(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in the data directory, and nothing behind an address: exit code 3, one line."""
    for name in ("JOBSVC_URL", "JOBSVC_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert run(["--data-dir", str(tmp_path), "list"]) == exits.UNREACHABLE
    assert capsys.readouterr().err.startswith("jobsvc: no daemon found: there is no ")

    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    session = Session(retry=Retry(uniform=lambda _low, high: high, tries=1))
    shell = Shell(lambda: Client(URL, TOKEN, session=session, transport=httpx2.MockTransport(refuse)))
    assert run(["list"], shell) == exits.UNREACHABLE
    assert capsys.readouterr().err == "jobsvc: cannot reach the daemon at http://jobs.example:8787: refused\n"


def test_a_wrong_url_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a traceback."""
    assert run(["--url", "localhost:8787", "list"]) == exits.USAGE
    assert "is no URL of a daemon" in capsys.readouterr().err


def test_wait_ends_when_its_time_is_up(jobsvc: Command) -> None:
    """As timeout(1): exit code 124; the job goes on."""

    class Waiting(FakeDaemon):
        def answer(self, asked: Any) -> Answer:
            if asked.path.endswith("/events"):
                # What a blocked read does when the alarm rings is to raise; nothing here has to wait for it.
                import signal

                signal.raise_signal(signal.SIGALRM)
            return super().answer(asked)

    jobsvc.daemon = Waiting()
    code, out, err = jobsvc("submit", "later", "--wait-s", "60")
    assert (code, out) == (exits.TIMED_OUT, "")
    assert err == f"jobsvc: job {job_id(1)} is still queued after 60 s\n"


def test_interrupted(jobsvc: Command) -> None:
    """Ctrl-C: exit code 130, and how to come back to the job."""

    class Interrupting(FakeDaemon):
        def answer(self, asked: Any) -> Answer:
            if asked.path.endswith("/events"):
                raise KeyboardInterrupt
            return super().answer(asked)

    jobsvc.daemon = Interrupting()
    code, _, err = jobsvc("submit", "later", "--wait")
    assert code == exits.INTERRUPTED
    assert f"job {job_id(1)} goes on; jobsvc result {job_id(1)} --wait" in err


def _refused(status: int, code: str) -> Refused:
    return Refused(Problem(status=status, code=code))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("x"), 3),
        (_refused(401, "unauthenticated"), 4),
        (_refused(403, "forbidden"), 4),
        (_refused(404, "not_found"), 5),
        (_refused(409, "conflict"), 5),
        (_refused(410, "purged"), 5),
        (_refused(422, "no_such_task"), 5),
        (_refused(422, "invalid_args"), 1),
        (_refused(429, "queue_full"), 6),
        (_refused(503, "draining"), 6),
        (_refused(504, "wait_over"), 124),
        (_refused(500, "internal"), 1),
        (job_failure("x", "failed", None), 1),
        (WaitTimeout(Job(id="x", task="t", state="running", done=False), 1.0), 124),
    ],
)
def test_exit_codes(error: ClientError, code: int) -> None:
    """The documented table, error by error."""
    assert exits.code_of(error) == code


def test_help_documents_exit_codes_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    """What scripts build on is in the help."""
    assert run(["--help"]) == exits.OK
    text = capsys.readouterr().out
    for code, meaning in exits.MEANINGS.items():
        assert f"{code:>3}  {meaning}" in text
    for name in ("JOBSVC_URL", "JOBSVC_TOKEN", "JOBSVC_TOKEN_FILE", "JOBSVC_DATA_DIR"):
        assert name in text


@pytest.mark.parametrize("command", ["submit", "call", "map", "get", "result", "follow", "list", "cancel", "retry",
                                     "tasks", "info", "reload", "completion"])  # fmt: skip
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """`-h` and `--help` alike, without a daemon."""
    assert run([command, "-h"]) == exits.OK
    assert f"Usage: jobsvc {command}" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(jobsvc: Command, shell: str) -> None:
    """Click's own scripts, for our name."""
    code, out, _ = jobsvc("completion", shell)
    assert code == exits.OK
    assert "_JOBSVC_COMPLETE" in out


def test_no_color_is_honoured(jobsvc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves tables without colour codes even where colour is forced."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    out = jobsvc("tasks", terminal=True)[1]
    assert "\x1b[3" not in out
