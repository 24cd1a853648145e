"""What a person at the terminal sees and answers, and the exit code of a command."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from plumbum import ProcessExecutionError, local

from .exceptions import RungError, UsageError
from .process import failure_reason

# A Git hook sets these for the repository that it belongs to.
GIT_HOOK_VARIABLES = (
    "GIT_DIR",
    "GIT_INDEX",
    "GIT_WORK_TREE",
    "GIT_OBJECT",
    "GIT_PREFIX",
    "GIT_COMMON",
)
SHOWN_NAMES = 3
BUG = 70  # the exit code of `ml`, too; sysexits.h calls it EX_SOFTWARE
INTERRUPTED = 130  # the exit code that shells give to Ctrl-C


def echo(text: str = "", end: str = "\n") -> None:
    """Print a text at once."""
    print(text, end=end, flush=True)


def bullets(items: Iterable[object]) -> str:
    """Return a list for the end of a sentence, each item on a line of its own."""
    return "".join(f"\n  - {item}" for item in items)


def shorten(names: Iterable[str]) -> str:
    """Return the first few of some names, for a sentence."""
    listed = list(names)
    more = ", …" if len(listed) > SHOWN_NAMES else ""
    return ", ".join(listed[:SHOWN_NAMES]) + more


def confirm() -> bool:
    """Ask whether to continue.

    Raises:
        UsageError: There is no terminal to ask in.
    """
    try:
        return input("Continue? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise UsageError("there is no terminal to ask in: add --yes") from None


def print_error(message: object) -> None:
    """Print why a command ends; a reason of several lines starts on a line of its own."""
    print(f"rung: {message}.".replace(": \n", ":\n"), file=sys.stderr)


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command, print the error that stops it, and return its exit code."""
    for name in [name for name in os.environ if name.startswith(GIT_HOOK_VARIABLES)]:
        del os.environ[name]
        del local.env[name]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return int(command() or 0)
    except RungError as error:
        print_error(error)
        return error.exit_code
    except ProcessExecutionError as error:  # an OSError, of a program that Copier has started
        reason = failure_reason(error.stderr or error.stdout) or f"exit code {error.retcode}"
        print_error(f"{Path(error.argv[0]).name}: {reason}")
        return UsageError.exit_code
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print_error(reason)
        return UsageError.exit_code
    except KeyboardInterrupt:
        print("\nrung: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        print_error(
            "this is a bug of rung, not of your repository: please report the lines above to the"
            f" maintainers of {origin()}"
        )
        return BUG


def origin() -> str:
    """Return where this `rung` was installed from: the template's address, if it has one."""
    try:
        direct_url = json.loads(distribution("rung").read_text("direct_url.json") or "{}")
        url = urlsplit(direct_url["url"])
        address = url._replace(netloc=url.netloc.rpartition("@")[2])  # without a password
        return str(address.geturl())
    except (PackageNotFoundError, ValueError, LookupError):
        return "rung"
