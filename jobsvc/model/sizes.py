"""F0: numbers of bytes as people write them, in options and decorators, and as they read them, in messages."""

from __future__ import annotations

import re

from jobsvc.model.limits import KIB, MIB

UNITS = {"": 1, "K": KIB, "M": MIB, "G": 1024 * MIB, "T": 1024 * 1024 * MIB}
"""Powers of 1024, as `ulimit`, systemd and the memory cgroup take them."""

_SIZE = re.compile(r"(\d+)([KMGT]?)(?:I?B)?", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of `512M`, `1G`, `64KiB` or `4096`.

    Raises:
        ValueError: it is none; the text says what is.
    """
    found = _SIZE.fullmatch(text.strip().upper())
    if found is None:
        raise ValueError(f"{text!r} is no number of bytes; write 4096, 64K, 512M or 1G")
    return int(found[1]) * UNITS[found[2]]


def size_text(size_bytes: int) -> str:
    """For people: `512 MiB`, `1.5 GiB`, `300 bytes`."""
    for name in ("T", "G", "M", "K"):
        if size_bytes >= UNITS[name]:
            return f"{round(size_bytes / UNITS[name], 1):g} {name}iB"
    return f"{size_bytes} bytes"
