"""`jobsvc db`: the database looked after from the command line, without a daemon."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobsvc.cli.root import run
from jobsvc.cli.shell import Shell
from jobsvc.store import tending
from jobsvc.store.folder import DataFolder
from jobsvc.store.migrating import copy
from jobsvc.store.schema import MIGRATIONS
from tests.contract.store_harness import job_of
from tests.faults import files
from tests.faults.files import content, count, opened
from tests.faults.test_migrations import RELEASED, made, version


class Db:
    """Runs `jobsvc db` in this process on one data directory."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.file = folder / "jobsvc.db"
        self._capsys = capsys

    def __call__(self, *words: str, terminal: bool = False, at: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""

        def no_daemon() -> Any:
            raise AssertionError("no daemon is asked")

        code = run(["--data-dir", str(at or self.folder), "db", *words], Shell(no_daemon, terminal=terminal))
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def db(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Db:
    folder = tmp_path / "data"
    folder.mkdir()
    return Db(folder, capsys)


def test_check_of_a_whole_database(db: Db) -> None:
    """In JSON for programs, in words for people; exit 0; nothing is changed or left behind."""
    files.closed(db.file, jobs=7)
    before = sorted(db.folder.iterdir())
    code, out, err = db("check")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "file": str(db.file), "ok": True, "problems": [], "schema": len(MIGRATIONS),
        "schema_known": len(MIGRATIONS), "closed": True, "daemon": None, "bytes": db.file.stat().st_size,
        "log_bytes": 0, "jobs": {"queued": 7},
    }  # fmt: skip
    code, out, _ = db("check", str(db.file), terminal=True)
    assert code == 0
    assert f"{db.file}: whole" in out
    assert "7 queued" in out
    assert "closed as it should be" in out
    assert sorted(db.folder.iterdir()) == before


def test_check_of_a_crashed_database(db: Db) -> None:
    """Its log is read with it, and stays for the next start."""
    files.crashed(db.file, 3)
    before = content(db.folder)
    code, out, _ = db("check")
    report = json.loads(out)
    assert (code, report["closed"], report["jobs"]) == (0, False, {"queued": 150})
    assert report["log_bytes"] > 0
    assert content(db.folder) == before
    assert "the next start puts that right" in db("check", terminal=True)[1]


@pytest.mark.parametrize(
    "damage",
    [
        files.garbage,
        files.a_page_of_garbage,
        files.truncated_to_nothing,
        files.log_of_another,
        files.newer_schema,
    ],
)
def test_check_of_what_a_start_would_refuse(db: Db, damage: Any) -> None:
    """Exit 1, the same words as the start's, in both forms; the file is as it was."""
    damage(db.file)
    before = content(db.folder)
    code, out, _ = db("check")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    assert report["problems"]
    code, drawn, _ = db("check", terminal=True)
    assert code == 1
    assert "NOT USABLE" in drawn
    assert report["problems"][0] in drawn
    assert content(db.folder) == before


def test_a_missing_log_can_be_accepted(db: Db) -> None:
    """F37: refused until a person says so; then the next start goes on with what is in the file."""
    files.crashed(db.file)
    files.log_of(db.file).unlink()
    code, out, _ = db("check")
    assert code == 1
    assert "--accept-missing-wal" in json.loads(out)["problems"][0]
    code, out, _ = db("check", "--accept-missing-wal")
    assert (code, json.loads(out)["ok"]) == (0, True)
    store = opened(db.file)
    store.close()


def test_a_log_that_is_there_is_not_given_up(db: Db) -> None:
    """The flag is for a log that is gone, not for one that is in the way."""
    files.log_of_another(db.file)
    before = content(db.folder)
    code, _, err = db("check", "--accept-missing-wal")
    assert code == 1
    assert "has its write-ahead log" in err
    assert content(db.folder) == before


def test_a_damaged_file_is_not_accepted_without_its_log(db: Db) -> None:
    """Then only a backup helps, and the sentence says so."""
    files.closed(db.file)
    opened(db.file).abandon()
    files.log_of(db.file).unlink()
    files.overwrite_a_page(db.file)
    code, _, err = db("check", "--accept-missing-wal")
    assert code == 1
    assert "is damaged" in err
    assert "put a backup in its place" in err


def test_backup(db: Db) -> None:
    """Without a destination into backup/; a whole file for the owner's eyes, from which a daemon can start."""
    files.crashed(db.file, 2)
    before = content(db.folder)
    code, out, _ = db("backup")
    said = json.loads(out)
    made_ = Path(said["backup"])
    assert code == 0
    assert made_.parent == db.folder / "backup"
    assert said == {"file": str(db.file), "backup": str(made_), "bytes": made_.stat().st_size}
    assert stat.S_IMODE(made_.stat().st_mode) == 0o600
    assert content(db.folder) == before
    store = opened(made_)
    assert not store.opened.unclean
    store.close()
    assert count(made_) == 100


def test_backup_to_a_place_of_ones_own(db: Db, tmp_path: Path) -> None:
    """A new file or a folder; nothing is written over."""
    files.closed(db.file, jobs=3)
    to = tmp_path / "copy.db"
    assert db("backup", str(to), terminal=True)[1].startswith(f"{to} (")
    kept = to.read_bytes()
    code, _, err = db("backup", str(to))
    assert (code, to.read_bytes()) == (1, kept)
    assert "is there already" in err
    folder = tmp_path / "copies"
    folder.mkdir()
    assert db("backup", str(folder))[0] == 0
    assert [count(file) for file in folder.iterdir()] == [3]
    assert db("backup", "--file", str(to), str(tmp_path / "again.db"))[0] == 0
    assert count(tmp_path / "again.db") == 3


def started(db: Db, jobs: int) -> None:
    """A daemon's whole life on the data directory, in which it takes jobs and its log comes into the file."""
    folder = DataFolder(db.folder, "boot", os.urandom)
    folder.take()
    store = opened(db.file)
    store.submit([job_of(args=b"x" * 100) for _ in range(jobs)])
    store.close()
    folder.release()


@pytest.mark.parametrize("crashed", [False, True])
def test_a_daemon_may_be_started_while_a_backup_is_made(
    db: Db, monkeypatch: pytest.MonkeyPatch, *, crashed: bool
) -> None:
    """It is not kept out, and the copy is of one moment: if the file was written to meanwhile, it is made again."""
    if crashed:
        files.crashed(db.file, 1)
    else:
        files.closed(db.file, jobs=50)
    (db.folder / "lock").write_text("4194304 an-old-boot\n")
    copies: list[Path] = []

    def copy_meanwhile(source: sqlite3.Connection, to: Path) -> None:
        copy(source, to)
        copies.append(to)
        if len(copies) == 1:
            started(db, 7)

    monkeypatch.setattr(tending, "copy", copy_meanwhile)
    code, out, err = db("backup")
    assert (code, err) == (0, "")
    made_ = Path(json.loads(out)["backup"])
    assert list(made_.parent.iterdir()) == [made_]
    # Beside a log SQLite itself sees to it that all is of one moment: that of the beginning.
    assert (len(copies), count(made_)) == ((1, 50) if crashed else (2, 57))
    assert count(db.file) == 57


def test_a_daemon_may_be_started_while_a_check_is_made(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not kept out, and what it writes is not taken for damage."""
    files.closed(db.file, jobs=50)
    damage = tending._damage
    looks: list[sqlite3.Connection] = []

    def damage_meanwhile(source: sqlite3.Connection) -> list[str]:
        looks.append(source)
        if len(looks) > 1:
            return damage(source)
        started(db, 7)
        return ["a page of the old file, and one of the new"]

    monkeypatch.setattr(tending, "_damage", damage_meanwhile)
    code, out, _ = db("check")
    report = json.loads(out)
    assert (code, report["problems"], report["jobs"]) == (0, [], {"queued": 57})


def test_who_only_looks_leaves_the_lock_as_it_is(db: Db) -> None:
    """The pid in it is that of the last who held it."""
    files.closed(db.file)
    (db.folder / "lock").write_text("4194304 an-old-boot\n")
    assert (db("check")[0], db("backup")[0]) == (0, 0)
    assert (db.folder / "lock").read_text() == "4194304 an-old-boot\n"


def test_backup_on_a_full_disk_leaves_nothing(db: Db, tmp_path: Path) -> None:
    """F32: said in one line; no half of a backup that could be taken for one."""
    files.closed(db.file)
    small = tmp_path / "small"
    small.mkdir()
    with files.tmpfs(small, "64k"):
        code, _, err = db("backup", str(small))
        assert (code, list(small.iterdir())) == (1, [])
        assert "full" in err


def test_migrate(db: Db) -> None:
    """After a copy; a second time there is nothing to do."""
    made(db.file, RELEASED[1])
    assert "jobsvc db migrate" in db("check", terminal=True)[1]
    code, out, _ = db("migrate")
    said = json.loads(out)
    assert (code, said["from"], said["to"]) == (0, 1, len(MIGRATIONS))
    assert version(Path(said["backup"])) == 1
    assert version(db.file) == len(MIGRATIONS)
    assert json.loads(db("check")[1])["closed"] is True
    assert "nothing to do" in db("migrate", terminal=True)[1]
    assert json.loads(db("migrate")[1])["backup"] is None


@pytest.mark.parametrize("words", [("migrate",), ("check", "--accept-missing-wal")])
def test_what_needs_the_database_alone_says_who_has_it(db: Db, words: tuple[str, ...]) -> None:
    """With the pid, and how to stop it."""
    made(db.file, RELEASED[1])
    folder = DataFolder(db.folder, "boot", os.urandom)
    folder.take()
    code, _, err = db(*words)
    folder.release()
    assert code == 1
    assert f"in use by a daemon (pid {os.getpid()}); stop it first: kill {os.getpid()}" in err
    assert version(db.file) == 1


@pytest.mark.parametrize("words", [("check",), ("backup",), ("migrate",), ("check", "--accept-missing-wal")])
def test_no_database(db: Db, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Named, with what to do; none is created."""
    code, _, err = db(*words)
    assert code == 1
    assert f"{db.file}: is not there; name the data directory" in err
    assert list(db.folder.iterdir()) == []


def test_a_foreign_database_is_not_touched(db: Db) -> None:
    """By none of the commands."""
    files.another_program(db.file)
    with closing(sqlite3.connect(db.file)) as theirs:
        theirs.execute("INSERT INTO theirs VALUES (1)")
        theirs.commit()
    before = content(db.folder)
    for words in (("check",), ("backup",), ("migrate",)):
        code, out, err = db(*words)
        assert code == 1
        assert "another program" in out + err
    assert {name: data for name, data in content(db.folder).items() if name != "backup"} == before
