"""F2: where the daemon is and by what token: arguments, then environment, then the data directory. Reads two files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from jobsvc.client.errors import Unreachable
from jobsvc.model.places import (
    DATA_DIR_VARIABLE,
    ENDPOINT_FILE,
    TOKEN_CREDENTIAL,
    TOKEN_FILE,
    credential,
    default_data_dir,
)

URL_VARIABLE = "JOBSVC_URL"
TOKEN_VARIABLE = "JOBSVC_TOKEN"  # noqa: S105 - a variable's name
TOKEN_FILE_VARIABLE = "JOBSVC_TOKEN_FILE"  # noqa: S105 - the same

_UNIX = "unix:"
_LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))


class Endpoint(msgspec.Struct):
    """`endpoint.json`: what a listening daemon writes."""

    url: str | None = None
    unix: str | None = None
    pid: int = 0
    boot: str = ""


class Target(NamedTuple):
    """Where requests go: `base` is scheme and authority (and a prefix, without a slash at the end).

    `unix` is the path of a Unix socket to use instead of `base`'s address.
    """

    base: str
    unix: str | None
    token: str | None


def pid_alive(pid: int) -> bool:
    """Whether a process of this number exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find_target(
    url: str | None = None,
    token: str | None = None,
    data_dir: str | Path | None = None,
    *,
    environ: Mapping[str, str],
    alive: Callable[[int], bool] = pid_alive,
) -> Target:
    """The daemon to talk to.

    URL: the argument, `$JOBSVC_URL`, `<data-dir>/endpoint.json`. `unix:/path` names a Unix socket. Token: the
    argument, `$JOBSVC_TOKEN`, the file `$JOBSVC_TOKEN_FILE`, the credential `jobsvc-token` of the service that we are
    part of, `<data-dir>/token`; the last two only for a daemon on this machine, so that a token never leaves for an
    address it was not made for.

    Raises:
        Unreachable: nothing found, or what was found belongs to a daemon that is gone.
        ValueError: a URL that is none.
    """
    folder = Path(data_dir) if data_dir is not None else default_data_dir(environ)
    named = url or environ.get(URL_VARIABLE)
    base, unix = _place(named) if named else _from_endpoint(folder, alive)
    local = unix is not None or urlsplit(base).hostname in _LOCAL_HOSTS
    return Target(base, unix, token or _token(environ, folder if local else None))


def _place(url: str) -> tuple[str, str | None]:
    if url.startswith(_UNIX):
        return "http://localhost", url.removeprefix(_UNIX).split(":")[0]
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{url!r} is no URL of a daemon: http://host:port, https://…, or unix:/path/to/socket"
        )
    return url.rstrip("/"), None


def _from_endpoint(folder: Path, alive: Callable[[int], bool]) -> tuple[str, str | None]:
    path = folder / ENDPOINT_FILE
    try:
        endpoint = msgspec.json.decode(path.read_bytes(), type=Endpoint)
    except FileNotFoundError:
        raise Unreachable(
            f"no daemon found: there is no {path}. Start one (twistd -n jobsvc --tasks MODULE), "
            f"name its data directory in ${DATA_DIR_VARIABLE}, or itself with a URL or ${URL_VARIABLE}"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise Unreachable(f"cannot read {path}: {error}") from error
    if not alive(endpoint.pid):
        raise Unreachable(
            f"the daemon that wrote {path} (pid {endpoint.pid}) is gone: it was killed. Start it again, "
            f"or name another with a URL or ${URL_VARIABLE}"
        )
    if endpoint.url:
        return _place(endpoint.url)
    if endpoint.unix:
        return _place(_UNIX + endpoint.unix.removeprefix(_UNIX))
    raise Unreachable(f"{path} names no address")


def _token(environ: Mapping[str, str], folder: Path | None) -> str | None:
    if text := environ.get(TOKEN_VARIABLE, "").strip():
        return text
    if file := environ.get(TOKEN_FILE_VARIABLE):
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unreachable(f"cannot read the token from ${TOKEN_FILE_VARIABLE}: {error}") from error
    if folder is None:
        return None
    given = credential(environ, TOKEN_CREDENTIAL)
    try:
        if given is not None and given.exists():
            return given.read_text().strip()
        return (folder / TOKEN_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None  # the daemon's 401 says more than we could
