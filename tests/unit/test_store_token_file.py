"""The file of the first token while the daemon runs: written whole, for the owner alone, and refusals in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import execute

from jobsvc.model.errors import CannotWrite
from jobsvc.model.tokens import mint, taken_apart
from jobsvc.store.folder import DataFolder
from jobsvc.store.token_file import TokenFile


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    made = DataFolder(tmp_path / "data", "boot", os.urandom)
    made.take()
    yield made
    made.release()


def test_a_start_makes_a_token_and_another_can_take_its_place(folder: DataFolder) -> None:
    """0600, and the next start reads the new one; when it is removed, the next start makes one."""
    text = folder.token()
    assert taken_apart(text) is not None
    file = TokenFile(folder, execute)
    path = folder.path / "token"
    assert file.made_at == path.stat().st_mtime_ns // 1000
    other = mint(os.urandom).text
    file.write(other)
    assert (folder.token(), path.stat().st_mode & 0o777) == (other, 0o600)
    file.remove()
    file.remove()
    assert not path.exists()
    assert folder.token() not in {text, other}


def test_a_power_cut_brings_no_old_token_back(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the one that was replaced nor the one that was revoked: the folder is flushed after the change."""
    folder.token()
    flushed: list[tuple[str, bool]] = []  # what, and whether the new name was in it by then

    def fsync(fd: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{fd}").readlink()), (folder.path / "token").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    file, place = TokenFile(folder, execute), str(folder.path)
    file.write(mint(os.urandom).text)
    file.remove()
    assert flushed == [(f"{place}/token.new", True), (place, True), (place, False)]


def test_a_full_disk_leaves_the_token_as_it_is(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused as disk_full, with the file's name."""
    text = folder.token()
    refused: list[Any] = []

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        TokenFile(folder, execute).write(mint(os.urandom).text).addErrback(refused.append)
    [failure] = refused
    assert failure.check(CannotWrite)
    assert failure.value.code == "disk_full"
    assert "data/token cannot be written" in failure.value.detail
    assert folder.token() == text


@pytest.mark.parametrize("text", ["", "jobsvc_", "jobsvc_a", "jobsvc_a.", "jobsvc_.b", "x_a.b", "jobsvc_a.ü"])
def test_what_is_no_token_text(text: str) -> None:
    assert taken_apart(text) is None
