"""The command `rung`, as plumbum reads it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from plumbum import cli

from . import source
from .tools import ended


class Rung(cli.Application):
    """Machine-learning repositories: start, adopt, update and climb, with nothing lost."""

    PROGNAME = "rung"
    VERSION = version("rung")
    ALLOW_ABBREV = False

    def main(self) -> int:
        """Show the help if no command was named."""
        if not self.nested_command:
            self.help()
        return 0


class Command(cli.Application):
    """What the commands have in common."""

    CALL_MAIN_IF_NESTED_COMMAND = False
    data: ClassVar[Any] = cli.SwitchAttr(
        "--data", str, list=True, argname="NAME=VALUE", help="An answer; as often as needed"
    )
    template: ClassVar[Any] = cli.SwitchAttr(
        "--template", str, argname="URL", help="Where the template is, if not where rung is from"
    )
    version_: ClassVar[Any] = cli.SwitchAttr(
        "--to", str, argname="VERSION", help="A version of the template: a tag, a branch, a commit"
    )

    def wanted(self) -> source.Source:
        """Give the template to copy from."""
        if self.template:
            return source.found(source.addressed(self.template), self.version_)
        template = source.own()
        return source.found(template.url, self.version_) if self.version_ else template


@Rung.subcommand("new")
class New(Command):
    """Make a project in DIR: questions, files, environment, hooks, first commit."""

    defaults = cli.Flag("--defaults", help="Ask nothing: each question has a default")

    def main(self, folder: str) -> int:
        """Make it."""

        def run() -> None:
            from .new import new

            template = self.wanted()
            new(Path(folder), template, source.parsed(self.data, template), ask=not self.defaults)

        return ended(run)


@Rung.subcommand("adopt")
class Adopt(Command):
    """Make a project of the repository in DIR: nothing of it is lost."""

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
                ask=not self.defaults,
                yes=self.yes,
                pretend=self.pretend,
                file=self.file,
                column=self.target,
            )

        return ended(run)


@Rung.subcommand("update")
class Update(Command):
    """Bring what the template has learned into a project, by default the one here."""

    check = cli.Flag("--check", help="Only say whether there is something new; if so, exit 1")
    abort = cli.Flag("--abort", help="Restore exactly what was before the update")
    go_on = cli.Flag("--continue", help="Finish an update whose conflicts are merged")

    def main(self, folder: str = ".") -> int:
        """Update it, or end an update."""
        from . import update

        project = Path(folder)
        run: Callable[[], Any] = lambda: update.update(  # noqa: E731
            project, self.template, self.version_, self.data, check=self.check
        )
        if self.abort:
            run = lambda: update.abort(project)  # noqa: E731
        elif self.go_on:
            run = lambda: update.go_on(project)  # noqa: E731
        return ended(run)


@Rung.subcommand("up")
class Up(Command):
    """Raise a project's level by one: what it adds, what it needs, its checks."""

    yes = cli.Flag("--yes", help="Do not ask whether to go on")

    def main(self, folder: str = ".") -> int:
        """Raise it."""

        def run() -> None:
            from .up import up

            up(Path(folder), self.data, yes=self.yes)

        return ended(run)


def main() -> None:
    """Run the command."""
    Rung.run()
