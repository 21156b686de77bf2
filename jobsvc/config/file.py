"""F3: the configuration file: where it is looked for, whether it may be believed, what stands in it and in which line.

A file decides which code the daemon's workers import and what stands before every command. So none is read that
somebody else could have written, and none is ever looked for in the current folder: whoever can put a file into a
folder where a daemon is started some day would have his own code run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobsvc.config.settings import ConfigError
from jobsvc.model.places import SYSTEM_CONFIG_FILE, config_files

FILE_MAX_BYTES: Final = 256 * 1024
"""A hundred times what all options together need; nothing larger is parsed."""
_LINES_TRIED: Final = 20
"""Lines that look like the place of a key. More of them only stand in a text over many lines; then no line is told."""


class Entry(NamedTuple):
    """One key of a file. `line` counts from 1; None: not found."""

    value: Any
    line: int | None


def find(environ: Mapping[str, str], system: Path = SYSTEM_CONFIG_FILE) -> tuple[Path | None, list[str]]:
    """The file that is there, and a line for each place that may not be looked into."""
    notes = []
    for path in config_files(environ, system):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            # A service whose unit hides the home folders runs into this; there is no file for it there.
            notes.append(f"{path}: passed over, it cannot be looked at ({error.strerror})")
            continue
        return path, notes
    return None, notes


def read(path: Path, uid: int) -> dict[str, Entry]:
    """The keys of a file.

    Args:
        uid: see `trust`.

    Raises:
        ConfigError: not to be read, not to be trusted, too large, or no TOML; names the file, and the line if there is
            one.
    """
    import tomllib  # most starts have no file

    text = _text(path, uid)
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and a number of more digits than Python reads
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    return {key: Entry(value, _line(text, key)) for key, value in table.items()}


def trust(path: Path, uid: int) -> str | None:
    """Why a file must not be believed, in one line that says what to do; None: it may be.

    Args:
        uid: who believes it: the daemon's user. Only that one and root may be able to write it.

    Raises:
        OSError: it is not there or cannot be looked at.
    """
    return _distrust(path, path.stat(), uid)


def _distrust(path: Path, info: os.stat_result, uid: int) -> str | None:
    if not stat.S_ISREG(info.st_mode):
        return f"{path}: is no regular file"
    if info.st_uid not in (0, uid):
        return f"{path}: belongs to another user (uid {info.st_uid}): chown it to root or to uid {uid}"
    if info.st_mode & stat.S_IWOTH:
        return f"{path}: can be written by everyone: chmod o-w {path}"
    for folder in {path.absolute().parent, path.resolve().parent}:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"{path}: lies in a folder that everyone can write to: chmod o-w {folder}"
    return None


def _text(path: Path, uid: int) -> str:
    """What is in it. The file that is judged is the very one that is read, whatever happens to its name meanwhile."""
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )  # a named pipe must not hold us up
        try:
            why = _distrust(path, os.fstat(descriptor), uid)
            if why is not None:
                raise ConfigError(why)
            with open(descriptor, "rb", closefd=False) as file:
                body = file.read(FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(body) > FILE_MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {FILE_MAX_BYTES // 1024} KiB")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text") from None


def _line(text: str, key: str) -> int | None:
    """The line where a key of the top level stands: the first that looks so, and has only whole statements without it
    before.
    """  # fmt: skip
    import tomllib

    spelled = re.escape(key)
    looks = re.compile(
        rf"""^[ \t]*\[*[ \t]*(?:{spelled}|"{spelled}"|'{spelled}')[ \t]*[=.\]]""", re.MULTILINE
    )
    for tried, found in enumerate(looks.finditer(text)):
        before = text[: found.start()]
        if tried == _LINES_TRIED:
            break
        try:
            if key not in tomllib.loads(before):
                return before.count("\n") + 1
        except ValueError:
            continue  # in the middle of a text over many lines
    return None
