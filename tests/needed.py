"""What some tests need beside Python: where it is missing, a person's run says so, and CI fails."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Leave this test: in CI a check that cannot run is a failure, on a person's machine the summary says so."""
    if os.environ.get("JOBSVC_CI"):
        pytest.fail(what)
    pytest.skip(what)


def program(name: str) -> str:
    """The path of a program, also of one for administrators."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        missing(f"{name} is not installed: what it checks stays unchecked")
    return path
