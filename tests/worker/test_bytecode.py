"""Code that changes twice within a second runs as it is, not as it was compiled before."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobsvc.worker.bytecode import FRESH_S, forget_fresh

CHANGED_S = 1_795_000_000.25


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path, changed at `CHANGED_S`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return tmp_path / "twice_changed.py"


def loaded(source: Path, text: str) -> ModuleType:
    source.write_text(text)
    os.utime(source, (CHANGED_S, CHANGED_S))
    sys.modules.pop(source.stem, None)
    importlib.invalidate_caches()
    return importlib.import_module(source.stem)


def test_a_second_change_within_the_second_is_seen(source: Path) -> None:
    """Same size, same second: without the removal Python would run the first text again."""
    first = loaded(source, "VERSION = 1\n")
    assert Path(importlib.util.cache_from_source(str(source))).exists()
    assert loaded(source, "VERSION = 2\n").VERSION == 1  # this is what it is about
    forget_fresh(CHANGED_S + 0.5, [first])
    assert loaded(source, "VERSION = 2\n").VERSION == 2


def test_older_code_keeps_its_compiled_form(source: Path) -> None:
    """Only what may change again within its second is compiled at every start."""
    module = loaded(source, "VERSION = 1\n")
    forget_fresh(CHANGED_S + FRESH_S, [module])
    assert Path(importlib.util.cache_from_source(str(source))).exists()


def test_what_has_no_source_is_passed_over(source: Path) -> None:
    """Built-in modules, and one whose file is gone."""
    module = loaded(source, "VERSION = 1\n")
    source.unlink()
    forget_fresh(CHANGED_S, [sys, ModuleType("made_up"), module])
    assert module.VERSION == 1
