"""The launcher: what it prepares, what it says when it cannot, and the death with the parent."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jobsvc.worker import launch
from tests.worker.harness import LAUNCH, PACKAGE_DIR, TASKS_DIR, WAIT_S


def run(*words: str, parent: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the launcher to the end of what it starts."""
    parent = os.getpid() if parent is None else parent
    command = [sys.executable, "-I", "-S", str(LAUNCH), "--parent", str(parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)


def test_prepares_the_process(tmp_path: Path) -> None:
    """Own session, umask, limits, folder, and the program's own status."""
    script = "cut -d' ' -f6 /proc/$$/stat; echo $$; umask; ulimit -Sn; ulimit -Hn; pwd; exit 5"
    done = run(
        "--umask", "027", "--rlimit", "NOFILE=64:128", "--chdir", str(tmp_path), "--", "sh", "-c", script
    )
    session, pid, mask, soft, hard, folder = done.stdout.split()
    assert session == pid
    assert (mask, soft, hard, folder) == ("0027", "64", "128", str(tmp_path.resolve()))
    assert (done.returncode, done.stderr) == (5, "")


@pytest.mark.parametrize("words", [(), ("--subreaper",)])
def test_parent_of_its_orphans_when_asked(words: tuple[str, ...]) -> None:
    """The setting outlives the exec of the program."""
    script = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(37, ctypes.byref(n), 0, 0, 0); print(n.value)"
    done = run(*words, "--", sys.executable, "-c", script)
    assert (done.stdout, done.returncode) == (f"{len(words)}\n", 0)


def test_program_has_only_the_descriptors_that_are_named() -> None:
    """Whatever else was left open when it was started."""
    kept, other = os.pipe()
    words = [sys.executable, "-I", "-S", str(LAUNCH), "--parent", str(os.getpid()), "--mark", str(kept)]
    words += ["--", "sh", "-c", "cd /proc/$$/fd; echo *"]
    done = subprocess.run(words, pass_fds=(kept, other), capture_output=True, text=True, check=True)
    os.close(kept)
    os.close(other)
    shown = set(map(int, done.stdout.split()))
    assert shown >= {0, 1, 2, kept}
    assert other not in shown


LIBC_SIGNALS = 0b11 << 31
"""Bits of signals 32 and 33: the C library keeps them; whoever started this run may have had them ignored."""


def test_signals_are_as_programs_expect_them() -> None:
    """Nothing is ignored or blocked, though Python ignores SIGPIPE."""
    done = run("--", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    assert (blocked, ignored & ~LIBC_SIGNALS) == (0, 0)


@pytest.mark.parametrize(
    ("words", "status", "say"),
    [
        (["--", "/no/such/program"], launch.EXIT_NOT_FOUND, "no such program"),
        (["--", "/etc/passwd"], launch.EXIT_NOT_RUNNABLE, "cannot run"),
        (["--rlimit", "NONSENSE=1", "--", "true"], launch.EXIT_LAUNCH, "RLIMIT_NONSENSE"),
        (["--rlimit", "NOFILE=x", "--", "true"], launch.EXIT_LAUNCH, "NOFILE=x"),
        (["--chdir", "/no/such/folder", "--", "true"], launch.EXIT_LAUNCH, "/no/such/folder"),
        (["--umask", "9", "--", "true"], launch.EXIT_LAUNCH, "--umask"),
        (["--channel", "99", "--", "true"], launch.EXIT_LAUNCH, "Bad file descriptor"),
        (["--what", "1", "--", "true"], launch.EXIT_LAUNCH, "unknown option --what"),
        (["--"], launch.EXIT_LAUNCH, "a program"),
    ],
)
def test_says_why_it_cannot(words: list[str], status: int, say: str) -> None:
    """One line on stderr, and a status of its own."""
    done = run(*words)
    assert done.returncode == status
    assert say in done.stderr
    assert done.stderr.count("\n") == 1


def test_orphan_does_not_start() -> None:
    """When the parent is gone before its death could be watched, nothing is started."""
    done = run("--", "echo", "started", parent=1)
    assert (done.returncode, done.stdout) == (launch.EXIT_ORPHANED, "")


def test_kill_of_the_parent_kills_the_worker(tmp_path: Path) -> None:
    """SIGKILL of the process that started a cpu worker ends the worker, though its channel is still open."""
    ours, theirs = socket.socketpair()
    config = {
        "kind": "cpu", "boot": "b", "modules": ["computing"], "path": [str(TASKS_DIR)],
        "package_dir": str(PACKAGE_DIR), "channel": theirs.fileno(),
    }  # fmt: skip
    # The parent starts the worker, says its number, and waits for ever.
    parent_code = (
        "import os, subprocess, sys\n"
        "words = [sys.executable, '-I', '-S', sys.argv[1], '--parent', str(os.getpid()),\n"
        "         '--channel', sys.argv[3], '--',\n"
        "         sys.executable, '-m', 'jobsvc.worker.cpu', '--config', sys.argv[2]]\n"
        "child = subprocess.Popen(words, pass_fds=[int(sys.argv[3])])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    words = [
        sys.executable,
        "-c",
        parent_code,
        str(LAUNCH),
        msgspec.json.encode(config).decode(),
        str(theirs.fileno()),
    ]
    with (
        ours,
        subprocess.Popen(
            words, cwd=PACKAGE_DIR, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True
        ) as parent,
    ):
        theirs.close()
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        ours.settimeout(WAIT_S)
        assert ours.recv(1) != b""  # it runs
        watch = os.pidfd_open(pid)
        try:
            parent.send_signal(signal.SIGKILL)
            ended, _, _ = select.select([watch], [], [], WAIT_S)
            assert ended == [watch]
        finally:
            os.close(watch)
