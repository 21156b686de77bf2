"""F2: posix_spawn(3), called so that the other threads of the daemon go on meanwhile.

The calling thread is held until the new process has begun its program, which on a busy machine is a matter of tens of
milliseconds, because parent and child share their memory until then. `os.posix_spawn` keeps the interpreter's lock for
that time and so holds every thread; a call through ctypes gives it back.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

FILE_ACTIONS_BYTES = 512
"""Room for a posix_spawn_file_actions_t, which libc alone looks into: 80 bytes in glibc and musl."""


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    words = ctypes.POINTER(ctypes.c_char_p)
    libc.posix_spawn.argtypes = [
        ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, words, words,
    ]  # fmt: skip
    libc.posix_spawn_file_actions_init.argtypes = [ctypes.c_void_p]
    libc.posix_spawn_file_actions_adddup2.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    libc.posix_spawn_file_actions_destroy.argtypes = [ctypes.c_void_p]
    return libc


def spare(descriptors: Sequence[int]) -> list[int]:
    """Copies of these with numbers that no target of `spawn` has; the caller closes them.

    Raises:
        OSError: there are no more descriptors.
    """
    copies: list[int] = []
    try:
        for fd in descriptors:
            copies.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(descriptors)))  # noqa: PERF401 - see below
    except OSError:
        close(copies)
        raise
    return copies


def close(descriptors: Iterable[int]) -> None:
    """Give these back."""
    for fd in descriptors:
        os.close(fd)


def words_of(texts: Iterable[str]) -> list[bytes]:
    """As C has them.

    Raises:
        ValueError: one holds a zero byte, which would cut it short.
    """
    words = [os.fsencode(text) for text in texts]
    if any(b"\0" in word for word in words):
        raise ValueError("embedded null byte")
    return words


def environment_of(variables: Mapping[str, str]) -> list[bytes]:
    """The same for an environment."""
    return words_of(f"{name}={value}" for name, value in variables.items())


def spawn(argv: Sequence[bytes], environment: Sequence[bytes], descriptors: Sequence[int]) -> int:
    """Start the program `argv[0]`, a path; the number of its process.

    Args:
        descriptors: it has them as 0, 1, 2, …; none of these numbers may be among them: see `spare`. What else is
            open here and not closed on exec is open in the child as well.

    Raises:
        OSError: no process is to be had, or no such program.
    """
    libc = _libc()
    actions = ctypes.create_string_buffer(FILE_ACTIONS_BYTES)
    pid = ctypes.c_int()
    _check(libc.posix_spawn_file_actions_init(actions))
    try:
        for target, fd in enumerate(descriptors):
            _check(libc.posix_spawn_file_actions_adddup2(actions, fd, target))
        _check(libc.posix_spawn(ctypes.byref(pid), argv[0], actions, None, _array(argv), _array(environment)))
    finally:
        libc.posix_spawn_file_actions_destroy(actions)
    return pid.value


def _array(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def _check(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))
