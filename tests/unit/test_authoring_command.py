"""Commands: a placeholder fills exactly one argv element, whatever its value holds."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc import command
from jobsvc.model.argv import ArgvError, placeholders, render_argv
from jobsvc.model.task import Port
from jobsvc.model.types import ArgsError, checker

encode = command(
    "encode", ["ffmpeg", "-i", "{src}", "--rate={rate}", "{{literal}}", "{src}"], timeout=5, retries=1
)


def test_spec_tells_the_daemon_all_it_needs() -> None:
    spec = encode.spec()
    assert (spec.name, spec.executor, spec.module) == ("encode", "command", __name__)
    assert spec.command is not None
    assert spec.command.argv[0] == "ffmpeg"
    assert spec.ports == (Port("out", "out"),)
    assert (spec.policy.max_attempts, spec.policy.timeouts.run) == (2, 5)
    schema = json.loads(spec.args_schema)
    assert schema["required"] == ["src", "rate"]
    assert schema["additionalProperties"] is False
    result = json.loads(spec.result_schema)
    assert result["$defs"]["CommandResult"]["required"] == ["code"]


def test_arguments_are_checked_alike_on_both_sides() -> None:
    check = checker(encode.spec().args_tree)
    check(b'{"src":"a","rate":1.5}')
    assert encode.bind(b'["a",true]') == ([], {"src": "a", "rate": True})
    for raw, pointer in [
        (b'{"src":"a"}', "/rate"),
        (b'{"src":["a"],"rate":1}', "/src"),
        (b'{"src":null,"rate":1}', "/src"),
        (b'{"src":"a","rate":1,"x":1}', "/x"),
        (b'{"src":"a","rate":1e999}', "/rate"),
    ]:
        for refuses in (check, encode.bind):
            with pytest.raises(ArgsError) as refused:
                refuses(raw)
            assert refused.value.pointer == pointer


def test_placeholder_fills_its_element_and_no_other() -> None:
    rendered = encode.render({"src": "a b; rm -rf ~ $(x) {rate} -n", "rate": 1.5})
    assert rendered == [
        "ffmpeg", "-i", "a b; rm -rf ~ $(x) {rate} -n", "--rate=1.5", "{literal}", "a b; rm -rf ~ $(x) {rate} -n",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (3, "3"), (-0.5, "-0.5"), ("", ""), ("-x", "-x")]
)
def test_values_as_text(value: Any, text: str) -> None:
    assert render_argv(["{v}"], {"v": value}) == [text]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_stays_one_element(value: str) -> None:
    assert render_argv(["p", "{v}", "<{v}>"], {"v": value}) == ["p", value, f"<{value}>"]


@pytest.mark.parametrize("value", ["a\0b", "\ud800", None, ["a"], b"a"])
def test_value_that_cannot_stand_in_a_command_line(value: Any) -> None:
    with pytest.raises(ArgvError, match=r"v: .* cannot stand in a command line"):
        render_argv(["p", "{v}"], {"v": value})


def test_missing_value() -> None:
    with pytest.raises(ArgvError, match=re.escape("no value for {v}")):
        render_argv(["p", "{v}"], {})


def test_placeholders_in_order_of_first_use() -> None:
    assert placeholders(["{b}", "{a}{b}", "{{c}}", "}}{{"]) == ("b", "a")
    assert render_argv(["}}{{", "{{{a}}}"], {"a": 1}) == ["}{", "{1}"]


@pytest.mark.parametrize(
    "element", ["{", "}", "a{", "{}", "{1}", "{a b}", "{a.b}", "{a!r}", "{a:>3}", "{{a}", "{a}}"]
)
def test_stray_brace_is_refused(element: str) -> None:
    with pytest.raises(ValueError, match=r"command 'c': argv\[1\] .* a brace is doubled"):
        command("c", ["p", element])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"argv": []}, ValueError, "argv is empty"),
        ({"argv": "ls -l"}, TypeError, "argv must be a list of elements"),
        ({"argv": ["ls", 3]}, TypeError, "argv[1] must be a str, not 3"),
        ({"argv": ["a\0"]}, ValueError, "argv[0] holds a NUL byte"),
        ({"ok_codes": ()}, ValueError, "ok_codes is empty"),
        ({"ok_codes": 0}, TypeError, "ok_codes must be a sequence"),
        ({"ok_codes": [0, 256]}, ValueError, "ok_codes must be from 0 to 255, not 256"),
        ({"ok_codes": [True]}, TypeError, "ok_codes must hold integers"),
        ({"text": 1}, TypeError, "text must be True or False"),
        ({"cwd": "a\0"}, ValueError, "cwd holds a NUL byte"),
        ({"cwd": 3}, TypeError, "int"),
        ({"env": {"A": 1}}, TypeError, "env['A'] must be a str"),
        ({"env": {"A=B": "1"}}, ValueError, "no name of a variable"),
        ({"env": {"": "1"}}, ValueError, "no name of a variable"),
        ({"name": "a b"}, ValueError, "name must be"),
        ({"timeout": 0}, ValueError, "timeout must be"),
        ({"on_lost": "x"}, ValueError, "on_lost must be"),
    ],
    ids=str,
)
def test_wrong_value_is_refused_where_it_is_written(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as refused:
        command(**{"name": "c", "argv": ["ls"]} | arguments)
    assert words in str(refused.value)


def test_options_reach_the_spec() -> None:
    spec = (
        command("c", ("ls",), ok_codes=[0, 1], text=False, cwd=pathlib.Path("/tmp"), env={"A": "b"})
        .spec()
        .command
    )
    assert spec is not None
    assert (spec.ok_codes, spec.text, spec.cwd, spec.env) == ((0, 1), False, "/tmp", {"A": "b"})
