"""The imports in a team's own code, when modules of the template move to another package."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from .moves import Move


@dataclass(frozen=True)
class Renames:
    """Dotted names of modules, and what each is called now."""

    modules: dict[str, str]
    attributes: dict[str, dict[str, str]]  # of a package's __init__: its names, and their package
    # Of a module that was divided: names that did not go with it, and their dotted names now.
    elsewhere: dict[str, dict[str, str]]

    @property
    def packages(self) -> set[str]:
        """The packages that lost a module."""
        return {name.partition(".")[0] for name in self.modules}


def renames(moves: Iterable[Move], old_texts: dict[str, str]) -> Renames:
    """Return the modules that moved.

    Args:
        moves: Files; only Python files under `src/` are modules.
        old_texts: The text of each `__init__.py` among them, by old path.
    """
    modules = dict[str, str]()
    attributes = dict[str, dict[str, str]]()
    elsewhere = dict[str, dict[str, str]]()
    for move in moves:
        before = _module(move.old)
        after = move.module or _module(move.new)
        if not before or not after:
            continue
        if before == after and not move.names:  # a file that became a folder of its name
            continue
        if move.old.endswith("__init__.py") and "." not in before:
            names = _defined(old_texts.get(move.old, ""))
            attributes[before] = dict.fromkeys(names, after)
        else:
            modules[before] = after
            if move.names:
                elsewhere[before] = move.names
    return Renames(modules, attributes, elsewhere)


def rewritten(text: str, path: str, known: Renames) -> str:
    """Return a Python file whose imports name the new places of modules that moved.

    Args:
        text: The file; one that does not parse is returned as it is.
        path: Its path in the project, for relative imports.
        known: What moved.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    lines = text.splitlines(keepends=True)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for node in sorted(nodes, key=lambda node: node.lineno, reverse=True):
        first = node.lineno - 1
        last = (node.end_lineno or node.lineno) - 1
        places = _places(node, path, known)
        if set(places) == {""}:
            continue
        before = "".join(lines[first : last + 1])
        indent = before[: node.col_offset]
        imported = {name.partition(" ")[0] for names in places.values() for name in names}
        has_renames = any(alias.name not in imported for alias in node.names)
        if len(places) == 1 and not has_renames:  # the rest stays as written, comments included
            module = re.compile(r"(from\s+)[\w.]+(\s+import)")
            after = module.sub(rf"\g<1>{next(iter(places))}\g<2>", before[len(indent) :], count=1)
            lines[first : last + 1] = [indent + after]
        elif not indent.strip():  # else it shares its line with another statement
            rest = before[_end(before, node) :]
            kept = "".join(f"{indent}{comment}\n" for comment in _comments(before, rest))
            new = _statements("." * node.level + (node.module or ""), places)
            text = "\n".join(indent + line for line in new)
            lines[first : last + 1] = [kept + text + rest]
    text = "".join(lines)
    places_now = known.modules | {
        f"{module}.{name}": place
        for module, names in known.elsewhere.items()
        for name, place in names.items()
    }
    for package in known.packages:
        names = sorted(n.partition(".")[2] for n in places_now if n.startswith(f"{package}."))
        if names:
            # `import package.module`, and names in strings, as monkeypatch.setattr takes them.
            moved = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
            pattern = re.compile(rf"(?<![\w.]){re.escape(package)}\.({moved})\b")
            text = pattern.sub(lambda match: places_now[match[0]], text)
    return text


def rewritten_lines(text: str, template: str, path: str, known: Renames) -> str:
    """Return a file of the template in which a team's relative imports name the new places.

    Only lines that the template does not have are the team's. The file may not parse: it can hold
    the markers of a conflict.

    Args:
        text: The file, merged, at its new place.
        template: The file as the template has it there.
        path: Its old place, which the team's relative imports start from.
        known: What moved.
    """
    of_template = set(template.splitlines())
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        code = line.lstrip(" \t")
        if code.startswith("from .") and line.rstrip("\r\n") not in of_template:
            indent = line.removesuffix(code)
            lines[index] = indent + rewritten(code, path, known)
    return "".join(lines)


def _end(statement: str, node: ast.ImportFrom) -> int:
    """Return the offset at which the code of a statement ends: a comment may follow."""
    before = statement.splitlines(keepends=True)[:-1]
    last = statement.splitlines(keepends=True)[-1].encode()
    return len("".join(before)) + len(last[: node.end_col_offset].decode())


def _comments(statement: str, rest: str) -> list[str]:
    """Return the comments inside a statement, without the one that follows it."""
    tokens = tokenize.generate_tokens(io.StringIO(statement.removesuffix(rest).lstrip()).readline)
    with suppress(tokenize.TokenError):
        return [token.string for token in tokens if token.type == tokenize.COMMENT]
    return []


def _places(node: ast.ImportFrom, path: str, known: Renames) -> dict[str, list[str]]:
    """Return the imported names by the package that they are in now; "" if they did not move."""
    base = _absolute(node, path)
    places: dict[str, list[str]] = {}
    for alias in node.names:
        module = f"{base}.{alias.name}"
        new_name = alias.name
        bound_name = alias.asname or alias.name
        if base is None:
            place = ""
        elif module in known.modules:
            place, _, new_name = known.modules[module].rpartition(".")
        elif alias.name in known.elsewhere.get(base, {}):
            place, _, new_name = known.elsewhere[base][alias.name].rpartition(".")
        elif base in known.modules:
            place = known.modules[base]
        else:
            place = known.attributes.get(base, {}).get(alias.name, "")  # "": it did not move
        text = new_name if new_name == bound_name else f"{new_name} as {bound_name}"
        places.setdefault(place, []).append(text)
    return places


def _statements(stays: str, places: dict[str, list[str]]) -> list[str]:
    """Return one import statement for each place, as lines; `stays` is the place of the rest."""
    lines = []
    for place, names in sorted(places.items()):
        line = f"from {place or stays} import {', '.join(names)}"
        if len(line) > 100:  # characters, the limit of the project's ruff
            lines += [f"from {place or stays} import (", *(f"    {n}," for n in names), ")"]
        else:
            lines.append(line)
    return lines


def _absolute(node: ast.ImportFrom, path: str) -> str | None:
    """Return the absolute dotted name of the module that an import names."""
    if not node.level:
        return node.module
    place = PurePosixPath(path).with_suffix("").parts
    if place[:1] != ("src",):
        return None
    parents = place[1 : len(place) - node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _module(path: str) -> str:
    """Return the dotted name of a file under `src/`; empty if it is not a module."""
    place = PurePosixPath(path)
    if place.suffix != ".py" or place.parts[:1] != ("src",):
        return ""
    parts = place.with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _defined(text: str) -> set[str]:
    """Return the names that a module itself defines."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names
