"""F5: checks of who can get at what: settings, users, files, the doors of the running daemon."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Final

from jobsvc.cli.checks.findings import Finding, absent, bad, good, odd
from jobsvc.cli.checks.scene import Scene, mode_of
from jobsvc.config.file import trust
from jobsvc.config.sources import DEFAULT
from jobsvc.http.endpoints import EndpointError, parse
from jobsvc.model.listeners import reach_of
from jobsvc.model.places import TOKEN_CREDENTIAL, TOKEN_FILE, credential
from jobsvc.store.migrating import BACKUP_FOLDER

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
NAMED_MAX: Final = 3
"""Files named in one line."""


def settings(scene: Scene) -> Finding:
    """Options, variables and file can be used. That there are no tasks is no flaw: they may come with the start."""
    problems = [text for text in scene.settings.problems if text is not scene.settings.no_tasks]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return bad(problems[0] + more, "jobsvc config check tells them all")
    if scene.settings.notes:
        return odd(scene.settings.notes[0], "remove it, or correct its name")
    return good(f"{scene.whose}, from {scene.config.config or 'options and variables'}")


def config_file(scene: Scene) -> Finding:
    """Nobody but root and the daemon's user can write it."""
    path = scene.config.config
    if path is None:
        return absent("there is none")
    try:
        why = trust(path, scene.owner)
    except OSError as error:
        return bad(f"{path}: {error.strerror}", "make it readable for the daemon's user")
    if why is None:
        return good(f"{path}: only its owner can write it")
    what, _, advice = why.rpartition(": ")
    return bad(what, advice)


def user(scene: Scene) -> Finding:
    """The daemon, and so every job, is not root."""
    if scene.owner == 0:
        return bad(
            "jobs run as root", "start the daemon as a user of its own (User= or DynamicUser= of the unit)"
        )
    return good(f"jobs run as uid {scene.owner}")


def listeners(scene: Scene) -> Finding:
    """Each can be opened, as far as its text tells, and nothing in clear is open to other machines."""
    for text in scene.config.listen:
        try:
            parse(text)
        except EndpointError as error:
            return bad(f"{text}: {error}", "mend --listen, or listen in the file")
    if scene.config.behind_proxy:
        return good("behind_proxy is set: a proxy on a trusted network ends TLS")
    reach = {text: reach_of(text) for text in scene.config.listen}
    for text, where in reach.items():
        if where == "open":
            return bad(
                f"{text} is open to other machines and not encrypted",
                "listen on 127.0.0.1, on unix:, on ssl: or tls:, or set behind_proxy",
            )
    if unknown := [text for text, where in reach.items() if where == "unknown"]:
        return good(f"{', '.join(unknown)}: the daemon refuses it at its start unless it is loopback")
    return good(", ".join(f"{text} ({where})" for text, where in reach.items()))


def data_folder(scene: Scene) -> Finding:
    """It is its owner's alone."""
    try:
        info = scene.folder.stat()
    except FileNotFoundError:
        return absent(f"{scene.folder} is not there; the first start makes it")
    except OSError as error:
        return bad(f"{scene.folder}: {error.strerror}", "ask as the daemon's user, or as root")
    if not stat.S_ISDIR(info.st_mode):
        return bad(f"{scene.folder} is no folder", "name another with --data-dir")
    if info.st_uid != scene.owner:
        return bad(
            f"{scene.folder} belongs to uid {info.st_uid}",
            f"ask as that user, or as root; if the daemon is to run as you: chown -R {scene.owner} {scene.folder}",
        )
    if info.st_mode & OTHERS:
        return bad(f"{scene.folder} has mode {mode_of(info)}", f"chmod 700 {scene.folder}")
    return good(f"{scene.folder} has mode 0700 and belongs to uid {info.st_uid}")


def token_file(scene: Scene) -> Finding:
    """The admin token is for the eyes of its owner."""
    given = credential(scene.daemon_environ, TOKEN_CREDENTIAL)
    file = given if given is not None and given.exists() else scene.folder / TOKEN_FILE
    return _private(scene, file, "the first start makes it")


def key_file(scene: Scene) -> Finding:
    """The keys of secret arguments are for the eyes of their owner."""
    file = scene.config.secret_key
    assert file is not None
    found = _private(scene, file, "no secret has needed a key yet")
    if found.status == "n/a" and scene.settings.by_name["secret_key"].origin != DEFAULT:
        return bad(
            f"{file} is not there",
            "put it back, or leave secret_key away: a start makes a file of its own then",
        )
    return found


def data_files(scene: Scene) -> Finding:
    """What lies in the data directory is its owner's alone."""
    loose, foreign, seen = [], [], 0
    try:
        for folder in (scene.folder, scene.folder / BACKUP_FOLDER):
            if not folder.is_dir():
                continue
            for file in sorted(folder.iterdir()):
                info = file.lstat()
                if stat.S_ISSOCK(info.st_mode):
                    continue  # its mode is an option of its listener, and who comes by it needs a token
                seen += 1
                if info.st_uid != scene.owner:
                    foreign.append(file)
                elif info.st_mode & OTHERS and not stat.S_ISLNK(info.st_mode):
                    loose.append(file)
    except OSError as error:
        return bad(f"{error.filename}: {error.strerror}", "ask as the daemon's user, or as root")
    if foreign:
        return bad(f"of another user: {_names(foreign)}", f"chown {scene.owner} them, once you know why")
    if loose:
        return odd(f"open beyond their owner, were it not for the folder: {_names(loose)}", "chmod go= them")
    return good(f"{seen} files, all its owner's alone") if seen else absent("there are none yet")


def memory(scene: Scene) -> Finding:
    """Jobs, which run as the daemon's user, cannot read its memory."""
    pid = scene.daemon_pid
    if pid and scene.owner and (scene.proc / str(pid) / "environ").stat().st_uid == 0:
        return good("the daemon is not dumpable")
    try:
        scope = int((scene.proc / "sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        scope = 0
    if scope:
        return good(
            f"the kernel lets no process look into one that it has not started (ptrace_scope {scope})"
        )
    return odd(
        "code of jobs could read the daemon's memory: they are the same user",
        "sysctl kernel.yama.ptrace_scope=1; submit only tasks you trust",
    )


def umask(scene: Scene) -> Finding:
    """What the running daemon and its jobs make is theirs alone."""
    if not scene.daemon_pid:
        return absent("no daemon is found; a start by twistd or twist sets 077")
    mask = int(scene.daemon_facts("status").get("Umask", "0"), 8)
    if mask & OTHERS == OTHERS:
        return good(f"{mask:04o}")
    return odd(
        f"{mask:04o}: new files can be read by others", "start it by twistd or twist, or set UMask=0077"
    )


def new_privileges(scene: Scene) -> Finding:
    """A job cannot become another user by a setuid program."""
    if not scene.daemon_pid:
        return absent("no daemon is found; the unit of deploy/ sets NoNewPrivileges")
    if scene.daemon_facts("status").get("NoNewPrivs") == "1":
        return good("jobs cannot gain any")
    return odd(
        "a job may run setuid programs, such as sudo",
        "NoNewPrivileges=yes of the unit, or setpriv --no-new-privs",
    )


def core_dumps(scene: Scene) -> Finding:
    """A crash leaves no secrets on the disk."""
    if not scene.daemon_pid:
        return absent("no daemon is found")
    text = (scene.proc / str(scene.daemon_pid) / "limits").read_text()
    if re.search(r"^Max core file size\s+0\s", text, re.MULTILINE):
        return good("off")
    return odd(
        "a crash may write memory, and secrets in it, to a file", "ulimit -c 0 (LimitCORE=0 of the unit)"
    )


def worker_env(scene: Scene) -> Finding:
    """What of the environment jobs get."""
    allowed = scene.config.worker_env
    if allowed is None:
        return good("jobs get every variable but the daemon's own; worker_env makes it a list")
    return good(f"jobs get what they need to start{''.join(f', {name}' for name in allowed)}")


def audit(scene: Scene) -> Finding:
    """Changes and refusals are kept."""
    return good("on") if scene.config.audit else odd("the audit log is off", "set audit = true")


# -- the running daemon's doors --------------------------------------------------------------------------------------


def asks_for_token(scene: Scene) -> Finding:
    """Without a token nothing is told."""
    return _refused(scene, "GET", "/v1/info", {}, 401, "a request without a token")


def host_names(scene: Scene) -> Finding:
    """A name that is not its own is refused: DNS rebinding."""
    return _refused(
        scene, "GET", "/livez", {"Host": "doctor.invalid"}, 421, "a request for another host name"
    )


def other_sites(scene: Scene) -> Finding:
    """A page of another site can neither do nor read anything."""
    origin = {"Origin": "http://doctor.invalid"}
    found = _refused(scene, "POST", "/v1/jobs", origin, 403, "a request of another site's page")
    if found.status != "pass":
        return found
    if "access-control-allow-origin" in scene.ask("GET", "/livez", origin).headers:
        return bad(
            "it tells browsers that other sites may read (CORS)",
            "update jobsvc, and whatever stands before it",
        )
    return found


def _refused(
    scene: Scene, method: str, path: str, headers: dict[str, str], status: int, what: str
) -> Finding:
    if scene.daemon_pid is None:
        return absent("no daemon is found")
    if isinstance(scene.target, str):
        return absent("the daemon does not say where it answers")
    answer = scene.ask(method, path, headers)
    if answer.status == status:
        return good(f"{what} is refused ({status})")
    return bad(
        f"{what} was answered {answer.status}, not {status}",
        "update jobsvc; another program may answer there",
    )


def _private(scene: Scene, file: Path, unless: str) -> Finding:
    try:
        info = file.stat()
    except FileNotFoundError:
        return absent(f"{file} is not there; {unless}")
    except OSError as error:
        return bad(f"{file}: {error.strerror}", "ask as the daemon's user, or as root")
    if info.st_uid not in (0, scene.owner):
        return bad(f"{file} belongs to uid {info.st_uid}", f"chown {scene.owner} {file}")
    if info.st_mode & OTHERS:
        return bad(
            f"{file} has mode {mode_of(info)}",
            f"chmod 600 {file}, and replace what is in it if others may have read it",
        )
    return good(f"{file} has mode {mode_of(info)} and belongs to uid {info.st_uid}")


def _names(files: list[Path]) -> str:
    more = len(files) - NAMED_MAX
    return ", ".join(map(str, files[:NAMED_MAX])) + (f" and {more} more" if more > 0 else "")
