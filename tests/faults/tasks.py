"""What the tests of faults run: tasks that misbehave. Text of a module; the daemon's workers import it."""

from __future__ import annotations

TASKS = r'''
import asyncio, ctypes, os, resource, signal, subprocess, sys, threading, time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from jobsvc import Cancelled, Context, command, task

def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.005)

def say(ctx, *values):
    """Give items and make sure they have left: the next line may stop or end the process."""
    for value in values:
        ctx.emit(value)
    sys.stdout.flush()

def fork_twice(script="exec sleep 600"):
    """A program in a session of its own whose parent is gone; its pid."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", TWICE, script], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout)

TWICE = """
import os, sys
read, write = os.pipe()
if os.fork():
    os.close(write)
    os.read(read, 1)  # until it has printed
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(write)
null = os.open("/dev/null", os.O_RDWR)
os.dup2(null, 1)
os.execvp("sh", ["sh", "-c", sys.argv[1]])
"""

# -- well behaved

@task(executor="process")
def add(a: int, b: int = 1) -> int:
    return a + b

@task(executor="process")
def held(ctx: Context, gate: str) -> int:
    say(ctx, os.getpid())
    wait_for(gate)
    return ctx.epoch

@task
def held_thread(ctx: Context, gate: str) -> int:
    ctx.emit(os.getpid())
    wait_for(gate)
    return ctx.epoch

@task
async def held_loop(ctx: Context, gate: str) -> int:
    ctx.emit(os.getpid())
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return ctx.epoch

# -- leave processes behind

@task(executor="process")
def parent(ctx: Context, gate: str) -> int:
    child = subprocess.Popen(["sleep", "600"])
    apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
    say(ctx, [os.getpid(), child.pid, apart.pid, fork_twice()])
    wait_for(gate)
    return ctx.epoch

@task
def parent_thread(ctx: Context, gate: str) -> int:
    child = subprocess.Popen(["sleep", "600"])
    ctx.emit([os.getpid(), child.pid, fork_twice()])
    wait_for(gate)
    return ctx.epoch

@task(executor="process")
def leave_behind(how: str) -> list[int]:
    """Returns at once."""
    if how == "twice":
        return [fork_twice()]
    if how == "apart":
        return [subprocess.Popen(["sleep", "600"], start_new_session=True).pid]
    if how == "late":  # leaves the session when the attempt is long over
        shell = subprocess.Popen(["sh", "-c", "sleep 0.1; exec setsid -w sleep 600"])
        return [shell.pid]
    return [subprocess.Popen(["sleep", "600"]).pid]  # a helper

@task(executor="process")
def short(how: str) -> None:
    """Leaves what ends soon, for which nobody waits."""
    if how == "twice":
        fork_twice("exit 0")
    else:
        subprocess.run(["sh", "-c", "true & true &"], check=True)

@task(executor="process")
def pid_of_worker() -> int:
    return os.getpid()

leave_command = command("leave_command", [sys.executable, "-I", "-S", "-c", TWICE, "exec sleep 600"])
hold_stdout = command("hold_stdout", ["sh", "-c", "sleep 600 & echo $!"])
hold_apart = command("hold_apart", ["sh", "-c", "setsid sh -c 'echo $$; exec sleep 600' & exec sleep 0.2"])
parent_command = command("parent_command", [
    "sh", "-c", "setsid sh -c 'echo $$; exec sleep 600' & sleep 600 & echo $!; echo $$; wait"
])
quick_command = command("quick_command", ["true"])

# -- end in ways of their own

@task(executor="process")
def leave(code: int) -> None:
    print("last words", flush=True)
    os._exit(code)

@task(executor="process")
def die(number: int) -> None:
    if number == signal.SIGSEGV:
        ctypes.string_at(0)
    elif number == signal.SIGABRT:
        os.abort()
    elif number == signal.SIGILL:
        import mmap
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(ILLEGAL[os.uname().machine])
        ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    os.kill(os.getpid(), number)

ILLEGAL = {"x86_64": bytes.fromhex("0f0b"), "aarch64": bytes(4)}

# -- do not listen

@task(executor="process")
def deaf(ctx: Context) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    say(ctx, os.getpid())
    while True:
        time.sleep(60)

@task(executor="process")
def in_c_code(ctx: Context) -> None:
    """Holds the interpreter: no other thread of the worker runs."""
    say(ctx, os.getpid())
    ctypes.PyDLL(None).sleep(600)

@task(executor="process")
def endless(ctx: Context) -> None:
    say(ctx, os.getpid())
    while True:
        pass

@task(executor="process")
def stop_myself(ctx: Context) -> None:
    say(ctx, os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)

@task
async def deaf_loop(ctx: Context) -> None:
    """A coroutine that awaits and swallows every request to stop."""
    ctx.emit(os.getpid())
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue

@task
def late_thread(ctx: Context, gate: str) -> None:
    """Looks whether it should stop when the gate is open, not before."""
    ctx.emit(os.getpid())
    wait_for(gate)
    while not ctx.cancelled:
        time.sleep(0.005)
    raise Cancelled

deaf_command = command("deaf_command", [
    "sh", "-c", "trap '' TERM; setsid sh -c 'echo $$; exec sleep 600' & echo $$; while :; do sleep 0.1; done"
])

# -- generators

def counting(ctx, log):
    n = 0
    try:
        while True:
            yield n
            n += 1
            time.sleep(0.005)
    finally:
        Path(log).write_text(str(n))

@task(executor="process")
def count_process(ctx: Context, log: str) -> Iterator[int]:
    yield from counting(ctx, log)

@task
def count_thread(ctx: Context, log: str) -> Iterator[int]:
    yield from counting(ctx, log)

# -- say what nobody wants to hear

GARBAGE = b"\x00\xff\xfe\x1b[31mred\x1b[0m\x07\xc3(\r\n"

@task(executor="process")
def print_garbage(megabytes: int) -> str:
    os.write(1, GARBAGE)
    os.write(2, GARBAGE)
    for fd in descriptors():
        if not is_socket(fd):
            scribble(fd)
    piece = (b"z" * 999 + b"\n") * 1000
    for _ in range(megabytes):
        os.write(1, piece)
    return "printed"

@task(executor="process")
def garbage_on_channel() -> None:
    for fd in filter(is_socket, descriptors()):
        scribble(fd)
    time.sleep(600)

def descriptors():
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]

def is_socket(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False

def scribble(fd):
    try:
        os.write(fd, GARBAGE)
    except OSError:
        return

class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))

@task(executor="process")
def give(what: str) -> Any:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    return {
        "evil": Evil(), "cyclic": cyclic, "nan": float("nan"), "huge": "x" if what != "huge" else "x" * 200_000_000,
    }[what]

@task(executor="process")
def fork_bomb(ctx: Context, limit: int) -> str:
    """Forks until it is refused, and every child forks as well; as a user whose processes are counted."""
    if os.getuid() == 0:
        os.setresuid(LONELY, LONELY, LONELY)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    say(ctx, os.getpid())
    refused = False
    while not refused:
        try:
            if os.fork() == 0:
                while True:
                    try:
                        os.fork()
                    except OSError:
                        time.sleep(0.01)
        except OSError:
            refused = True
    return "refused"

LONELY = 54_321
'''
