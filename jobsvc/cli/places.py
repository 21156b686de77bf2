"""F5: the data directory that a command means when none is named: the one that a daemon started here would have."""

from __future__ import annotations

import os
from pathlib import Path

from jobsvc.model.places import default_data_dir


def data_folder(named: str | None) -> Path:
    """The directory that was named (by option or variable), else that of the configuration file, else the default.

    A file that cannot be read counts as not there: most users of a machine may not read the daemon's.
    """
    if named:
        return Path(named)
    from jobsvc.config.file import find

    if find(os.environ)[0] is None:
        return default_data_dir(os.environ)
    from jobsvc.config import gather

    folder: Path = gather({}, os.environ).by_name["data_dir"].value
    return folder
