"""Change values in a YAML file, and nothing else: comments, order and style stay as they are."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from .. import UsageError
from .files import parse_yaml

HEADER_COMMENT = re.compile(r"[|>][-+0-9]*[ \t]+(#.*)")  # of a text in lines of its own


def set_values(text: str, values: Mapping[Sequence[str], Any], source: str) -> str:
    """Return the text of a YAML file with other values.

    Args:
        text: The file's text; its top is a mapping, or nothing.
        values: The new values, each by the keys that lead to it.
        source: The file's name, for the message.

    Raises:
        UsageError: The file is not YAML, or is written in a way that cannot be edited, such as
            with an alias for a mapping in which something is to change.
    """
    expected = parse_yaml(text, source) or {}
    for keys, value in values.items():
        text = _set(text, list(keys), value)
        _assign(expected, list(keys), value)
    try:
        is_edited = parse_yaml(text, source) == expected
    except UsageError:
        is_edited = False
    if not is_edited:
        lines = ", ".join(f"{'.'.join(keys)}: {_inline(value)}" for keys, value in values.items())
        raise UsageError(f"{source} cannot be edited as it is written: set {lines} by hand")
    return text


def _assign(content: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(content.get(key), dict):
            content[key] = {}
        content = content[key]
    content[keys[-1]] = value


def _set(text: str, keys: list[str], value: Any) -> str:
    """Replace a value, or insert its key where its mapping ends."""
    node = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        return _append(text, keys, value)
    for position, key in enumerate(keys):
        entry = _entry(node, key)
        if entry is None:
            return _insert(text, node, keys[position:], value)
        name, child = entry
        rest = keys[position + 1 :]
        if not rest or not isinstance(child, yaml.MappingNode):
            start, end = _span(text, name, child)
            comments = list(_comments(text, start, end, child))
            if comments and not rest and (items := _with_items(text, child, value)):
                return items
            if comments:
                return _replace_with_comments(text, name, child, rest, value, comments)
            return _replace(text, name, child, _inline(_nested(rest, value)))
        node = child
    return text


def _entry(node: yaml.MappingNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((name, child) for name, child in node.value if name.value == key), None)


def _replace(text: str, name: yaml.Node, node: yaml.Node, new: str) -> str:
    start, end = _span(text, name, node)
    is_empty = node.start_mark.index == node.end_mark.index  # as in "params:"
    space = " " if is_empty or _is_block(node) else ""
    return text[:start] + space + new + text[end:]


def _span(text: str, name: yaml.Node, node: yaml.Node) -> tuple[int, int]:
    """Return where a value begins and ends; one in lines of its own begins after the colon."""
    start = node.start_mark.index
    end = node.end_mark.index
    if start != end and _is_block(node):
        end = start + len(text[start:end].rstrip())  # what follows a block belongs to what is next
        start = text.index(":", name.end_mark.index) + 1
    return start, end


def _comments(text: str, start: int, end: int, node: yaml.Node) -> Iterator[str]:
    """Yield the comments within a value."""
    masked = list(text[start:end])
    for scalar in _scalars(node):
        content = text[scalar.start_mark.index : scalar.end_mark.index]
        if scalar.style in ("|", ">") and (header := HEADER_COMMENT.match(content)):
            yield header[1].rstrip()
        for index in range(scalar.start_mark.index - start, scalar.end_mark.index - start):
            if index < len(masked) and masked[index] == "#":
                masked[index] = "x"  # not the begin of a comment
    for line, visible in zip(text[start:end].split("\n"), "".join(masked).split("\n"), strict=True):
        if "#" in visible:
            yield line[visible.index("#") :].rstrip()


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield all texts, numbers and the like within a value."""
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(key)
            yield from _scalars(value)


def _with_items(text: str, node: yaml.Node, value: Any) -> str | None:
    """Return the text with other items of a list, each in its line; None if that cannot be."""
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not isinstance(value, list):
        return None
    if len(value) < len(node.value) or not all(
        isinstance(item, yaml.ScalarNode) and item.style not in ("|", ">") for item in node.value
    ):
        return None
    last = node.value[-1]
    line_end = text.find("\n", last.end_mark.index)
    if line_end < 0:
        line_end = len(text)
    indent = " " * node.start_mark.column
    added = "".join(f"\n{indent}- {_inline(item)}" for item in value[len(node.value) :])
    text = text[:line_end] + added + text[line_end:]
    for item, new in reversed(list(zip(node.value, value, strict=False))):
        start = item.start_mark.index
        end = item.end_mark.index
        old = yaml.safe_load(text[start:end])
        if old != new or type(old) is not type(new):
            text = text[:start] + _inline(new) + text[end:]
    return text


def _replace_with_comments(
    text: str, name: yaml.Node, node: yaml.Node, rest: list[str], value: Any, comments: list[str]
) -> str:
    """Replace a value; the comments within it go above its key, or to the end of its line."""
    line_start = text.rfind("\n", 0, name.start_mark.index) + 1
    before = text[line_start : name.start_mark.index]
    text = _replace(text, name, node, _inline(_nested(rest, value)))
    if not before.strip():
        return (
            text[:line_start]
            + "".join(f"{before}{line}\n" for line in comments)
            + text[line_start:]
        )
    line_end = text.find("\n", name.end_mark.index)
    if line_end < 0:
        line_end = len(text)
    return f"{text[:line_end]} {' '.join(comments)}{text[line_end:]}"


def _is_block(node: yaml.Node) -> bool:
    """Check whether a value has lines of its own, of which the last line break is a part."""
    if isinstance(node, yaml.CollectionNode):
        return not node.flow_style
    return isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")


def _insert(text: str, node: yaml.MappingNode, keys: list[str], value: Any) -> str:
    """Insert a key after the last one of its mapping."""
    if node.flow_style:
        end = node.end_mark.index - 1  # of the brace
        entry = _inline(_nested(keys, value))[1:-1]
        comma = ", " if node.value else ""
        head = text[:end].rstrip().removesuffix(",")
        return head + comma + entry + text[end:]
    _, last = node.value[-1]
    indent = node.value[0][0].start_mark.column
    end = last.start_mark.index + len(text[last.start_mark.index : last.end_mark.index].rstrip())
    line_end = text.find("\n", end)
    if line_end < 0:
        line_end = len(text)
    entry = _block(keys, value, indent)
    return f"{text[:line_end]}\n{entry}{text[line_end:]}"


def _append(text: str, keys: list[str], value: Any) -> str:
    """Write the first key of a file that has none, below its comments."""
    lines = [line for line in text.splitlines() if line.strip() not in ("{}", "null", "~")]
    return "\n".join([*lines, _block(keys, value, 0)]) + "\n"


def _block(keys: list[str], value: Any, indent: int) -> str:
    first, *rest = keys
    return f"{' ' * indent}{_inline(first)}: {_inline(_nested(rest, value))}"


def _nested(keys: list[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _inline(value: Any) -> str:
    """Return a value as YAML in a line."""
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value)
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...")
