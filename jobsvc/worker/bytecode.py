"""F2, free of Twisted: code that has changed a moment ago leaves no compiled form behind.

Python takes a compiled file for current when it carries its source's size and the second of its last change. A source
that is changed twice within one second, without changing its size, would then go on running as it was before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from types import ModuleType

FRESH_S = 2.0
"""A source changed less than this ago may be changed again within the second that its compiled file is stamped with."""


def forget_fresh(now_s: float, modules: Iterable[ModuleType] | None = None) -> None:
    """Remove the compiled files of modules whose source is fresh; the next import compiles them anew.

    Args:
        now_s: the wall clock, which also stamps files.
        modules: all that are loaded, when left out.
    """
    for module in list(sys.modules.values()) if modules is None else modules:
        spec = getattr(module, "__spec__", None)
        if spec is None or not spec.has_location or not spec.origin or not spec.cached:
            continue
        # A source that is gone and a folder that is not ours to write are no trouble: then nothing stale is read.
        with suppress(OSError):
            if now_s - os.stat(spec.origin).st_mtime < FRESH_S:  # noqa: PTH116 - for every module at every start
                os.unlink(spec.cached)  # noqa: PTH108 - the same
