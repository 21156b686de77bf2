"""Finding tasks: by the names of modules; what is wrong with a module is said once and clearly."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobsvc.authoring.command import Command
from jobsvc.authoring.discover import ModuleLoadError, discover, load

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Write a module to a folder that is on the path; afterwards it is forgotten."""
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(tmp_path))

    def one(name: str, text: str) -> None:
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    yield one
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def refusal(*modules: str) -> ModuleLoadError:
    with pytest.raises(ModuleLoadError) as refused:
        discover(modules)
    assert str(refused.value).startswith(f"task module {refused.value.module}: {refused.value.detail}")
    return refused.value


ONE = "from jobsvc import task\n@task\ndef one(a: int) -> int:\n    return a\n"


def test_tasks_and_commands_in_the_order_of_the_module(write: Write) -> None:
    write(
        "mod_a",
        f"{ONE}from jobsvc import command\nzip = command('zip', ['zip', '{{src}}'])\n@task\ndef b(): ...\n",
    )
    found = discover(["mod_a"])
    assert list(found) == ["one", "zip", "b"]
    assert isinstance(found["zip"], Command)
    assert found["zip"].module == found["one"].module == "mod_a"


def test_same_object_in_two_modules_is_one_task(write: Write) -> None:
    write("mod_a", f"{ONE}again = one\n")
    write("mod_b", "from mod_a import one\n")
    assert list(discover(["mod_a", "mod_b"])) == list(discover(["mod_b"])) == ["one"]


def test_two_tasks_of_one_name_are_named_both(write: Write) -> None:
    write("mod_a", ONE)
    write("mod_b", "from jobsvc import task\n@task(name='one')\ndef other(): ...\n")
    error = refusal("mod_a", "mod_b")
    assert error.module == "mod_b"
    assert "two tasks are called 'one': mod_a.one and mod_b.other" in error.detail


def test_module_in_a_package(write: Write) -> None:
    write("pack.inner.jobs", ONE)
    assert list(discover(["pack.inner.jobs"])) == ["one"]


def test_syntax_error_shows_file_line_and_text(write: Write) -> None:
    write("mod_a", "x = 1\ndef broken(:\n")
    error = refusal("mod_a")
    assert error.detail.startswith("SyntaxError: ")
    assert 'mod_a.py", line 2' in error.traceback_text
    assert "def broken(:" in error.traceback_text
    assert "discover.py" not in error.traceback_text


def test_error_in_the_module_shows_its_own_lines_only(write: Write) -> None:
    write("mod_b", "def fails():\n    return 1 / 0\n")
    write("mod_a", "import mod_b\nmod_b.fails()\n")
    error = refusal("mod_a")
    assert error.detail == "ZeroDivisionError: division by zero"
    assert 'mod_a.py", line 2' in error.traceback_text
    assert 'mod_b.py", line 2' in error.traceback_text
    assert "importlib" not in error.traceback_text
    assert "discover.py" not in error.traceback_text


def test_wrong_decorator_value_is_told_with_its_line(write: Write) -> None:
    write("mod_a", "from jobsvc import task\n@task(retries=-1)\ndef a(): ...\n")
    error = refusal("mod_a")
    assert error.detail == "ValueError: task 'a': retries must be from 0 to 1000, not -1"
    assert 'mod_a.py", line 2' in error.traceback_text


@pytest.mark.parametrize(
    "text", ["import sys\nsys.exit(0)\n", "raise SystemExit\n", "raise BaseException('odd')\n"]
)
def test_module_that_exits_does_not_take_us_along(write: Write, text: str) -> None:
    write("mod_a", text)
    assert refusal("mod_a").detail.startswith(("SystemExit", "BaseException: odd"))


def test_module_that_is_not_there() -> None:
    error = refusal("no_such_module_here")
    assert error.detail.startswith(
        "there is no module 'no_such_module_here' on the path; start where it lies"
    )
    assert error.traceback_text == ""
    assert "'no_such_package'" in refusal("no_such_package.jobs").detail


def test_file_name_in_place_of_a_module(write: Write) -> None:
    write("mod_a", ONE)
    assert "a module is named without .py" in refusal("mod_a.py").detail
    assert "a module is named without .py" in refusal("folder/mod_a").detail


def test_module_that_needs_another_which_is_not_there(write: Write) -> None:
    """That is an error of the module, with its traceback."""
    write("mod_a", "import no_such_module_here\n")
    error = refusal("mod_a")
    assert "No module named 'no_such_module_here'" in error.detail
    assert 'mod_a.py", line 1' in error.traceback_text


@pytest.mark.parametrize("name", ["", ".relative", "..", "a b"])
def test_odd_module_name(name: str) -> None:
    assert refusal(name).module == name


def test_module_without_tasks(write: Write) -> None:
    write("mod_a", "def f(): ...\n")
    assert "names no tasks" in refusal("mod_a").detail


def test_annotation_that_the_module_never_defines(write: Write) -> None:
    write(
        "mod_a",
        "from __future__ import annotations\nfrom jobsvc import task\n@task\ndef f(a: Nowhere): ...\n",
    )
    error = refusal("mod_a")
    assert "task 'f': parameter a: annotation 'Nowhere'" in error.detail
    assert "not under TYPE_CHECKING" in error.detail


def test_later_annotation_that_is_no_json(write: Write) -> None:
    write(
        "mod_a",
        "from __future__ import annotations\nfrom jobsvc import task\n"
        "@task\ndef f(a: Odd): ...\nclass Odd:\n    pass\n",
    )
    assert "parameter a: Odd cannot be made from JSON" in refusal("mod_a").detail


def test_given_paths_come_before_all_others(write: Write, tmp_path: Path) -> None:
    write("mod_a", "raise AssertionError('the wrong one')\n")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mod_a.py").write_text(ONE.replace("one", folder))
    paths = [str(tmp_path / "first"), str(tmp_path / "second")]
    sys.path.append(paths[0])
    assert list(load(["mod_a"], paths)) == ["first"]
    assert sys.path[:2] == paths
    assert sys.path.count(paths[0]) == 1


def test_error_survives_being_copied() -> None:
    error = copy.copy(ModuleLoadError("m", "wrong", "Traceback"))
    assert (error.module, error.detail, error.traceback_text) == ("m", "wrong", "Traceback")
    assert str(error) == "task module m: wrong\nTraceback"
