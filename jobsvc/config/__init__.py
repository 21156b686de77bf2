"""F3: the options of a daemon: one table, read from the command line, the environment and a file, with its defaults."""

from jobsvc.config.options import OPTIONS, SETTINGS, Option
from jobsvc.config.settings import LISTEN, Config, ConfigError
from jobsvc.config.sources import Setting, Settings, build, gather, usable_cpus

__all__ = [
    "LISTEN",
    "OPTIONS",
    "SETTINGS",
    "Config",
    "ConfigError",
    "Option",
    "Setting",
    "Settings",
    "build",
    "gather",
    "usable_cpus",
]
