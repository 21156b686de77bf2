"""The data directory when it cannot be written: one sentence with the file's name, and nothing held."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobsvc.store.folder import DataFolder, FolderRefused, holding


def folder(path: Path) -> DataFolder:
    return DataFolder(path / "data", "boot", bytes)


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_lock_that_cannot_be_written_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F32: a start on a full disk."""
    made = folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(
            FolderRefused, match=r"data/lock cannot be written \(No space left on device\); free some"
        ):
            made.take()
    again = folder(tmp_path)
    again.take()
    again.release()


@pytest.mark.parametrize("what", ["token", "endpoint.json"])
def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made = folder(tmp_path)
    made.take()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FolderRefused, match=rf"data/{what} cannot be written \(No space left on device\)"):
        made.token() if what == "token" else made.publish("http://127.0.0.1:1", None)
    made.release()


def test_a_token_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.take()
    (made.path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(FolderRefused, match="data/token cannot be read"):
        made.token()
    made.release()


@pytest.mark.parametrize("left", ["99999999 an-old-boot\n", "1 an-old-boot\n", "half a li", ""])
def test_what_stands_in_the_lock_keeps_nobody_out(tmp_path: Path, left: str) -> None:
    """F39: the kernel's lock alone does: not the pid of who is long dead, nor one that another has got since."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").write_text(left)
    made = folder(tmp_path)
    made.take()
    with pytest.raises(FolderRefused, match=rf"in use by another jobsvc \(pid {os.getpid()}\)"):
        folder(tmp_path).take()
    made.release()
    made.take()
    made.release()


def test_a_lock_file_that_was_removed_lets_nobody_in(tmp_path: Path) -> None:
    """F39: nor does who is refused leave anything locked."""
    first, second = folder(tmp_path), folder(tmp_path)
    first.take()
    (first.path / "lock").unlink()
    with pytest.raises(FolderRefused, match="is in use by another jobsvc; stop it"):
        second.take()
    with holding(first.path) as daemon:
        assert daemon is not None
    first.release()
    second.take()
    second.release()


def test_the_endpoint_of_another_is_left_alone(tmp_path: Path) -> None:
    """F37: when the folder was put away, and another daemon lives in a new one at its place."""
    first = folder(tmp_path)
    first.take()
    first.publish("http://127.0.0.1:1", None)
    first.path.rename(tmp_path / "away")
    second = DataFolder(tmp_path / "data", "later", bytes)
    second.take()
    second.publish("http://127.0.0.1:2", None)
    first.release()
    assert (second.path / "endpoint.json").exists()
    second.release()
    assert not (second.path / "endpoint.json").exists()


def test_who_is_kept_out_by_a_tool_is_told_by_which(tmp_path: Path) -> None:
    """Not by the daemon that was there before, which may long be dead."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").write_text("99999999 an-old-boot\n")
    with holding(tmp_path / "data") as daemon:
        assert daemon is None
        with pytest.raises(FolderRefused, match=rf"in use by another jobsvc \(pid {os.getpid()}\)"):
            folder(tmp_path).take()


def test_a_token_that_was_given_is_taken_as_it_is(tmp_path: Path) -> None:
    """As a systemd credential: not written to, not put anywhere else; a bad one is named."""
    given = tmp_path / "jobsvc-token"
    given.write_text("jobsvc_1.given\n")
    made = DataFolder(tmp_path / "data", "boot", os.urandom, given)
    made.take()
    assert made.token() == "jobsvc_1.given"
    assert not (made.path / "token").exists()
    given.write_text("hello\n")
    with pytest.raises(FolderRefused, match=f"{given} holds no token .*: give it another content"):
        made.token()
    made.release()
    given.unlink()
    made = DataFolder(tmp_path / "data", "boot", os.urandom, given)
    made.take()
    assert made.token() == (made.path / "token").read_text().strip()
    made.release()
