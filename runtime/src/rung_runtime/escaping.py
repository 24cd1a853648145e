"""Escaping of text from data, for places where a character can be more than itself.

A column, a category or an error message may hold anything. Written as it is, it could move the
cursor of a terminal, start a line of its own in a log, mention a person in a comment, or hide the
text after it.
"""

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 120  # characters of one value
# Persian, Hindi and emoji are written with these; all other invisible characters are escaped.
JOINERS = "\u200c\u200d"
# Control, format (bidirectional ones among them), half of a surrogate pair, separators of lines.
INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
CUT_NOTICE = "\n\nThe rest is cut, as a comment has a limit: the job's log has it whole.\n"


def visible(text: object, keep: str = "") -> str:
    r"""Return a text in which each invisible character is written as an escape such as `\x1b`.

    Args:
        keep: Characters that stay as they are, such as a newline.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(char if char in keep else _escape(char) for char in plain)


def _escape(char: str) -> str:
    is_visible = unicodedata.category(char) not in INVISIBLE_CATEGORIES
    if is_visible or char in JOINERS:
        return char
    return char.encode("unicode_escape").decode("ascii")


def code(text: object, longest: int = LONGEST) -> str:
    """Return a value as an inline code span of Markdown, cut to a number of characters.

    Within a span nothing is a mention, a reference, a link, an image, an emoji or HTML, on GitHub
    and on GitLab. No other way of quoting has that property on both, as both look for mentions
    after backslashes and entities are gone.
    Span: https://spec.commonmark.org/0.31.2/#code-spans.
    """
    plain = visible(" ".join(str(text).split()))
    if len(plain) > longest:
        plain = f"{plain[: longest - 1]}…"
    if not plain:
        return "(empty)"
    # The fence is longer than any run of backticks within.
    longest_run = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence = "`".ljust(longest_run + 1, "`")
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{space}{plain}{space}{fence}"


def cell(text: object, longest: int = LONGEST) -> str:
    r"""Return a value as `code` does, for a cell of a table, where `\|` is a `|` even in a span.

    Table: https://github.github.com/gfm/#tables-extension-.
    """
    return code(text, longest).replace("|", "\\|")


def listed(values: Iterable[object], most: int = 50) -> str:
    """Return values in one cell: the first ones, and how many more there are."""
    cells = list(values)
    listing = ", ".join(cell(value) for value in cells[:most])
    if len(cells) <= most:
        return listing
    return f"{listing} and {len(cells) - most:,} more"


def fit(text: str, size: int, tail: str = "") -> str:
    """Return a text and a tail, cut to a number of bytes in UTF-8.

    Whole lines are cut off the end of the text, and a sentence says so.
    """
    if len(f"{text}{tail}".encode()) <= size:
        return f"{text}{tail}"
    room = max(0, size - len(f"{CUT_NOTICE}{tail}".encode()))
    if tail and room < size // 2:  # the tail is the long one
        return fit(text, size // 2) + fit(tail, size // 2)
    head = text.encode()[:room].decode("utf-8", "ignore")
    whole_lines, newline, _ = head.rpartition("\n")
    return f"{whole_lines if newline else head}{CUT_NOTICE}{tail}"
