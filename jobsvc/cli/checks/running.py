"""F5: checks of the running daemon: there, of this version, ready."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from jobsvc.cli.checks.findings import Finding, absent, bad, good, odd
from jobsvc.cli.checks.scene import Scene
from jobsvc.model.places import ENDPOINT_FILE

_T = TypeVar("_T")


class About(msgspec.Struct):
    """What is read of `/v1/info`."""

    version: str


class Check(msgspec.Struct):
    """One line of `/readyz?verbose`."""

    check: str
    ok: bool
    detail: str


class Readiness(msgspec.Struct):
    """What is read of `/readyz?verbose`."""

    ready: bool
    checks: list[Check]


def reachable(scene: Scene) -> Finding:
    """It answers where it says that it does."""
    if scene.daemon_pid is None:
        if (scene.folder / ENDPOINT_FILE).exists():
            return odd(
                "no daemon is found; the last one did not stop cleanly", "the next start puts that right"
            )
        return absent("no daemon is found")
    if isinstance(scene.target, str):
        return bad(scene.target, "it may still be starting; look at its log")
    try:
        answer = scene.ask("GET", "/livez")
    except OSError as error:
        return bad(f"{scene.target.unix or scene.target.base} does not answer ({error})", "look at its log")
    if answer.status != 200:  # noqa: PLR2004 - HTTP's own
        return bad(f"/livez answers {answer.status}", "look at its log; another program may answer there")
    return good(f"answers at {scene.target.unix or scene.target.base}")


def same_version(scene: Scene) -> Finding:
    """The daemon is of the version that this command is of."""
    found = _told(scene, "/v1/info", About)
    if isinstance(found, Finding):
        return found
    here = scene.installed("jobsvc") or "0"
    if found.version != here:
        return odd(f"the daemon is {found.version}, this command {here}", "restart the daemon")
    return good(here)


def ready(scene: Scene) -> Finding:
    """It takes and runs jobs; what it says of itself."""
    found = _told(scene, "/readyz?verbose=1", Readiness)
    if isinstance(found, Finding):
        return found
    wrong = [f"{row.check}: {row.detail}" for row in found.checks if not row.ok]
    if not found.ready:
        return bad(f"not ready; {'; '.join(wrong)}", "look at its log")
    if wrong:
        return odd("; ".join(wrong), "look at its log")
    return good(f"{len(found.checks)} checks of its own are well")


def _told(scene: Scene, path: str, kind: type[_T]) -> _T | Finding:
    """What the daemon tells at `path`, or why it does not."""
    if scene.daemon_pid is None or isinstance(scene.target, str):
        return absent("no daemon can be asked")
    try:
        answer = scene.ask("GET", path, token=True)
    except OSError as error:
        return bad(f"no answer ({error})", "look at its log")
    if answer.status in (401, 403):
        return bad(
            f"the token is refused ({answer.status})", "name a valid one: JOBSVC_TOKEN, JOBSVC_TOKEN_FILE"
        )
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError as error:
        return bad(
            f"{path} gives something else ({answer.status}: {error})", "another program may answer there"
        )
