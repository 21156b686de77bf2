"""A wall clock that a test can step: first on PYTHONPATH, this module gives every Python process that it is loaded in
a `time.time` that is off by what the file named by TORTURE_CLOCK says: one double, in seconds. Elapsed time is not
touched, as little as by an operator who sets the clock.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

_real, _real_ns = time.time, time.time_ns
_fd = os.open(os.environ["TORTURE_CLOCK"], os.O_RDONLY)
_page = mmap.mmap(_fd, 8, mmap.MAP_SHARED, mmap.PROT_READ)
os.close(_fd)


def _off_s() -> float:
    (seconds,) = struct.unpack("d", _page[:8])
    return float(seconds)


def _time() -> float:
    return _real() + _off_s()


def _time_ns() -> int:
    return _real_ns() + int(_off_s() * 1e9)


time.time, time.time_ns = _time, _time_ns
