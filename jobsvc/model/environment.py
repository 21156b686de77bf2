"""F0: which of the daemon's environment variables its workers and commands get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

SECRET_PREFIXES: Final = ("JOBSVC_TOKEN", "JOBSVC_SECRET", "LISTEN_")
SECRETS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")
"""What user code must not inherit: our token and keys, and the service manager's ways to us."""
NEEDED: Final = (
    "PATH",  # programs are looked for there
    "LD_LIBRARY_PATH",  # without it some interpreters do not start
    "HOME", "USER", "LOGNAME",  # whose processes they are: caches, `~`, Python's user folder
    "LANG", "LANGUAGE", "LC_*",  # how text is encoded
    "TZ",
    "TMPDIR",  # where there is room for temporary files
)  # fmt: skip
"""Passed beside an allow-list: what an interpreter or a program needs to start and to behave as on the command line."""


def is_secret(name: str) -> bool:
    """Whether a variable is the daemon's own and never handed on."""
    return name.startswith(SECRET_PREFIXES) or name in SECRETS


def handed_on(environ: Mapping[str, str], allowed: Iterable[str] | None) -> dict[str, str]:
    """What user code gets of the daemon's environment.

    Args:
        allowed: names, with `*`, `?` and `[…]` as in file names; they and `NEEDED` are all that is handed on.
            None: everything but the secrets. Case counts. Secrets are handed on in no case.
    """
    patterns = ("*",) if allowed is None else (*NEEDED, *allowed)
    return {
        name: value
        for name, value in environ.items()
        if not is_secret(name) and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
