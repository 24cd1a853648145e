"""Change values in a YAML file, and nothing else: comments, order and style stay as they are."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from .. import UsageError
from .files import parse_yaml

INDENT = 2


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
            return _replace(text, name, child, _inline(_nested(rest, value)))
        node = child
    return text


def _entry(node: yaml.MappingNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((name, child) for name, child in node.value if name.value == key), None)


def _replace(text: str, name: yaml.Node, node: yaml.Node, new: str) -> str:
    start = node.start_mark.index
    end = node.end_mark.index
    if start == end:  # nothing is written, as in "params:"
        new = f" {new}"
    elif _is_block(node):
        end = start + len(text[start:end].rstrip())  # what follows a block belongs to what is next
        start = text.index(":", name.end_mark.index) + 1
        new = f" {new}"
    return text[:start] + new + text[end:]


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
