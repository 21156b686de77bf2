"""The audit log: what is written for which request, and that no change to it goes unnoticed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.logger import capturedLogs

from jobsvc.http.auditing import AGAIN_S, ANCHOR_S, GATHER_S, AuditTrail
from jobsvc.model.audit import Entry, Head
from jobsvc.store.audit_check import AuditReport, check
from jobsvc.store.audit_file import AuditFile
from jobsvc.store.folder import FolderRefused
from jobsvc.store.sqlite import SqliteStore
from tests.http.audited import Audited
from tests.http.house import House

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Audited]:
    made = Audited(tmp_path)
    yield made
    made.run(made.trail.close())
    made.close()


# -- what is written


def test_a_submit_is_one_record(house: Audited) -> None:
    """Who, from where, what, which job, under which request id; never its arguments."""
    job = house.ask("POST", "/v1/jobs", {"task": "echo", "args": {"x": "precious"}}, {"X-Request-ID": "r-1"})
    [record] = house.records()
    assert record | {"at": "", "hash": ""} == {
        "seq": 1, "at": "", "boot": "boot-1", "who": "test", "tenant": "default", "from": "127.0.0.1",
        "what": "jobs.submit", "target": job.json()["id"], "count": None, "of": None, "decision": "allowed",
        "code": None, "request_id": "r-1", "prev": "0" * 64, "hash": "",
    }  # fmt: skip
    assert "precious" not in (house.folder / "audit.log").read_text()
    assert stat.S_IMODE((house.folder / "audit.log").stat().st_mode) == 0o600


def test_a_submit_that_waits_is_written_when_it_is_stored(house: Audited) -> None:
    """Not minutes later, with the reply."""
    house.start("POST", "/v1/jobs", {"task": "echo"}, {"Prefer": "wait=300"})
    assert house.last()["what"] == "jobs.submit"


def test_a_bulk_upload_is_one_record_with_counts(house: Audited) -> None:
    """Of 5 lines 3 were accepted."""
    lines = b'{"task":"echo"}\n{"task":"none"}\n{"task":"echo"}\nno\n{"task":"echo"}\n'
    assert house.ask("POST", "/v1/jobs/bulk", raw=lines, headers=NDJSON).status == 200
    [record] = house.records()
    assert (record["what"], record["count"], record["of"]) == ("jobs.bulk", 3, 5)


def test_every_route_that_changes_something_is_written(house: Audited) -> None:
    """New routes too: the table of routes is asked, and each of its changes leaves a record with its name."""
    changing = [route for route in house.api.routes if route.method not in ("GET", "HEAD")]
    assert {route.name for route in changing} >= {"jobs.submit", "jobs.cancel", "jobs.delete", "reload"}
    for route in changing:
        seen = len(house.records())
        path = route.path.replace("{job_id}", "00000000-0000-7000-8000-000000000000").replace(
            "{task}", "none"
        )
        house.ask(
            route.method,
            path,
            raw=b"" if not route.streams else b"\n",
            headers=NDJSON if route.streams else None,
        )
        assert [record["what"] for record in house.records()[seen:]] == [route.name], route


def test_looking_is_not_written(house: Audited) -> None:
    """Reads are no mutation."""
    house.ask("GET", "/v1/jobs")
    house.ask("GET", "/v1/info")
    assert house.records() == []


def test_a_refused_change_says_why(house: Audited) -> None:
    """The problem's code stands in the record."""
    house.ask("POST", "/v1/jobs", {"task": "none"})
    record = house.last()
    assert (record["what"], record["decision"], record["code"]) == ("jobs.submit", "refused", "no_such_task")


def test_a_client_that_leaves_does_not_hide_what_it_asked_for(house: Audited) -> None:
    """Whether it took effect is not known then, and the record says so."""
    house.reload = Deferred  # type: ignore[method-assign]
    wire = house.start("POST", "/v1/reload")
    assert house.records() == []
    wire.leave()
    record = house.last()
    assert (record["what"], record["decision"]) == ("reload", "left")


def test_a_long_name_in_a_path_is_cut(house: Audited) -> None:
    """A client must not fill the log with what it names."""
    house.ask("POST", f"/v1/jobs/{'x' * 5000}/cancel")
    assert house.last()["target"] == "x" * 200


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"Authorization": "Bearer wrong"}, "edge.unauthenticated"),
        ({"Host": "evil.example"}, "edge.bad_host"),
    ],
)
def test_who_is_refused_is_written(house: Audited, headers: dict[str, str], what: str) -> None:
    """Also for reads, and though it never came to a route."""
    house.ask("GET", "/v1/jobs", headers=headers)
    record = house.last()
    assert (record["what"], record["decision"], record["from"]) == (what, "refused", "127.0.0.1")


def test_what_no_request_did_is_written(house: Audited) -> None:
    """A reload by signal, a token made at the console."""
    house.trail.note("cli", "tokens.create", "abc")
    record = house.last()
    assert (record["who"], record["what"], record["target"]) == ("cli", "tokens.create", "abc")


# -- the log in trouble


def test_records_wait_while_the_disk_is_full(house: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutations go on; the records are written once there is room, and half a record never stands there."""
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 100:
            return write(fd, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    house.submit()
    before = house.records()
    with monkeypatch.context() as patched:
        patched.setattr("jobsvc.store.audit_file.os.write", full)
        house.submit()
        house.after(GATHER_S)
        assert house.records() == before
    house.after(10)
    assert len(house.records()) == 2
    assert check_of(house).ok


def test_a_full_disk_is_not_asked_without_a_pause(house: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """F32: however long it lasts. What is to be flushed by then is overdue, and waits for the next try too."""
    tries: list[int] = []

    def full(fd: int, data: bytes) -> int:
        tries.append(len(data))
        raise OSError(errno.ENOSPC, "No space left on device")

    house.submit()
    house.after(GATHER_S)  # written, and not flushed yet
    with monkeypatch.context() as patched:
        patched.setattr("jobsvc.store.audit_file.os.write", full)
        house.submit()
        house.after(GATHER_S)
        for _ in range(6 * int(AGAIN_S)):
            house.after(1)
    assert 1 < len(tries) <= 7
    house.after(AGAIN_S)
    assert len(house.records()) == 2


def test_records_beyond_the_bound_are_counted(house: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded, and what found no room is a record of its own."""
    monkeypatch.setattr("jobsvc.http.auditing.WAITING_MAX", 100)
    for _ in range(100 + 7):
        house.trail.note("cli", "tokens.create")
    records = house.records()
    assert (records[-1]["what"], records[-1]["count"]) == ("audit.lost", 7)
    assert len(records) == 100 + 1


# -- the chain


def check_of(house: Audited) -> AuditReport:
    """What a check says, with the heads that the store has."""
    store = house.store._store
    copy = house.folder / "jobsvc.db"
    copy.unlink(missing_ok=True)
    store._db.execute("VACUUM INTO ?", (str(copy),))
    return check(house.folder)


def filled(house: Audited, count: int = 9) -> list[bytes]:
    """A log of so many records, its end known to the database."""
    for _ in range(count):
        house.submit()
    house.after(GATHER_S)
    house.after(ANCHOR_S)
    assert check_of(house).ok
    return (house.folder / "audit.log").read_bytes().splitlines(keepends=True)


def edit(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b'"who":"test"', b'"who":"fest"')


def rehash(lines: list[bytes]) -> None:
    """Changed with a hash that fits: the one behind it no longer does."""
    from jobsvc.model.audit import chained, read_record

    record, _ = read_record(lines[4])
    lines[4], _ = chained(
        Head(record.seq - 1, record.prev), "boot-1", Entry(1, "fest", None, None, "jobs.submit")
    )


def delete(lines: list[bytes]) -> None:
    del lines[4]


def reorder(lines: list[bytes]) -> None:
    lines[4], lines[5] = lines[5], lines[4]


def repeat(lines: list[bytes]) -> None:
    lines.insert(5, lines[4])


def shorten(lines: list[bytes]) -> None:
    del lines[6:]


def cut(lines: list[bytes]) -> None:
    lines[8] = lines[8][:40]


def behead(lines: list[bytes]) -> None:
    del lines[:2]


def empty(lines: list[bytes]) -> None:
    lines.clear()


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (edit, "audit.log line 5 (after record 4): its text was changed"),
        (rehash, "record 6 does not follow record 5: one of them was replaced"),
        (delete, "record 5 is missing before record 6"),
        (reorder, "record 5 is missing before record 6"),
        (repeat, "record 5 stands behind record 5: out of order, or twice"),
        (shorten, "records 7 to 9 are missing at the end"),
        (cut, "audit.log line 9 (after record 8)"),
        (behead, "records 1 to 2 are missing at the beginning"),
        (empty, "records 1 to 9 are missing at the end"),
    ],
)
def test_tampering_is_noticed(house: Audited, tamper: Callable[[list[bytes]], None], words: str) -> None:
    """P20: whatever is done to a record, the check fails and names the first bad one."""
    lines = filled(house)
    tamper(lines)
    (house.folder / "audit.log").write_bytes(b"".join(lines))
    report = check_of(house)
    assert not report.ok
    assert words in report.problems[0]


def test_a_changed_record_is_not_called_missing_too(house: Audited) -> None:
    """One deed, one problem, so that whoever reads it looks for one."""
    lines = filled(house)
    for change in (0, 4):
        changed = list(lines)
        changed[change] = changed[change].replace(b'"who":"test"', b'"who":"fest"')
        (house.folder / "audit.log").write_bytes(b"".join(changed))
        [problem] = check_of(house).problems
        assert "its text was changed" in problem
    del changed[6]  # beside another that is gone
    changed[4] = b"no record\n"
    (house.folder / "audit.log").write_bytes(b"".join(changed))
    assert [problem.partition(": ")[2] for problem in check_of(house).problems] == [
        "it does not end with its hash",
        "record 7 is missing before record 8",
    ]


def test_a_folder_without_a_daemon_is_not_called_whole(tmp_path: Path) -> None:
    """Who checks the wrong folder must not hear that all is well."""
    report = check(tmp_path)
    assert not report.ok
    assert "name the data directory" in report.problems[0]


def test_a_removed_beginning_is_noticed(tmp_path: Path) -> None:
    """P20: what rotation has not removed must be there."""
    file = AuditFile(tmp_path, "b", lambda: 1, max_bytes=2_000, kept=3)
    file.open(None)
    for number in range(100):
        file.append([Entry(number, "t", "default", "unix", "jobs.submit")], sync=False)
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audit.log",
        "audit.log.1",
        "audit.log.2",
        "audit.log.3",
    ]
    known_to(tmp_path, file.head)
    report = check(tmp_path)
    assert report.ok, report.problems
    assert report.first > 1
    assert report.last == file.head.seq
    (tmp_path / "audit.log.3").unlink()
    assert "are missing at the beginning" in check(tmp_path).problems[-1]


def known_to(folder: Path, head: Head) -> None:
    """A database that remembers this head."""
    store = SqliteStore(str(folder / "jobsvc.db"), "process")
    store.open()
    store._one("anchor", head, 1)
    store.close()


# -- starts


def reopened(house: Audited) -> list[str]:
    """What the next start finds."""
    head = house.store.audit_head().result
    again = AuditFile(house.folder, "boot-2", house.now_us)
    told = again.open(head)
    again.close()
    return told


def test_a_clean_start_goes_on_with_the_chain(house: Audited) -> None:
    """The number goes on, the hash too, and nothing is told."""
    filled(house)
    again = AuditFile(house.folder, "boot-2", house.now_us)
    assert again.open(house.store.audit_head().result) == []
    again.append([Entry(1, "cli", None, None, "reload")], sync=True)
    again.close()
    report = check_of(house)
    assert report.ok, report.problems
    assert report.last == 10


def test_a_record_that_a_crash_cut_off_is_told_and_chained_past(house: Audited) -> None:
    """The half line stays, the next record owns up to it, and the check knows the difference."""
    lines = filled(house)
    with (house.folder / "audit.log").open("ab") as file:
        file.write(lines[3][:50])
    assert not check_of(house).ok
    [words] = reopened(house)
    assert "cut off by a crash (50 bytes)" in words
    report = check_of(house)
    assert report.ok, report.problems


def test_a_disk_that_fails_at_the_end_holds_up_nothing(
    house: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a stop, the database before all, goes on; no timer is left, and the log says what is missing."""

    def broken(fd: int, *_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    house.submit()
    with capturedLogs() as logged, monkeypatch.context() as patched:
        patched.setattr("jobsvc.store.audit_file.os.write", broken)
        patched.setattr("jobsvc.store.audit_file.os.fsync", broken)
        house.run(house.trail.close())
    actions = [event["log_format"] for event in logged if event.get("action") == "audit_failed"]
    assert [text.partition(":")[0] for text in actions] == [
        "the audit log cannot be written, {count} records wait",
        "the end of the audit log may not be on the disk",
    ]
    house.after(3_600)
    assert (house.folder / "audit.log").read_bytes() == b""


def test_a_lost_end_is_told_at_the_next_start(house: Audited) -> None:
    """Never silently: in the daemon's log, in the audit log, and in every later check."""
    lines = filled(house)
    (house.folder / "audit.log").write_bytes(b"".join(lines[:5]))
    assert "records 6 to 9 are missing" in reopened(house)[0]
    report = check_of(house)
    assert report.problems == ["audit.log line 6: records 6 to 9 are missing before record 10"]


def test_a_changed_end_is_told_at_the_next_start(house: Audited) -> None:
    """The chain goes on behind the last good record, and the check goes on failing."""
    lines = filled(house)
    (house.folder / "audit.log").write_bytes(b"".join([*lines[:8], lines[8].replace(b"test", b"fest")]))
    assert "the last good one is number 8" in reopened(house)[0]
    assert not check_of(house).ok


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """Whoever can put a link there must not choose what is written to; the start is refused in one line."""
    (tmp_path / "audit.log").symlink_to(tmp_path / "elsewhere")
    house = House()
    trail = AuditTrail(
        house.clock, house.now_us, execute, AuditFile(tmp_path, "b", house.now_us), house.store
    )
    refusal: list[Any] = []
    Deferred.fromCoroutine(trail.begin()).addErrback(refusal.append)
    assert refusal[0].check(FolderRefused)
    assert "audit.log: the audit log cannot be written" in refusal[0].getErrorMessage()
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_database_the_chain_alone_is_checked(tmp_path: Path) -> None:
    """durability=memory keeps none; the report says that the end is not vouched for."""
    file = AuditFile(tmp_path, "b", lambda: 1)
    file.open(None)
    file.append([Entry(1, "t", "default", "unix", "jobs.submit")], sync=False)
    file.close()
    report = check(tmp_path)
    assert (report.ok, report.heads, report.records) == (True, None, 1)
    (tmp_path / "jobsvc.db").write_text("no database")
    assert not check(tmp_path).ok
