"""One event, one line: whatever is in it, nothing of it moves a cursor, forges a line, or is a secret (P11)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast
from unicodedata import bidirectional, category

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import execute
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure

from jobsvc.logs.lines import FIELDS_MAX, human_line, json_line
from jobsvc.logs.text import FIELD_MAX_CHARS, MESSAGE_MAX_CHARS, TRACEBACK_MAX_CHARS, escaped, redacted
from jobsvc.runtime.context import JOB_ID, REQUEST_ID

TOKEN = "jobsvc_0a1b2c3d.9f8e7d6c5b4a39281706f5e4d3c2b1a0"
SECRET = TOKEN.partition(".")[2]
HOSTILE = (
    "x\r\n2026-01-01T00:00:00Z ERROR forged\x1b[2J\x07\u2028\u2029\u202e\u2066\x85\x9b31m\x00\x7f\ufeff\ud800"
)
RAW = set(HOSTILE) - set("x2026-01T:Z ERRORforged[Jm31")


def event_of(text: str, /, **fields: Any) -> dict[str, Any]:
    """An event as a logger makes it."""
    seen: list[dict[str, Any]] = []
    Logger(namespace="jobsvc.test", observer=cast("ILogObserver", seen.append)).emit(
        LogLevel.info, text, **fields
    )
    return seen[0]


def failed(text: str, error: BaseException) -> dict[str, Any]:
    """An event with a failure that was raised."""

    def fail() -> None:
        raise error

    return event_of(text, log_failure=deferred_failure(fail))


def deferred_failure(function: Callable[[], None]) -> Failure:
    """What a call that raises leaves."""
    failures: list[Failure] = []
    execute(function).addErrback(failures.append)
    return failures[0]


def harmless(line: str) -> bool:
    """Nothing that ends a line, moves a cursor, turns the direction of writing, or cannot be encoded."""
    return not any(
        category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or bidirectional(char)[-2:] in {"RE", "LE", "RO", "LO", "DF", "RI", "LI", "SI", "DI"}
        for char in line
    )


def read(event: dict[str, Any]) -> dict[str, Any]:
    """The JSON line, read back."""
    line = json_line(event)
    assert harmless(line), line
    read: dict[str, Any] = json.loads(line)
    return read


def test_shape() -> None:
    """Time, level, origin, sentence, action, ids, fields."""
    event = event_of(
        "{n} jobs by {who}", n=3, who="Ada", action="counted", request_id=b"r-1", job_id=bytes(16)
    )
    line = read(event | {"log_time": 1_795_000_000.25})
    assert line == {
        "at": "2026-11-18T11:06:40.250000Z",
        "level": "info",
        "logger": "jobsvc.test",
        "message": "3 jobs by Ada",
        "action": "counted",
        "job_id": "00000000-0000-0000-0000-000000000000",
        "request_id": "r-1",
        "fields": {"n": 3, "who": "Ada"},
    }
    assert human_line(event | {"log_time": 1_795_000_000.25}) == (
        "2026-11-18T11:06:40.250000Z INFO  jobsvc.test: 3 jobs by Ada "
        "[job_id=00000000-0000-0000-0000-000000000000 request_id=r-1]"
    )


def test_ids_of_the_context() -> None:
    """What is being handled is named without being passed along."""
    request, job = REQUEST_ID.set("r-2"), JOB_ID.set("j-2")
    try:
        line = read(event_of("hello"))
    finally:
        REQUEST_ID.reset(request)
        JOB_ID.reset(job)
    assert (line["request_id"], line["job_id"]) == ("r-2", "j-2")
    assert "request_id" not in read(event_of("hello"))


@pytest.mark.parametrize(
    "where", ["value", "key", "message", "nested", "error", "exception", "namespace", "id"]
)
def test_hostile_text_stays_on_its_line(where: str) -> None:
    """P11: a label, a task's name, a header with line breaks, terminal sequences and marks of direction: one line of
    JSON that gives the very text back; for people nothing raw, and no line that could be one of the log.
    """  # fmt: skip
    event = {
        "value": lambda: event_of("task {task}", task=HOSTILE),
        "key": lambda: event_of("task", **{HOSTILE: 1}),
        "message": lambda: event_of("{}".replace("{}", HOSTILE)),
        "nested": lambda: event_of("labels {labels}", labels={"a": [HOSTILE], HOSTILE: {"b": HOSTILE}}),
        "error": lambda: event_of("it failed: {error}", error=HOSTILE),
        "exception": lambda: failed("it failed", ValueError(HOSTILE)),
        "namespace": lambda: event_of("x") | {"log_namespace": HOSTILE},
        "id": lambda: event_of("x", request_id=HOSTILE, job=HOSTILE),
    }[where]()
    text = json.dumps(read(event), ensure_ascii=False)
    assert "forged" in text
    lines = human_line(event).split("\n")
    assert lines[0].startswith("20")
    assert all(line.startswith("    | ") for line in lines[1:])
    assert not any(char in line for line in lines for char in RAW if char != " ")
    if where in {"value", "message", "key", "namespace", "id"}:
        assert len(lines) == 1


def test_json_gives_back_what_was_said() -> None:
    """Escaped for the terminal, whole for the reader."""
    assert read(event_of("task {task}", task=HOSTILE))["fields"]["task"] == HOSTILE


@given(st.text())
@example("\U000e0041\u2069\u061c")
def test_no_text_whatever_leaves_its_line(text: str) -> None:
    """Any text at all."""
    event = event_of("said: {text}", text=text)
    assert read(event)["fields"]["text"] == text or len(text) > FIELD_MAX_CHARS or redacted(text) != text
    assert harmless(human_line(event))
    assert escaped(escaped(text)) == escaped(text)


@pytest.mark.parametrize(
    "said",
    [
        f"the token {TOKEN} was refused",
        f"Authorization: Bearer {TOKEN}",
        f"authorization: Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f"b'Authorization: Bearer {SECRET}'",
        f"curl -H 'Authorization: {SECRET}'",
        f"Bearer {SECRET} in a line",
        f"Proxy-Authorization: Digest {SECRET}",
        f"http://x/?t={TOKEN}#a",
    ],
)
def test_secrets_never_get_out(said: str) -> None:
    """In the sentence, in fields, in nested ones, in tracebacks; cut or not."""
    padding = "y" * FIELD_MAX_CHARS
    for event in (
        event_of("{said}", said=said),
        event_of("headers {headers}", headers={"x": [said, said.encode()]}),
        event_of("error: {error}", error=ValueError(said)),
        event_of("long {said}", said=f"{padding[: FIELD_MAX_CHARS // 4 - 40]}{said}{padding}"),
        failed("it failed", ValueError(said)),
    ):
        assert SECRET[:12] not in json_line(event)
        assert SECRET[:12] not in human_line(event)


@pytest.mark.parametrize(
    "name", ["token", "Authorization", "set_cookie", "password", "client_secret", "api_key"]
)
def test_fields_with_the_name_of_a_secret_are_hidden(name: str) -> None:
    """Whatever they hold."""
    line = read(event_of("made", **{name: "plain-0123456789", "more": {name: "plain-0123456789"}}))
    assert line["fields"] == {name: "***", "more": {name: "***"}}


def test_a_token_keeps_its_id() -> None:
    """The operator is to know which one it was."""
    assert redacted(f"refused {TOKEN}.") == "refused jobsvc_0a1b2c3d.***."


def test_lengths_are_capped() -> None:
    """A megabyte in a field, in the sentence, in an exception; a thousand fields."""
    huge = "a" * 1_000_000
    line = read(event_of("{huge}", huge=huge, many=list(range(1_000)), **{f"f{n}": n for n in range(1_000)}))
    assert len(line["message"]) < MESSAGE_MAX_CHARS + 100
    assert len(line["fields"]["huge"]) < FIELD_MAX_CHARS + 100
    assert len(line["fields"]["many"]) < 1_000
    assert len(line["fields"]) == FIELDS_MAX + 1
    assert len(read(failed("x", ValueError(huge)))["traceback"]) < TRACEBACK_MAX_CHARS + 100


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_what_cannot_be_shown_is_named() -> None:
    """Objects that raise, numbers JSON has not, numbers too long, bytes that are no text."""
    odd = {
        "a": Unprintable(),
        "b": float("nan"),
        "c": 1 << 70,
        "d": b"\xff\n",
        "e": 1 << 99_999,
        "f": [[[[[1]]]]],
    }
    fields = read(event_of("odd", **odd))["fields"]
    assert fields["a"] == "<Unprintable that cannot be shown: RuntimeError>"
    assert (fields["b"], fields["c"], fields["d"]) == ("nan", str(1 << 70), "\\xff\n")
    assert "cannot be shown" in fields["e"]
    assert "1" in str(fields["f"])
    assert human_line(event_of("odd {a}", **odd)).count("\n") == 0


def test_a_traceback_is_one_field() -> None:
    """And for people a block behind bars."""
    event = failed("it failed", ValueError("why"))
    line = read(event)
    assert (line["message"], line["traceback"].splitlines()[-1].strip()) == (
        "it failed",
        "builtins.ValueError: why",
    )
    assert "in fail\n    raise error" in line["traceback"]
    assert human_line(event).splitlines()[-1] == "    | builtins.ValueError: why"
    assert read(failed("", ValueError("why")))["message"] == "ValueError: why"


def test_events_of_the_old_log() -> None:
    """twisted.python.log: its sentence once, without what it adds."""
    from twisted.logger._legacy import publishToNewObserver

    seen: list[dict[str, Any]] = []
    publishToNewObserver(
        cast("ILogObserver", seen.append),
        {"message": ("hello", 1), "time": 1.0, "system": "-", "isError": 0},
        lambda _event: "hello 1",
    )
    line = read(seen[0])
    assert (line["message"], line["logger"], line.get("fields")) == ("hello 1", "twisted", None)


def test_a_stack_is_a_block_for_people() -> None:
    """What the watchdog shows."""
    event = event_of("blocked", stack='  File "x.py", line 1, in f\n    g()\n', held_back_before=2)
    assert human_line(event).splitlines()[1:] == ['    |   File "x.py", line 1, in f', "    |     g()"]
    assert human_line(event).splitlines()[0].endswith("blocked (and 2 like it before, held back)")
