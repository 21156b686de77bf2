"""What must stay light stays light: import-linter reads the imports, here fresh interpreters run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("twisted", "klein", "treq", "zope", "werkzeug", "httpx2", "click", "rich", "prometheus_client")


def modules_of(room: str) -> list[str]:
    """Dotted names of the package ``jobsvc.<room>`` and of the modules in it."""
    files = sorted((ROOT / "jobsvc" / room).rglob("*.py"))
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.stem != "__init__"
    ]
    return [f"jobsvc.{room}", *names]


def run_fresh(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, from a folder where only installed and given paths count."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "module",
    ["jobsvc", "jobsvc.testing", "jobsvc.worker.cpu", *modules_of("model"), *modules_of("authoring")],
)
def test_light_module_imports_where_nothing_heavy_exists(module: str) -> None:
    """Task authors and cpu workers need neither Twisted nor what the edge needs."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in HEAVY)  # None: the import fails at once
    done = run_fresh(f"import sys\n{blocked}import importlib\nimportlib.import_module({module!r})\n")
    assert done.returncode == 0, done.stderr


def test_public_names_load_without_anything_heavy() -> None:
    """`from jobsvc import task` and its neighbours, the lazy names included, work without Twisted."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in HEAVY)
    done = run_fresh(f"import sys\n{blocked}import jobsvc\nassert jobsvc.__all__\nfrom jobsvc import *\n")
    assert done.returncode == 0, done.stderr


def test_plugin_loads_nothing_of_ours_and_no_reactor() -> None:
    """Both launchers read the plugin before they choose a reactor: it must not choose one for them."""
    done = run_fresh(
        "import sys, twisted.plugins.jobsvc_plugin as p\n"
        "assert p.jobsvc.tapname == 'jobsvc' and p.jobsvc.module == 'jobsvc.tap'\n"
        "print(sorted(m for m in sys.modules if m == 'twisted.internet.reactor'"
        " or m.split('.')[0] in {'jobsvc', 'klein', 'treq'}))\n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_launcher_needs_the_standard_library_only() -> None:
    """The launcher runs isolated and without site-packages, in about 10 ms, before the worker's own start."""
    launcher = ROOT / "jobsvc" / "worker" / "launch.py"
    done = run_fresh(
        "import sys, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('launch', {str(launcher)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['launch'] = module\n"
        "spec.loader.exec_module(module)\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded - set(sys.stdlib_module_names) - {'launch', '__main__'}))\n",
        "-I",
        "-S",
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
