"""`jobsvc doctor`: who can get at what, on good and on bad scenes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from jobsvc.cli.checks import access, machine, storage
from jobsvc.cli.checks.findings import Finding
from jobsvc.cli.checks.scene import Scene
from jobsvc.client.discovery import Target
from tests.cli.doctor_scene import ME, House, told


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# -- who can get at what ---------------------------------------------------------------------------------------------


def test_settings(house: House) -> None:
    told(access.settings(house.scene()), "pass", "started here", "options and variables")
    told(access.settings(house.scene(tasks=[])), "pass")
    told(
        access.settings(house.scene(threads="0", keep_s="x")),
        "fail",
        "--threads: 0",
        "1 more",
        "config check",
    )
    told(access.settings(house.scene({"JOBSVC_THREDS": "1"})), "warn", "JOBSVC_THREADS")


def test_p24_config_file(house: House) -> None:
    """P24: a file that others can write is a failure here as at the start."""
    told(access.config_file(house.scene()), "n/a")
    path = house.root / "jobsvc.toml"
    path.write_text("threads = 3\n")
    path.chmod(0o600)
    told(access.config_file(house.scene(config=str(path))), "pass", str(path))
    path.chmod(0o666)
    told(
        access.config_file(house.scene(config=str(path))), "fail", "written by everyone", f"chmod o-w {path}"
    )
    told(access.settings(house.scene(config=str(path))), "fail", "written by everyone")
    path.unlink()
    told(access.config_file(house.scene(config=str(path))), "fail", "No such file")


def test_user(house: House) -> None:
    scene = house.scene()
    scene.owner = 1000
    told(access.user(scene), "pass", "1000")
    scene.owner = 0
    told(access.user(scene), "fail", "root", "User=")


def test_owner_is_that_of_the_daemon(house: House) -> None:
    """Root looks at the folder of another; everybody else at his own."""
    scene = house.scene()
    del scene.owner
    scene.uid = 4_242
    assert scene.owner == 4_242
    other = house.scene()
    del other.owner
    other.uid = 0
    assert other.owner == house.data.stat().st_uid
    running_one = house.with_daemon()
    del running_one.owner
    running_one.uid = 4_242
    assert running_one.owner == house.proc.stat().st_uid


def test_listeners(house: House) -> None:
    told(access.listeners(house.scene()), "pass", "127.0.0.1 (machine)")
    told(access.listeners(house.scene(listen=["tcp:80", "unix:/x"])), "fail", "tcp:80", "behind_proxy")
    told(access.listeners(house.scene(listen=["tcp:80"], behind_proxy="1")), "pass", "proxy")
    told(access.listeners(house.scene(listen=["systemd:index=0"])), "pass", "refuses it")
    told(
        access.listeners(house.scene(listen=["tcp:80:ip=::"], behind_proxy="1")),
        "fail",
        "no option ip",
        "mend",
    )
    told(access.listeners(house.scene(listen=["ssl:443:privateKey=k.pem"])), "pass", "encrypted")


def test_data_folder(house: House) -> None:
    told(access.data_folder(house.scene()), "pass", "0700")
    house.data.chmod(0o750)
    told(access.data_folder(house.scene()), "fail", "0750", f"chmod 700 {house.data}")
    scene = house.scene()
    scene.owner = ME + 1
    told(access.data_folder(scene), "fail", f"belongs to uid {ME}", f"chown -R {ME + 1}")
    told(access.data_folder(house.scene(data_dir=str(house.root / "none"))), "n/a", "first start")
    told(access.data_folder(house.scene(data_dir="/dev/null")), "fail", "no folder")


@pytest.mark.parametrize(("name", "look"), [("token", access.token_file), ("secret-keys", access.key_file)])
def test_secret_files(house: House, name: str, look: Callable[[Scene], Finding]) -> None:
    told(look(house.scene()), "n/a", name)
    path = house.private(name)
    told(look(house.scene()), "pass", "0600")
    path.chmod(0o640)
    told(look(house.scene()), "fail", "0640", f"chmod 600 {path}")
    path.chmod(0o600)
    scene = house.scene()
    scene.owner = ME + 1
    if ME:
        told(look(scene), "fail", f"uid {ME}")
    else:
        os.chown(path, 4_242, -1)
        told(look(house.scene()), "fail", "uid 4242")


def test_a_key_file_that_is_named_is_there(house: House) -> None:
    """A daemon would not start without it."""
    file = house.root / "keys"
    told(
        access.key_file(house.scene(secret_key=str(file))),
        "fail",
        f"{file} is not there",
        "leave secret_key away",
    )


def test_a_token_from_systemd_is_looked_at_instead(house: House) -> None:
    credentials = house.root / "cred"
    credentials.mkdir()
    (credentials / "jobsvc-token").write_text("jobsvc_1.x")
    (credentials / "jobsvc-token").chmod(0o400)
    house.private("token", 0o666)
    told(access.token_file(house.scene({"CREDENTIALS_DIRECTORY": str(credentials)})), "pass", "cred", "0400")


def test_data_files(house: House) -> None:
    told(access.data_files(house.scene()), "n/a")
    house.private("jobsvc.db")
    (house.data / "backup").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(house.data / "s"))
        told(access.data_files(house.scene()), "warn", "backup")
        (house.data / "backup").chmod(0o700)
        told(access.data_files(house.scene()), "pass", "2 files")
        for number in range(5):
            house.private(f"loose{number}", 0o644)
        told(access.data_files(house.scene()), "warn", "loose0", "loose2 and 2 more")
        scene = house.scene()
        scene.owner = ME + 1
        told(access.data_files(scene), "fail", "another user")


def test_memory(house: House) -> None:
    told(access.memory(house.scene()), "pass", "ptrace_scope 1")
    (house.proc / "sys/kernel/yama/ptrace_scope").write_text("0\n")
    told(access.memory(house.scene()), "warn", "kernel.yama.ptrace_scope=1")
    (house.proc / "sys/kernel/yama/ptrace_scope").unlink()
    told(access.memory(house.scene()), "warn")


def test_umask(house: House) -> None:
    told(access.umask(house.scene()), "n/a")
    scene = house.with_daemon()
    told(access.umask(scene), "pass", "0077")
    house.file("77/status", "Umask:\t0022\n")
    told(access.umask(scene), "warn", "0022", "UMask=0077")


def test_privileges_and_cores(house: House) -> None:
    for look in (access.new_privileges, access.core_dumps):
        told(look(house.scene()), "n/a")
    scene = house.with_daemon()
    told(access.new_privileges(scene), "warn", "NoNewPrivileges")
    told(access.core_dumps(scene), "warn", "LimitCORE=0")
    house.file("77/status", "NoNewPrivs:\t1\n")
    house.file("77/limits", "Max core file size        0                    unlimited            bytes\n")
    told(access.new_privileges(scene), "pass")
    told(access.core_dumps(scene), "pass")


def test_settings_of_the_running_daemon(house: House) -> None:
    """From its command line and environment, whoever asks and from wherever; its folder is the one it was found by."""
    words = "twistd -n --pidfile= jobsvc --tasks a --tasks=b --listen tcp:80 --reload --queue-max=0 --data-dir x --odd"
    scene = house.with_daemon()
    house.file("77/cmdline", words.replace(" ", "\0") + "\0")
    house.file("77/environ", f"JOBSVC_AUDIT=off\0JOBSVC_QUEUE_MAX=9\0CREDENTIALS_DIRECTORY={house.root}\0")
    scene.look_at_daemon()
    config = scene.config
    assert (config.tasks, config.listen, config.reload) == (("a", "b"), ("tcp:80",), True)
    assert (config.queue_max, config.audit, config.data_dir) == (0, False, house.data)
    told(access.settings(scene), "pass", "of the running daemon, pid 77")
    told(access.listeners(scene), "fail", "tcp:80")
    (house.root / "jobsvc-token").write_text("jobsvc_1.given")
    (house.root / "jobsvc-token").chmod(0o644)
    told(access.token_file(scene), "fail", "jobsvc-token")
    del scene.target
    house.private("endpoint.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    assert scene.target == Target("http://127.0.0.1:1", None, "jobsvc_1.given")


def test_settings_of_a_daemon_that_may_not_be_looked_at(house: House) -> None:
    """Then those of a start here are judged, and it is said."""
    scene = house.with_daemon()
    (house.proc / "77/environ").unlink()
    scene.look_at_daemon()
    told(access.settings(scene), "pass", "started here", "No such file")
    composed = house.with_daemon()
    house.file("77/cmdline", "python\0my_own.py\0")
    composed.look_at_daemon()
    told(access.settings(composed), "pass", "started here")


def test_switches(house: House) -> None:
    told(access.audit(house.scene()), "pass")
    told(access.audit(house.scene(audit="off")), "warn", "audit = true")
    told(access.worker_env(house.scene()), "pass", "worker_env")
    told(access.worker_env(house.scene(worker_env=["AWS_*"])), "pass", "AWS_*")
    told(machine.job_limits(house.scene()), "warn", "max_rss")
    told(machine.job_limits(house.scene(max_rss="512M")), "pass")
    told(machine.queue_limits(house.scene()), "pass", "1000000")
    told(machine.queue_limits(house.scene(queue_max="0")), "warn", "queue_max")
    told(storage.durability(house.scene()), "pass")
    told(storage.durability(house.scene(durability="process")), "warn", "power")
