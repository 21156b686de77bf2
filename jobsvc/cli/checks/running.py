"""F5: checks of the running daemon: there, of this version, ready."""

from __future__ import annotations

from typing import Any

import msgspec

from jobsvc.cli.checks.findings import Finding, absent, bad, good, odd
from jobsvc.cli.checks.scene import Scene, value_of
from jobsvc.model.places import ENDPOINT_FILE


def reachable(scene: Scene) -> Finding:
    """It answers where it says that it does."""
    if scene.daemon_pid is None:
        if (scene.folder / ENDPOINT_FILE).exists():
            return odd("no daemon runs; the last one did not stop cleanly", "the next start puts that right")
        return absent("no daemon runs")
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
    found = _json(scene, "/v1/info")
    if isinstance(found, Finding):
        return found
    here = scene.installed("jobsvc") or "0"
    if found.get("version") != here:
        return odd(f"the daemon is {found.get('version')}, this command {here}", "restart the daemon")
    return good(f"{here}")


def ready(scene: Scene) -> Finding:
    """It takes and runs jobs; what it says of itself."""
    found = _json(scene, "/readyz?verbose=1")
    if isinstance(found, Finding):
        return found
    wrong = [f"{row['check']}: {row['detail']}" for row in found["checks"] if not row["ok"]]
    if not found["ready"]:
        return bad(f"not ready; {'; '.join(wrong)}", "look at its log")
    if wrong:
        return odd("; ".join(wrong), "look at its log")
    return good(f"{len(found['checks'])} checks of its own are well")


def _json(scene: Scene, path: str) -> dict[str, Any] | Finding:
    """The object at `path`, or why there is none."""
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
        value = value_of(answer.body)
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        return bad(f"{path} gives no JSON object ({answer.status})", "another program may answer there")
    return value
