"""Running other programs: one function with a typed result."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plumbum import CommandNotFound, local

from .exceptions import UsageError

Output = Literal["captured", "merged", "shown"]
STDERR: dict[Output, int | None] = {
    "captured": subprocess.PIPE,
    "merged": subprocess.STDOUT,
    "shown": None,
}
MAX_REASON_LINES = 12
# The Makefile of a project hides the same.
PERSONAL_VARIABLES = (
    "VIRTUAL_ENV",
    "UV_EXCLUDE_NEWER",
    "UV_EXCLUDE_NEWER_PACKAGE",
    "UV_FORK_STRATEGY",
    "UV_FROZEN",
    "UV_NO_DEFAULT_GROUPS",
    "UV_NO_DEV",
    "UV_NO_EDITABLE",
    "UV_NO_GROUP",
    "UV_NO_INSTALL_LOCAL",
    "UV_NO_INSTALL_PROJECT",
    "UV_NO_INSTALL_WORKSPACE",
    "UV_NO_SOURCES",
    "UV_PRERELEASE",
    "UV_PROJECT",
    "UV_RESOLUTION",
    "UV_WORKING_DIR",
)
# Where systems keep the certificates that they trust.
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True)
class CompletedCommand:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def succeeded(self) -> bool:
        """Whether the exit code is 0."""
        return self.returncode == 0

    @property
    def text(self) -> str:
        """The standard output; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """The standard error; bytes that are not UTF-8 are replaced."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def reason(self) -> str:
        """Why it failed: what was printed, of standard error if it has any; else the exit code."""
        return failure_reason(self.error_text or self.text) or f"exit code {self.returncode}"


def failure_reason(output: str) -> str:
    """Return what a program says of its failure, for the end of a sentence.

    The last line alone is seldom the cause, so all of them are kept, each on a line of its own.
    """
    lines = [line.rstrip() for line in output.strip().rstrip(".").splitlines() if line.strip()]
    if len(lines) > MAX_REASON_LINES:
        lines = ["…", *lines[-MAX_REASON_LINES:]]
    if len(lines) < 2:
        return "".join(lines)
    return "".join(f"\n  {line}" for line in lines)


def is_installed(program: str) -> bool:
    """Check whether a program is on the PATH."""
    return program in local


def system_certificates() -> dict[str, str]:
    """Return what makes uv trust the system's certificates, which may have a company's authority.

    Where there are none, as in a small image, uv keeps those that it brings.
    """
    if not any(Path(file).is_file() for file in CERTIFICATES):
        return {}
    return {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}  # its name before uv 0.11


def run(
    command: Sequence[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    output: Output = "captured",
    report: Callable[[str], None] | None = None,
) -> CompletedCommand:
    """Run a command to its end.

    An active virtual environment is hidden from it, as a project has its own, and so is what would
    make uv lock something else for this person than for others. If this process is interrupted, so
    is the command, as Ctrl-C would do it; it may have started others in turn.

    Args:
        command: A program and its arguments.
        folder: The working directory.
        env: Environment variables, in addition to those of this process.
        stdin: What the command reads; of one whose output is shown, the terminal.
        output: "captured" keeps standard output and error apart, "merged" puts both into `stdout`
            in their order, "shown" sends both to the terminal.
        report: Called with each line of "merged" output once it is printed.

    Raises:
        UsageError: The program is not on the PATH.
    """
    environment = local.env.getdict()  # plumbum's, as Copier uses it, too
    environment = system_certificates() | environment | dict(env or {})
    for name in PERSONAL_VARIABLES:
        environment.pop(name, None)
    program, *args = command
    try:
        executable = str(local.which(program))
    except CommandNotFound:
        raise UsageError(f"{program} is not installed: install it, then try again") from None
    shown = output == "shown"
    process = subprocess.Popen(
        [executable, *args],
        cwd=folder,
        env=environment,
        stdin=None if shown else subprocess.PIPE,
        stdout=None if shown else subprocess.PIPE,
        stderr=STDERR[output],
    )
    try:
        if report and process.stdout:
            lines = []
            for line in process.stdout:
                lines.append(line)
                report(line.decode("utf-8", "replace"))
            process.wait()
            return CompletedCommand(process.returncode, b"".join(lines))
        stdout, stderr = process.communicate(None if shown else stdin)
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    return CompletedCommand(process.returncode, stdout or b"", stderr or b"")
