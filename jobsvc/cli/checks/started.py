"""F5: the settings that a running daemon was started with, read back from its command line and environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobsvc.config import OPTIONS, Settings, gather

PLUGIN: Final = "jobsvc"
"""The word of twistd's and twist's command line behind which our options stand."""


class Started(NamedTuple):
    """Settings of a running daemon, and its environment."""

    settings: Settings
    environ: Mapping[str, str]


def started(proc: Path, pid: int, folder: Path) -> Started | None:
    """What the daemon with this pid was started with; None: its command line is not that of twistd or twist.

    Args:
        folder: its data directory; its own words for it may be relative to another folder.

    Raises:
        OSError: it is gone, or belongs to another user.
    """
    words = _split(proc / str(pid) / "cmdline")
    if PLUGIN not in words:
        return None
    pairs = (word.partition("=") for word in _split(proc / str(pid) / "environ"))
    environ = {name: value for name, equals, value in pairs if equals}
    given = given_of(words[words.index(PLUGIN) + 1 :]) | {"data-dir": str(folder)}
    uid = (proc / str(pid) / "status").stat().st_uid  # root's too when it is not dumpable
    return Started(gather(given, environ, uid=uid or folder.stat().st_uid), environ)


def given_of(words: list[str]) -> dict[str, Any]:
    """The options in these words, as `gather` takes them. What is none of ours is passed over: the daemon runs."""
    by_name = {option.name: option for option in OPTIONS}
    given: dict[str, Any] = {}
    left = iter(words)
    for word in left:
        name, equals, value = word.removeprefix("--").partition("=")
        option = by_name.get(name)
        if option is None or not word.startswith("--"):
            continue
        if option.flag:
            given[name] = "1"
            continue
        value = value if equals else next(left, "")
        given[name] = [*given.get(name, ()), value] if option.repeat else value
    return given


def _split(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="surrogateescape").rstrip("\0").split("\0")
