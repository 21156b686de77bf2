"""The picture of the daemon: stacks of all threads, figures, nothing secret, few files."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from jobsvc import dump

DEADLINE_S = 30.0
AT_US = 1_795_000_000_000_000


def test_every_thread_with_its_stack_and_every_figure() -> None:
    """Lines of the source, not values: what a variable holds may be a secret."""
    gate, there = threading.Event(), threading.Event()

    def wait_here(token: str) -> None:
        there.set()
        gate.wait(DEADLINE_S)

    thread = threading.Thread(target=wait_here, args=("jobsvc_1.secretsecret",), name="a\nname")
    thread.start()
    assert there.wait(DEADLINE_S)
    text = dump.text(
        {"jobs": {"active": 3, "x\n== forged": "\x1b"}, "workers": [{"id": "io-1"}], "n": 1}, AT_US
    )
    gate.set()
    thread.join()
    assert text.startswith("jobsvc dump 2026-11-18T11:06:40.000000Z pid ")
    assert "\n== jobs\nactive: 3\nx\\n== forged: \\x1b\n" in text
    assert "\n-- a\\nname\n" in text
    assert "gate.wait(DEADLINE_S)" in text
    assert "\n-- MainThread\n" in text
    assert "VmRSS: " in text
    assert "open descriptors: " in text
    assert "secretsecret" not in text


def test_timers_are_told_by_the_name_of_their_function() -> None:
    """Not by their arguments."""
    clock = Clock()
    for _ in range(3):
        clock.callLater(1, partial(clock.advance, 5))
    clock.callLater(1, print, "jobsvc_1.secretsecret")
    found = dump.timers(clock.getDelayedCalls())
    assert list(found.values()) == [3, 1]
    assert "secret" not in str(found)
    assert any("Clock.advance" in name for name in found)
    for call in clock.getDelayedCalls():
        call.cancel()


def test_files_are_the_owners_and_few(tmp_path: Path) -> None:
    """The newest are kept; a link that lies there already is not followed."""
    paths = [dump.write(tmp_path, f"n {n}\n", AT_US + n) for n in range(dump.KEPT + 3)]
    assert sorted(tmp_path.glob(dump.PATTERN)) == paths[3:]
    assert {path.stat().st_mode & 0o777 for path in paths[3:]} == {0o600}
    assert paths[-1].read_text() == f"n {dump.KEPT + 2}\n"
    victim = tmp_path / "victim"
    paths[-1].unlink()
    paths[-1].symlink_to(victim)
    with pytest.raises(FileExistsError):
        dump.write(tmp_path, "x", AT_US + dump.KEPT + 2)
    assert not victim.exists()
