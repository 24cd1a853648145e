"""A declarative pipeline of Jenkins, read as far as exported files use its language.

What is not understood is an error, such as a step that hides how a command ended. The stand-in of
`tests/engines/jenkins.groovy`, which Groovy itself parses, is asked whether this reads it rightly:
see `tests/test_orchestrators.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"(?P<text>'''(?:\\.|[^\\])*?'''|'(?:\\.|[^'\\\n])*')"
    r"|(?P<end>\n)|(?P<comment>//[^\n]*)|(?P<space>[ \t]+)"
    r"|(?P<word>[\w.]+)|(?P<mark>==|[(){}:,?=])",
    re.DOTALL,
)


@dataclass(frozen=True)
class Directive:
    """A line of a pipeline: its name, what stands behind it, and the block that follows.

    Attributes:
        name: Such as `stage`.
        arguments: The tokens behind it, texts by their value, without parentheses and commas.
        body: The block; None if there is none.
    """

    name: str
    arguments: tuple[str, ...]
    body: tuple[Directive, ...] | None = None

    @property
    def block(self) -> tuple[Directive, ...]:
        """Return the block.

        Raises:
            ValueError: There is none.
        """
        if self.body is None:
            raise ValueError(f"{self.name} has no block")
        return self.body


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline, with what it would run.

    Attributes:
        name: Of the stage; those within are part of it.
        branch: Whose builds run it; empty for those of any.
        is_for_requests: Whether only builds of requests run it.
        is_approved: Whether a person approves before.
        environment: Variables of its commands.
        lines: Of shell, in the order in which they run.
        afterwards: Those that run however these ended.
    """

    name: str
    branch: str
    is_for_requests: bool
    is_approved: bool
    environment: dict[str, str]
    lines: tuple[str, ...]
    afterwards: tuple[str, ...]


def parse(text: str) -> tuple[Directive, ...]:
    """Return the directives of a file.

    Raises:
        ValueError: Something in it is not understood.
    """
    return _block(_tokens(text), is_inner=False)


def stages(directives: tuple[Directive, ...]) -> list[Stage]:
    """Return the stages of a pipeline.

    Raises:
        ValueError: Something is not understood.
    """
    (pipeline,) = directives
    known = {"agent", "options", "parameters", "triggers", "stages", "post"}
    parts = _parts(pipeline, known)
    for option in parts["options"].block:
        if option.name not in ("disableConcurrentBuilds", "buildDiscarder"):
            raise ValueError(f"the option {option.name} is not understood")
    whole = [_stage(stage) for stage in parts["stages"].block]
    if len({stage.name for stage in whole}) < len(whole):
        raise ValueError("two stages have one name")
    return whole


def _parts(directive: Directive, known: set[str]) -> dict[str, Directive]:
    """Return what a block has, by name."""
    parts = {part.name: part for part in directive.block}
    if unknown := parts.keys() - known:
        raise ValueError(f"{directive.name} has {sorted(unknown)[0]}, which is not understood")
    if len(parts) < len(directive.block):
        raise ValueError(f"{directive.name} has something twice")
    return parts


def _stage(directive: Directive) -> Stage:
    (name,) = directive.arguments
    known = {"when", "input", "options", "environment", "stages", "steps", "post"}
    parts = _parts(directive, known)
    if "options" in parts and [part.name for part in parts["options"].block] != ["timeout"]:
        raise ValueError(f"{name} has options that are not understood")
    branch = ""
    is_for_requests = is_before_input = False
    for condition in parts["when"].block if "when" in parts else ():
        match condition:
            case Directive("branch", (branch,), None):
                pass
            case Directive("changeRequest", (), None):
                is_for_requests = True
            case Directive("beforeInput", ("true",), None):
                is_before_input = True
            case _:
                raise ValueError(f"{name} runs when {condition.name}, which is not understood")
    if "input" in parts and not is_before_input:
        raise ValueError(f"{name} asks a person about every branch")
    if "steps" in parts:
        lines = _commands(name, parts["steps"])
    else:
        inner = [_stage(stage) for stage in parts["stages"].block]
        for stage in inner:
            if stage != Stage(stage.name, "", False, False, {}, stage.lines, ()):
                raise ValueError(f"{stage.name} has more than steps, which is not understood")
        lines = [line for stage in inner for line in stage.lines]
    afterwards: list[str] = []
    for condition in parts["post"].block if "post" in parts else ():
        if condition.name != "always":
            raise ValueError(f"{name} has post {condition.name}, which is not understood")
        afterwards += _commands(name, condition)
    environment = {}
    for variable in parts["environment"].block if "environment" in parts else ():
        (mark, value) = variable.arguments
        environment[variable.name] = value if mark == "=" else ""
    return Stage(
        name=name,
        branch=branch,
        is_for_requests=is_for_requests,
        is_approved="input" in parts,
        environment=environment,
        lines=tuple(lines),
        afterwards=tuple(afterwards),
    )


def _commands(name: str, directive: Directive) -> list[str]:
    """Return the lines of shell in a block of steps."""
    lines: list[str] = []
    for step in directive.block:
        if step.name != "sh" or len(step.arguments) != 1 or step.body is not None:
            raise ValueError(f"{name} has the step {step.name}, which is not understood")
        lines += [line.strip() for line in step.arguments[0].splitlines() if line.strip()]
    return lines


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{text[position : position + 20]!r} is not understood")
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "text":
            quotes = 3 if match[0].startswith("'''") else 1
            yield kind, re.sub(r"\\(.)", r"\1", match[0][quotes:-quotes], flags=re.DOTALL)
        elif kind not in ("comment", "space"):
            yield kind, match[0]


def _block(tokens: Iterator[tuple[str, str]], is_inner: bool = True) -> tuple[Directive, ...]:
    """Return the directives up to the end of a block, or of the file."""
    directives: list[Directive] = []
    name = ""
    arguments: list[str] = []
    for kind, value in tokens:
        if (kind, value) == ("mark", "}"):
            if name or not is_inner:
                raise ValueError(f"a }} is behind {name or 'all blocks'}")
            return tuple(directives)
        if (kind, value) == ("mark", "{"):
            directives.append(Directive(name, tuple(arguments), _block(tokens)))
            name = ""
            arguments = []
        elif kind == "end":
            if name:
                directives.append(Directive(name, tuple(arguments)))
            name = ""
            arguments = []
        elif not name:
            if kind != "word":
                raise ValueError(f"{value} is where a name should be")
            name = value
        elif value not in ("(", ")", ",") or kind == "text":
            arguments.append(value)
    if name or is_inner:
        raise ValueError("the file ends within a block")
    return tuple(directives)
