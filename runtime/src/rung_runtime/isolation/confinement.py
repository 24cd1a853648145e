"""Confinement: on Linux, a process gives up network, and files outside of a folder, for good.

By means of the kernel that need no privileges, that its children inherit and nobody can undo:

- No capabilities: root of a container is a user like others. (With CAP_PERFMON, it could read the
  environment of any process.)
- Landlock, from Linux 5.13: nothing is written but below one folder, nothing is read but there and
  what Python needs, and the memory and environment of processes outside cannot be looked into.
  https://docs.kernel.org/userspace-api/landlock.html
- seccomp: no new socket of any kind, no detour through io_uring, no other process's memory.
  https://docs.kernel.org/userspace-api/seccomp_filter.html

A confined process can still take processor time and memory, and change the mode or the times of
files that belong to the same user.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# System calls of Landlock: these numbers are the same on all machines.
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1  # a flag
LANDLOCK_RULE_PATH_BENEATH = 1
# Rights of the file system.
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
MAKE_BLOCK = 1 << 11  # a device
REFER = 1 << 13  # to move a file to another folder; denied by each ruleset that does not allow it
TRUNCATE = 1 << 14
IOCTL = 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL  # all that a single file can have
READ = EXECUTE | READ_FILE | READ_DIR
USE_DEVICE = READ | WRITE_FILE | TRUNCATE | IOCTL
# How many of these rights each version of Landlock has; a later version has those of the last.
RIGHT_COUNTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
BIND_AND_CONNECT_TCP = 0b11  # from version 4
ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # from version 6: those of processes outside
# Where Python, its libraries, and what the kernel reports about the machine are.
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/opt", "/nix", "/etc", "/proc", "/sys")
DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "kfd")
CAPABILITY_VERSION = 0x20080522
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
# Options of prctl.
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
# socket, connect, ptrace, process_vm_readv, process_vm_writev, truncate; then those whose numbers
# are the same everywhere: io_uring_setup, pidfd_getfd.
FORBIDDEN = {"x86_64": (41, 42, 101, 310, 311, 76), "aarch64": (198, 203, 117, 270, 271, 45)}
FORBIDDEN_EVERYWHERE = (425, 438)
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FIRST_OF_X32 = 0x40000000  # a second way into the kernel of x86_64
SECCOMP_ALLOW = 0x7FFF0000
SECCOMP_ERRNO = 0x00050000
EACCES = 13
# Where `struct seccomp_data` has the number of the system call, and the architecture.
NUMBER_OFFSET = 0
ARCH_OFFSET = 4


class Instruction(NamedTuple):
    """An instruction of classic BPF."""

    code: int
    jump_if_true: int
    jump_if_false: int
    operand: int


def load_word(offset: int) -> Instruction:
    """Load what is checked next."""
    return Instruction(0x20, 0, 0, offset)


def skip_if_equal(operand: int) -> Instruction:
    """Skip the next instruction if the loaded word is the operand."""
    return Instruction(0x15, 1, 0, operand)


def skip_unless_equal(operand: int) -> Instruction:
    """Skip the next instruction if the loaded word is not the operand."""
    return Instruction(0x15, 0, 1, operand)


def skip_if_below(operand: int) -> Instruction:
    """Skip the next instruction if the loaded word is below the operand."""
    return Instruction(0x35, 0, 1, operand)


def end_with(operand: int) -> Instruction:
    """End the program with a decision."""
    return Instruction(0x06, 0, 0, operand)


def confine(own: Path, readable: Iterable[Path] = ()) -> str:
    """Give up network and files for this process and all that it starts.

    Must be called before there is a second thread.

    Args:
        own: The one folder that may be written to.
        readable: Folders and files that may be read, besides those of the system and of Python.

    Returns:
        Why it was not done, or only in part; "" if it was.
    """
    if sys.platform != "linux":
        return f"{platform.system()} has no Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    reasons = [_drop_capabilities(libc), _restrict_files(libc, own, readable), _filter_calls(libc)]
    return "; ".join(reason for reason in reasons if reason)


def keep_out() -> str:
    """Have this process, and all that it starts, look into no process outside.

    Neither into memory nor into environment, also of processes of the same user: a service runs
    beside deployers that hold tokens. Files and network stay as they are. Must be called before
    there is a second thread.

    Returns:
        Why it was not done, or only in part; "" if it was.
    """
    if sys.platform != "linux":
        return f"{platform.system()} has no Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    reason = _drop_capabilities(libc, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON)
    return reason or _enter_domain(libc)


def _enter_domain(libc: ctypes.CDLL) -> str:
    """Enter a Landlock domain that forbids nothing: who is in one sees no process outside."""
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if version < 2:  # the first forbids to move files to other folders
        return f"this kernel has no such Landlock ({_last_error()})"
    handled = MAKE_BLOCK | REFER
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    if ruleset < 0:
        return f"Landlock: {_last_error()}"
    try:
        _allow(libc, ruleset, Path("/"), handled)
        if libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0):
            return f"Landlock: {_last_error()}"
    finally:
        os.close(ruleset)
    return ""


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


def _drop_capabilities(libc: ctypes.CDLL, *capabilities: int) -> str:
    """Give up capabilities; all of them, if none is named."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION, 0), 8)
    # Twice struct __user_cap_data_struct, whose three sets have 32 capabilities each.
    sets = [0] * 6
    if capabilities:
        current = ctypes.create_string_buffer(24)
        if libc.capget(header, current):
            return f"capabilities: {_last_error()}"
        sets = list(struct.unpack("=6I", current.raw))
        for capability in capabilities:
            half, bit = divmod(capability, 32)
            for index in range(3 * half, 3 * half + 3):
                sets[index] &= ~(1 << bit)
    if libc.capset(header, struct.pack("=6I", *sets)):
        return f"capabilities: {_last_error()}"
    return ""


def _restrict_files(libc: ctypes.CDLL, own: Path, readable: Iterable[Path]) -> str:
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return f"this kernel has no Landlock ({_last_error()})"
    handled = (1 << RIGHT_COUNTS[min(version, 5)]) - 1
    attributes = _ruleset_attributes(version, handled)
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return f"Landlock: {_last_error()}"
    try:
        for path in [*map(Path, SYSTEM), *_python_paths(), *readable]:
            _allow(libc, ruleset, path, READ & handled)
        for device in [*(Path("/dev") / name for name in DEVICES), *Path("/dev").glob("nvidia*")]:
            _allow(libc, ruleset, device, USE_DEVICE & handled)
        _allow(libc, ruleset, own, handled)
        if libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0):
            return f"Landlock: {_last_error()}"
    finally:
        os.close(ruleset)
    return ""


def _ruleset_attributes(version: int, handled: int) -> bytes:
    """Return a struct landlock_ruleset_attr, which later versions have more fields of."""
    network = BIND_AND_CONNECT_TCP if version >= 4 else 0
    scoped = ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    if version < 4:
        size = 8
    elif version < 6:
        size = 16
    else:
        size = 24
    return struct.pack("=QQQ", handled, network, scoped)[:size]


def _python_paths() -> list[Path]:
    """Return where this Python's own modules and those of its environment are."""
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix]
    paths = [Path(path) for path in [*prefixes, *sys.path] if path]
    resolved = [path.resolve() for path in paths]
    return [*paths, *resolved, Path(sys.executable).resolve()]


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Allow rights for a file, or for all that is below a folder."""
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # this machine has none
        return
    try:
        if not path.is_dir():
            rights &= FILE_RIGHTS
        beneath = struct.pack("=Qi", rights, file)
        libc.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, beneath, 0)
    finally:
        os.close(file)


def _filter_calls(libc: ctypes.CDLL) -> str:
    machine = platform.machine()
    if machine not in FORBIDDEN:
        return f"no filter of system calls is known for {machine}"
    program = _filter_program(machine)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    # struct sock_fprog: the number of instructions, padding, and a pointer.
    filter_ = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_), 0, 0):
        return f"seccomp: {_last_error()}"
    return ""


def _filter_program(machine: str) -> list[Instruction]:
    """Return a program that denies the forbidden system calls, and any of another architecture."""
    deny = end_with(SECCOMP_ERRNO | EACCES)
    program = [load_word(ARCH_OFFSET), skip_if_equal(AUDIT_ARCH[machine]), deny]
    program += [load_word(NUMBER_OFFSET), skip_if_below(FIRST_OF_X32), deny]
    for number in (*FORBIDDEN[machine], *FORBIDDEN_EVERYWHERE):
        program += [skip_unless_equal(number), deny]
    program.append(end_with(SECCOMP_ALLOW))
    return program
