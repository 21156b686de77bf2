"""F5: the data directory that a command means when none is named: the one that a daemon started here would have."""

from __future__ import annotations

import os
from pathlib import Path

from jobsvc.model.places import config_files, default_data_dir


def data_folder(named: str | None) -> Path:
    """The directory that was named (by option or variable), else that of the configuration file, else the default.

    A file that cannot be read counts as not there: most users of a machine may not read the daemon's.
    """
    if named:
        return Path(named)
    named_file = os.environ.get("JOBSVC_CONFIG")
    if not named_file and not any(os.path.lexists(file) for file in config_files(os.environ)):
        return default_data_dir(os.environ)
    from jobsvc.config import gather

    folder: Path = gather({}, os.environ).by_name["data_dir"].value
    return folder
