"""F0: where a daemon keeps its things, and so where programs on the same machine find it. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ENDPOINT_FILE = "endpoint.json"
"""`{"url","unix","pid","boot"}`, written when the daemon listens, removed at a clean stop."""
TOKEN_FILE = "token"  # noqa: S105 - a file name
"""The admin token's text, written at the first start."""

SECRET_KEYS_FILE = "secret-keys"  # noqa: S105 - a file name
"""The keys for secret arguments of jobs."""

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Set by systemd for units with `LoadCredential=` and its like: a folder that only the service can read."""
TOKEN_CREDENTIAL = "jobsvc-token"  # noqa: S105 - a file name
SECRET_KEYS_CREDENTIAL = "jobsvc-secret-keys"  # noqa: S105 - the same
"""Names in that folder; each goes before the file of the data directory."""

CONFIG_FILE = "jobsvc.toml"
SYSTEM_CONFIG_FILE = Path("/etc/jobsvc") / CONFIG_FILE

DATA_DIR_VARIABLE = "JOBSVC_DATA_DIR"
SERVICE_DIR_VARIABLE = "STATE_DIRECTORY"
"""Set by systemd for units with `StateDirectory=`."""


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """The data directory when no option names one; daemon and clients share this rule.

    `$JOBSVC_DATA_DIR`, else the first of `$STATE_DIRECTORY`, else the user's folder for state
    (`~/.local/state/jobsvc`, or below `$XDG_STATE_HOME`).
    """
    if named := environ.get(DATA_DIR_VARIABLE):
        return Path(named).expanduser()
    if service := environ.get(SERVICE_DIR_VARIABLE, "").split(":")[0]:
        return Path(service)
    from platformdirs import user_state_path  # 10 ms that a caller who names the folder need not pay

    return user_state_path("jobsvc", appauthor=False)


def credential(environ: Mapping[str, str], name: str) -> Path | None:
    """Where systemd has put a credential of this service, if it was given; None when there are none at all."""
    folder = environ.get(CREDENTIALS_VARIABLE, "")
    return Path(folder) / name if folder.startswith("/") else None


def config_files(environ: Mapping[str, str], system: Path = SYSTEM_CONFIG_FILE) -> list[Path]:
    """Where a configuration file is looked for when none is named; the first that is there is read alone.

    The one that systemd gives to this very service, then the user's, then the machine's. Never the current folder, and
    no relative one out of the environment (as the XDG specification says): a file decides which code runs.
    """
    found = [credential(environ, CONFIG_FILE)]
    named = environ.get("XDG_CONFIG_HOME", "")
    home = environ.get("HOME", "")
    if named.startswith("/"):
        found.append(Path(named) / "jobsvc" / CONFIG_FILE)
    elif home.startswith("/"):
        found.append(Path(home) / ".config" / "jobsvc" / CONFIG_FILE)
    return [path for path in (*found, system) if path is not None]
