"""What of the daemon's environment reaches user code."""

from __future__ import annotations

from jobsvc.model.environment import handed_on

ENVIRON = {
    "PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "LC_TIME": "C", "TZ": "UTC", "TMPDIR": "/t",
    "AWS_KEY": "1", "AWS_REGION": "2", "aws_key": "3", "DATABASE": "4",
    "JOBSVC_TOKEN": "s", "JOBSVC_TOKEN_FILE": "s", "JOBSVC_SECRET_KEY": "s", "LISTEN_FDS": "s", "LISTEN_PID": "s",
    "NOTIFY_SOCKET": "s",
    "WATCHDOG_USEC": "s", "WATCHDOG_PID": "s", "CREDENTIALS_DIRECTORY": "s", "JOBSVC_DATA_DIR": "/d",
}  # fmt: skip
NEEDED = {"PATH", "HOME", "LANG", "LC_ALL", "LC_TIME", "TZ", "TMPDIR"}


def test_without_a_list_everything_but_secrets() -> None:
    given = handed_on(ENVIRON, None)
    assert "s" not in given.values()
    assert set(given) == NEEDED | {"AWS_KEY", "AWS_REGION", "aws_key", "DATABASE", "JOBSVC_DATA_DIR"}


def test_a_list_is_the_whole_list() -> None:
    """Beside what a program needs; names and patterns; case counts."""
    assert set(handed_on(ENVIRON, ())) == NEEDED
    assert set(handed_on(ENVIRON, ("AWS_*", "NONE"))) == NEEDED | {"AWS_KEY", "AWS_REGION"}
    assert set(handed_on(ENVIRON, ("DATABASE",))) == NEEDED | {"DATABASE"}


def test_no_pattern_hands_on_a_secret() -> None:
    for pattern in ("*", "JOBSVC_*", "LISTEN_FD?", "[A-Z]*"):
        assert "s" not in handed_on(ENVIRON, (pattern,)).values()
