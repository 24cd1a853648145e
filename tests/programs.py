"""The programs that tests start, read from their sources.

A command is what goes to subprocess, psutil, shutil.which or the marker `needs`. Its first word is
followed through variables and through the parameters of helpers such as conftest.run. Words that
are computed, such as the path of an interpreter, are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

MODULES = {"subprocess", "psutil"}
# Their functions take a command as one list; the others take programs by name.
LISTS = {"run", "call", "check_call", "check_output", "Popen"}
NAMES = {"which", "need", "needs"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Scope:
    """A function or a whole file: what its names stand for, and what it calls."""

    file: str
    function: Function | None = None
    outer: Scope | None = None
    values: dict[str, list[ast.expr]] = field(default_factory=dict)
    calls: list[ast.Call] = field(default_factory=list)

    @property
    def parameters(self) -> list[str]:
        """The names of the positional parameters, the object itself left out."""
        if self.function is None:
            return []
        arguments = self.function.args
        names = [argument.arg for argument in arguments.args if argument.arg != "self"]
        return names + ([arguments.vararg.arg] if arguments.vararg else [])

    def bind(self, target: ast.expr, value: ast.expr) -> None:
        """Note what a name, or each name of a tuple, stands for."""
        if isinstance(target, ast.Name):
            self.values.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for name, part in zip(target.elts, value.elts, strict=False):
                self.bind(name, part)

    def named(self, name: str) -> list[ast.expr]:
        """Return what a name may stand for here."""
        if name in self.values or name in self.parameters or self.outer is None:
            return self.values.get(name, [])
        return self.outer.named(name)


def scopes(path: Path, file: str) -> Iterator[Scope]:
    """Read a file and yield its scopes."""

    def read(node: ast.AST, scope: Scope) -> Iterator[Scope]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Call():
                    scope.calls.append(child)
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        scope.bind(target, value)
                case ast.For(target=target, iter=ast.List(elts=rows) | ast.Tuple(elts=rows)):
                    for row in rows:
                        scope.bind(target, row)
            if isinstance(child, Function):
                inner = Scope(file, child, scope)
                yield from read(child, inner)
                yield inner
            else:
                yield from read(child, scope)

    module = Scope(file)
    yield from read(ast.parse(path.read_text("utf-8")), module)
    yield module


def first_words(node: ast.expr, scope: Scope, depth: int = 0) -> Iterator[str]:
    """Yield what a command may begin with: programs, and parameters as `$name`."""

    def follow(part: ast.expr) -> Iterator[str]:
        return first_words(part, scope, depth + 1)

    if depth > 8:  # a name may stand for itself
        return
    match node:
        case ast.Constant(value=str(text)) if text:
            yield text.split()[0]
        case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]):
            yield from follow(first)
        case ast.Starred(value=part) | ast.Subscript(value=part):
            yield from follow(part)
        case ast.BinOp(left=part, op=ast.Add()) | ast.BinOp(op=ast.Div(), right=part):
            yield from follow(part)
        case ast.BoolOp(values=parts):
            for part in parts:
                yield from follow(part)
        case ast.Call(func=ast.Name(id="str" | "list"), args=[part]):
            yield from follow(part)
        case ast.Name(id=name):
            if name in scope.parameters:
                yield f"${name}"
            for part in scope.named(name):
                yield from follow(part)


def started(folder: Path) -> dict[str, set[str]]:
    """Return each program that a Python file below a folder starts, with the files that do."""
    known = [
        scope
        for path in sorted(folder.rglob("*.py"))
        for scope in scopes(path, path.relative_to(folder).as_posix())
    ]
    functions = {(scope.file, scope.function.name) for scope in known if scope.function}
    # Functions that start what they are called with, and which parameter that is. One may be known
    # as such only through another, so look again until there is no new one.
    helpers: dict[tuple[str, str], int] = {}
    while True:
        count = len(helpers)
        programs: dict[str, set[str]] = {}
        for scope in known:
            for call in scope.calls:
                for argument in commands(call, scope.file, functions, helpers):
                    for word in first_words(argument, scope):
                        if not word.startswith("$"):
                            programs.setdefault(PurePosixPath(word).name, set()).add(scope.file)
                        elif scope.function:
                            index = scope.parameters.index(word[1:])
                            helpers.setdefault((scope.file, scope.function.name), index)
        if len(helpers) == count:
            return programs


def commands(
    call: ast.Call,
    file: str,
    functions: set[tuple[str, str]],
    helpers: dict[tuple[str, str], int],
) -> list[ast.expr]:
    """Return the arguments of a call that begin with a program."""
    match call.func:
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            pass
        case ast.Attribute(attr=name) | ast.Name(id=name):
            owner = ""
        case _:
            return []
    if owner in MODULES and name in LISTS:
        return call.args[:1]
    if owner in {*MODULES, "asyncio"}:
        return []
    if (file, name) in functions:  # the file's own, not another's of the same name
        index = helpers.get((file, name))
    elif name in NAMES:
        return call.args
    else:
        index = next((index for (_, other), index in helpers.items() if other == name), None)
    return [] if index is None else call.args[index : index + 1]
