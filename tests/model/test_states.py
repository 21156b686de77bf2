"""The table of states: complete, without dead ends, and the same in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.model.states import (
    ACTIVE,
    FINAL,
    STATES,
    TRANSITIONS,
    WAITING,
    State,
    allowed,
    diagram,
    sources,
)  # fmt: skip

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def test_waiting_active_and_final_are_all_states() -> None:
    assert sorted((*WAITING, *ACTIVE, *FINAL)) == sorted(STATES)


def test_every_state_can_be_reached_and_left() -> None:
    reached: set[State | None] = {None}
    while True:
        more = {way.to for way in TRANSITIONS if way.frm in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == {None, *STATES}
    assert {way.frm for way in TRANSITIONS} == {None, *STATES}


def test_every_state_can_come_to_an_end() -> None:
    ending: set[State | None] = set(FINAL)
    while True:
        more = {way.frm for way in TRANSITIONS if way.to in ending} - ending
        if not more:
            break
        ending |= more
    assert ending >= set(STATES)


def test_a_final_job_is_never_reopened() -> None:
    assert {way.to for way in TRANSITIONS if way.frm in FINAL} == {None}


def test_only_running_jobs_succeed_and_only_waiting_jobs_expire() -> None:
    assert set(sources("succeeded")) == set(ACTIVE)
    assert set(sources("expired")) == set(WAITING)
    assert sources("running") == ("queued",)
    assert sources("stopping") == ("running", "stopping")
    assert sources("queued", ("running", "stopping")) == ("running", "stopping")


def test_a_running_job_is_cancelled_only_by_way_of_stopping() -> None:
    assert not allowed("running", "cancelled")
    assert allowed("stopping", "cancelled")


@pytest.mark.parametrize("state", STATES)
def test_only_where_a_cancel_waits_for_code_to_stop_does_the_reason_change_alone(state: State) -> None:
    assert allowed(state, state) == (state in ("stopping", "retrying"))


def test_every_way_says_who_may_take_it_and_when() -> None:
    assert all(way.who and way.guard for way in TRANSITIONS)
    assert len(set(TRANSITIONS)) == len(TRANSITIONS)


def test_ways_that_part_say_which_of_them_is_taken() -> None:
    """From one state, by the same hand: each names its own half of the condition."""
    parting: dict[tuple[str, str, str], set[State | None]] = {}
    for way in TRANSITIONS:
        if way.frm is not None:
            parting.setdefault((way.frm, way.who, way.guard), set()).add(way.to)
    assert {key: ends for key, ends in parting.items() if len(ends) > 1} == {}


@pytest.mark.parametrize("state", ACTIVE)
def test_what_on_lost_says_decides_between_queued_and_failed(state: State) -> None:
    """Also for what was stopping: drained, or cut short with its daemon."""
    said = {
        (way.to, word)
        for way in TRANSITIONS
        for word in ("on_lost=retry", "on_lost=fail")
        if way.frm == state and word in way.guard
    }
    assert said == {("queued", "on_lost=retry"), ("failed", "on_lost=fail")}


def test_the_diagram_shows_every_way_once() -> None:
    lines = diagram().splitlines()[1:]
    shown = [tuple(line.strip().split(": ")[0].split(" --> ")) for line in lines]
    assert len(shown) == len(set(shown))
    assert set(shown) == {(way.frm or "[*]", way.to or "[*]") for way in TRANSITIONS}


def test_the_docs_hold_the_diagram_as_it_is() -> None:
    """When this fails: print `jobsvc.model.states.diagram()` into docs/states.md."""
    assert f"```mermaid\n{diagram()}```\n" in PAGE.read_text(encoding="utf-8")


def test_the_docs_hold_the_table_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [f"| {way.frm or '—'} | {way.to or 'gone'} | {way.who} | {way.guard} |" for way in TRANSITIONS]
    assert "\n".join(rows) + "\n" in page
