"""The command `rung`, as plumbum reads it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from plumbum import cli

from . import BadInputError, source
from .tools import asks, ended, git


class Rung(cli.Application):
    """Machine-learning repositories: start, adopt, update and climb, with nothing lost."""

    PROGNAME = "rung"
    VERSION = version("rung")
    DESCRIPTION_MORE = (
        "Each command ends with 0 if it is done, 1 if a check said no, 2 if it could not begin."
    )
    ALLOW_ABBREV = False

    def main(self) -> int:
        """Show the help if no command was named."""
        if not self.nested_command:
            self.help()
        return 0


class Answers(cli.Application):
    """A command that takes answers to the template's questions."""

    data: ClassVar[Any] = cli.SwitchAttr(
        "--data", str, list=True, argname="NAME=VALUE", help="An answer; as often as needed"
    )


class Versions(Answers):
    """A command that takes a version of the template."""

    template: ClassVar[Any] = cli.SwitchAttr(
        "--template", str, argname="URL", help="Where the template is, if not where rung is from"
    )
    ref: ClassVar[Any] = cli.SwitchAttr(
        "--to", str, argname="VERSION", help="A version of the template: a tag, a branch, a commit"
    )

    def wanted(self) -> source.Source:
        """Give the template to copy from."""
        if self.template:
            return source.found(source.addressed(self.template), self.ref)
        template = source.own()
        return source.found(template.url, self.ref) if self.ref else template


@Rung.subcommand("new")
class New(Versions):
    """Make a project: questions, files, environment, hooks, first commit."""

    DESCRIPTION = "Make a project: questions, files, environment, hooks, first commit"

    defaults = cli.Flag("--defaults", help="Ask nothing: each question has a default")

    def main(self, folder: str) -> int:
        """Make it."""

        def run() -> None:
            from .new import new

            template = self.wanted()
            new(Path(folder), template, source.parsed(self.data, template), ask=not self.defaults)

        return ended(run)


@Rung.subcommand("adopt")
class Adopt(Versions):
    """Make a project of a repository that is there, by default the one here, and lose nothing."""

    DESCRIPTION = "Make a project of a repository that is there, and lose nothing"

    defaults = cli.Flag("--defaults", help="Ask nothing: what was guessed is taken")
    yes = cli.Flag("--yes", help="Do not ask whether to go on")
    pretend = cli.Flag("--pretend", help="Only say what would be done")
    file = cli.SwitchAttr("--file", str, argname="DATA", help="The table to learn from")
    target = cli.SwitchAttr("--target", str, argname="COLUMN", help="The column to predict")

    def main(self, folder: str = ".") -> int:
        """Adopt it."""

        def run() -> None:
            from .adopt import adopt

            template = self.wanted()
            adopt(
                Path(folder),
                template,
                source.parsed(self.data, template),
                ask=not (self.defaults or self.pretend),
                yes=self.yes,
                pretend=self.pretend,
                file=self.file,
                column=self.target,
            )

        return ended(run)


@Rung.subcommand("update")
class Update(Versions):
    """Bring what the template has learned into a project, by default the one here."""

    DESCRIPTION = "Bring what the template has learned into a project"

    check = cli.Flag("--check", help="Only say whether there is something new; if so, exit 1")
    abort = cli.Flag(
        "--abort", excludes=["--check"], help="Restore exactly what was before the update"
    )
    go_on = cli.Flag(
        "--continue",
        excludes=["--check", "--abort"],
        help="Finish an update whose conflicts are merged",
    )

    def main(self, folder: str = ".") -> int:
        """Update it, or end an update."""

        def run() -> None:
            from . import update

            project = top(Path(folder))
            if self.abort:
                update.abort(project)
            elif self.go_on:
                update.finish(project)
            else:
                update.update(project, self.template, self.ref, self.data, check=self.check)

        return ended(run)


@Rung.subcommand("up")
class Up(Answers):
    """Raise the level of a project, by default the one here, by one."""

    DESCRIPTION = "Raise a project's level by one: what it adds and needs, its checks"

    yes = cli.Flag("--yes", help="Do not ask whether to go on")

    def main(self, folder: str = ".") -> int:
        """Raise it."""

        def run() -> None:
            from .up import up

            up(top(Path(folder)), self.data, yes=self.yes)

        return ended(run)


@Rung.subcommand("add")
class Add(cli.Application):
    """Give a project, by default the one here, another registry, target or CI provider."""

    DESCRIPTION = "Give a project the adapter of a slot: rung add SLOT NAME [DIR]"

    def main(self, slot: str, name: str, folder: str = ".") -> int:
        """Add it."""

        def run() -> None:
            from .add import add

            add(top(Path(folder)), slot, name)

        return ended(run)


def top(folder: Path) -> Path:
    """Give the project that a folder is in: its repository's top, unless it has answers itself."""
    if not folder.is_dir():
        raise BadInputError(f"{folder} is no folder: name one that is")
    inside = asks(folder, "rev-parse", "--is-inside-work-tree")
    if (folder / source.ANSWERS).exists() or not inside:
        return folder.resolve()
    return Path(git(folder, "rev-parse", "--show-toplevel"))


def main() -> None:
    """Run the command."""
    Rung.run()
