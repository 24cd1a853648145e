"""Confinement: on Linux, a process gives up network, and files outside of a folder, for good.

By means of the kernel that need no privileges, which its children inherit and nobody can undo:

- No capabilities: root of a container is a user like others. (With CAP_PERFMON, the environment of
  any process could be read.)
- Landlock, from Linux 5.13: nothing is written but below one folder, nothing is read but there and
  what Python needs, and the memory and environment of processes outside cannot be looked into.
  https://docs.kernel.org/userspace-api/landlock.html
- seccomp: no new socket of any kind, no way around by io_uring, no other process's memory.
  https://docs.kernel.org/userspace-api/seccomp_filter.html

It does not stop one from taking processor time and memory, or from changing the mode or the times
of files that belong to the same user.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# landlock_create_ruleset and so on: these numbers are the same on all machines.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
TRUNCATE, IOCTL = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL  # those that a single file has
READ = EXECUTE | READ_FILE | READ_DIR
# How many rights of the file system each version of Landlock knows; a later one as the last.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
# Where Python, its libraries, and what the kernel says of the machine are.
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/opt", "/nix", "/etc", "/proc", "/sys")
DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "kfd")
CAPABILITY_VERSION = 0x20080522
SET_NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
# socket, connect, ptrace, process_vm_readv, process_vm_writev, truncate; then those whose numbers
# are the same everywhere: io_uring_setup, pidfd_getfd.
FORBIDDEN = {"x86_64": (41, 42, 101, 310, 311, 76), "aarch64": (198, 203, 117, 270, 271, 45)}
FORBIDDEN_EVERYWHERE = (425, 438)
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FIRST_OF_X32 = 0x40000000  # a second way into the kernel of x86_64
EACCES = 13


def confine(own: Path, readable: Iterable[Path] = ()) -> str:
    """Give up network and files for this process and all that it starts.

    To be called before there is a second thread.

    Args:
        own: The one folder that may be written to.
        readable: Folders and files to read, besides those of the system and of Python.

    Returns:
        Why it was not done, or not wholly; "" if it was.
    """
    if sys.platform != "linux":
        return f"{platform.system()} has no Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    reasons = [_no_capabilities(libc), _landlock(libc, own, readable), _seccomp(libc)]
    return "; ".join(filter(None, reasons))


def _no_capabilities(libc: ctypes.CDLL) -> str:
    # struct __user_cap_header_struct and twice __user_cap_data_struct, all of whose sets are empty.
    if libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)):
        return f"capabilities: {os.strerror(ctypes.get_errno())}"
    return ""


def _landlock(libc: ctypes.CDLL, own: Path, readable: Iterable[Path]) -> str:
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return f"this kernel has no Landlock ({os.strerror(ctypes.get_errno())})"
    every = (1 << RIGHTS[min(version, 5)]) - 1
    tcp = 0b11 if version >= 4 else 0
    outside = 0b11 if version >= 6 else 0  # abstract sockets, and signals to others
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = struct.pack("=QQQ", every, tcp, outside)[:size]
    ruleset = libc.syscall(CREATE_RULESET, rules, len(rules), 0)
    if ruleset < 0:
        return f"Landlock: {os.strerror(ctypes.get_errno())}"
    try:
        allowed = {str(path): READ for path in [*map(Path, SYSTEM), *_of_python(), *readable]}
        devices = [*(Path("/dev") / name for name in DEVICES), *Path("/dev").glob("nvidia*")]
        allowed |= {str(path): READ | WRITE_FILE | TRUNCATE | IOCTL for path in devices}
        allowed[str(own)] = every
        for path, rights in allowed.items():
            _allow(libc, ruleset, path, rights & every)
        if libc.syscall(RESTRICT_SELF, ruleset, 0):
            return f"Landlock: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)
    return ""


def _of_python() -> list[Path]:
    """Where this Python's own modules and those of its environment are."""
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix]
    places = [Path(place) for place in [*prefixes, *sys.path] if place]
    return [*places, *(place.resolve() for place in places), Path(sys.executable).resolve()]


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # this machine has none
        return
    try:
        if not Path(path).is_dir():
            rights &= OF_FILES
        libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, file), 0)
    finally:
        os.close(file)


def _seccomp(libc: ctypes.CDLL) -> str:
    machine = platform.machine()
    if machine not in FORBIDDEN:
        return f"no filter of system calls is known for {machine}"
    # Classic BPF: (code, jump if true, jump if false, value). 0x20 loads a word, 0x15 compares for
    # equality, 0x35 for at least, 0x06 returns.
    allow, deny = 0x7FFF0000, 0x00050000 | EACCES
    numbers = (*FORBIDDEN[machine], *FORBIDDEN_EVERYWHERE)
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, ARCHITECTURE[machine]), (0x06, 0, 0, deny)]
    program += [(0x20, 0, 0, 0), (0x35, 0, 1, FIRST_OF_X32), (0x06, 0, 0, deny)]
    for number in numbers:
        program += [(0x15, 0, 1, number), (0x06, 0, 0, deny)]
    program.append((0x06, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    whole = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(code))
    if libc.prctl(SET_SECCOMP, FILTER, ctypes.c_char_p(whole), 0, 0):
        return f"seccomp: {os.strerror(ctypes.get_errno())}"
    return ""
