"""The command line of `rung`, as plumbum reads it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from plumbum import cli

from .console import exit_code
from .exceptions import UsageError
from .git import git, git_succeeds
from .template import (
    ANSWERS,
    Template,
    bundled_template,
    normalize_url,
    parse_answers,
    resolve_version,
)

COMMANDS = ("new", "adopt", "update", "up", "add", "export")
SYNONYMS = {"init": "new", "create": "new", "upgrade": "update"}


class Rung(cli.Application):
    """Machine-learning repositories: start, adopt, update and climb, with nothing lost."""

    PROGNAME = "rung"
    VERSION = version("rung")
    DESCRIPTION_MORE = (
        "Exit codes: 0 done, 1 a check refused, 2 bad usage or input, 70 a bug of rung, 130 Ctrl-C."
    )
    ALLOW_ABBREV = False

    def main(self) -> int:
        """Show the help if no command is named."""
        if not self.nested_command:
            self.help()
        return 0


class AnswersCommand(cli.Application):
    """A command that takes answers to the template's questions."""

    data: ClassVar[Any] = cli.SwitchAttr(
        "--data",
        str,
        list=True,
        argname="NAME=VALUE",
        help="An answer to a question of the template",
    )


class VersionCommand(AnswersCommand):
    """A command that takes a version of the template."""

    template: ClassVar[Any] = cli.SwitchAttr(
        "--template", str, argname="URL", help="The template's address; by default rung's own"
    )
    ref: ClassVar[Any] = cli.SwitchAttr(
        "--to", str, argname="VERSION", help="A version of the template: a tag, branch or commit"
    )

    def resolve_template(self) -> Template:
        """Return the template to copy from.

        Raises:
            UsageError: There is no such template, or it has no such version.
        """
        if self.template:
            return resolve_version(normalize_url(self.template), self.ref)
        bundled = bundled_template()
        return resolve_version(bundled.url, self.ref) if self.ref is not None else bundled


@Rung.subcommand("new")
class New(VersionCommand):
    """Create a project: questions, files, environment, hooks, first commit."""

    DESCRIPTION = "Create a project: questions, files, environment, hooks, first commit"

    defaults = cli.Flag("--defaults", help="Ask nothing: every question has a default")

    def main(self, folder: str) -> int:
        """Create a project in FOLDER."""

        def command() -> None:
            from .new import new

            template = self.resolve_template()
            data = parse_answers(self.data, template)
            new(Path(folder), template, data, ask=not self.defaults)

        return exit_code(command)


@Rung.subcommand("adopt")
class Adopt(VersionCommand):
    """Turn an existing repository into a project without losing anything."""

    DESCRIPTION = "Turn an existing repository into a project without losing anything"

    defaults = cli.Flag("--defaults", help="Ask nothing: accept every guess")
    yes = cli.Flag("--yes", help="Do not ask for confirmation")
    pretend = cli.Flag("--pretend", help="Only show what would be done")
    file = cli.SwitchAttr("--file", str, argname="DATA", help="The table to learn from")
    target = cli.SwitchAttr("--target", str, argname="COLUMN", help="The column to predict")

    def main(self, folder: str = ".") -> int:
        """Adopt FOLDER, by default the current one."""

        def command() -> None:
            from .adopt import adopt

            template = self.resolve_template()
            adopt(
                Path(folder),
                template,
                parse_answers(self.data, template),
                ask=not (self.defaults or self.pretend),
                yes=self.yes,
                pretend=self.pretend,
                file=self.file,
                column=self.target,
            )

        return exit_code(command)


@Rung.subcommand("update")
class Update(VersionCommand):
    """Update a project to a newer version of the template."""

    DESCRIPTION = "Update a project to a newer version of the template"

    check = cli.Flag("--check", help="Only show whether there is a newer version; exit 1 if so")
    abort = cli.Flag(
        "--abort", excludes=["--check"], help="Restore the exact state before the update"
    )
    proceed = cli.Flag(
        "--continue",
        excludes=["--check", "--abort"],
        help="Finish an update after its conflicts are resolved",
    )

    def main(self, folder: str = ".") -> int:
        """Update the project in FOLDER, by default the current one, or end its update."""

        def command() -> None:
            from . import update

            project = find_project(Path(folder))
            if self.abort:
                update.abort(project)
            elif self.proceed:
                update.finish(project)
            else:
                update.update(project, self.template, self.ref, self.data, check=self.check)

        return exit_code(command)


@Rung.subcommand("up")
class Up(AnswersCommand):
    """Raise a project's level by one: show what it adds and needs, then run its checks."""

    DESCRIPTION = "Raise a project's level by one: what it adds and needs, its checks"

    yes = cli.Flag("--yes", help="Do not ask for confirmation")
    defaults = cli.Flag("--defaults", help="Ask nothing: accept what it shows")

    def main(self, folder: str = ".") -> int:
        """Raise the level of the project in FOLDER, by default the current one."""

        def command() -> None:
            from .up import up

            up(find_project(Path(folder)), self.data, yes=self.yes or self.defaults)

        return exit_code(command)


@Rung.subcommand("add")
class Add(cli.Application):
    """Add another adapter of a slot to a project."""

    DESCRIPTION = (
        "Add an adapter to a project: a registry, target, ci, model_format, explainer or engine;"
        " for example: rung add registry mlflow"
    )

    def main(self, slot: str, name: str, folder: str = ".") -> int:
        """Add NAME for SLOT to the project in FOLDER, by default the current one."""

        def command() -> None:
            from .add import add

            add(find_project(Path(folder)), slot, name)

        return exit_code(command)


@Rung.subcommand("export")
class Export(cli.Application):
    """Write the project's graph as files of another system, such as Airflow."""

    DESCRIPTION = "Write the project's graph as files of another system; without a name, list them"

    check = cli.Flag(
        "--check",
        help="Write nothing; exit 1 if a file is not current, of all systems if none is named",
    )

    def main(self, name: str = "", folder: str = ".") -> int:
        """Write the files of the system NAME into the project in FOLDER, by default this one."""

        def command() -> None:
            from .exports import check_all, export, list_systems

            if name:
                export(find_project(Path(folder)), name, check=self.check)
            elif self.check:
                check_all(find_project(Path(folder)))
            else:
                list_systems()

        return exit_code(command)


def find_project(folder: Path) -> Path:
    """Return the project that a folder is in: the folder if it has answers, else its repository."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a directory")
    in_repository = git_succeeds(folder, "rev-parse", "--is-inside-work-tree")
    if (folder / ANSWERS).exists() or not in_repository:
        return folder.resolve()
    return Path(git(folder, "rev-parse", "--show-toplevel"))


def check_command(arguments: Sequence[str]) -> None:
    """Check that there is the command that the command line names.

    Raises:
        UsageError: There is not; the message names the one that was probably meant.
    """
    word = next((argument for argument in arguments if not argument.startswith("-")), None)
    if word is None or word in COMMANDS or "--completions" in arguments:
        return
    close = difflib.get_close_matches(word.lower(), [*COMMANDS, *SYNONYMS], n=1)
    meant = SYNONYMS.get(close[0], close[0]) if close else None
    hint = f"`rung {meant}` is probably meant" if meant else f"use one of {', '.join(COMMANDS)}"
    raise UsageError(f"there is no command {word}: {hint}")


def main() -> None:
    """Run the command."""
    if code := exit_code(lambda: check_command(sys.argv[1:])):
        sys.exit(code)
    Rung.run()
