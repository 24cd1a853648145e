"""Text that came from data, shown where a character can be more than itself.

A column, a category or an error message may hold anything. Written as it is, it could move the
cursor of a terminal, start a line of its own in a log, mention a person in a comment, or hide what
comes after it.
"""

import unicodedata
from collections.abc import Iterable

LONGEST = 120  # characters of one value
# Joiners that Persian, Hindi and emoji are written with; all other invisible characters are shown.
_JOINERS = "\u200c\u200d"


def visible(text: object, keep: str = "") -> str:
    r"""Return a text in which each invisible character is written as an escape such as `\x1b`.

    Args:
        keep: Characters that stay as they are, such as a newline.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(char if char in keep else _shown(char) for char in plain)


def _shown(char: str) -> str:
    # Control, format (bidirectional ones among them), half of a pair, and what ends a line.
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not hidden or char in _JOINERS:
        return char
    return char.encode("unicode_escape").decode("ascii")


def code(text: object, longest: int = LONGEST) -> str:
    """Return a value as an inline code span of Markdown, cut to a number of characters.

    Within a span nothing is a mention, a reference, a link, an image, an emoji or HTML, neither
    for GitHub nor for GitLab: no other way of quoting has that property in both, as both look for
    mentions after backslashes and entities are gone.
    Span: https://spec.commonmark.org/0.31.2/#code-spans.
    """
    plain = visible(" ".join(str(text).split()))
    if len(plain) > longest:
        plain = f"{plain[: longest - 1]}…"
    if not plain:
        return "(empty)"
    run = longest_run = 0
    for char in plain:
        run = run + 1 if char == "`" else 0
        longest_run = max(longest_run, run)
    fence = "`".ljust(longest_run + 1, "`")
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{space}{plain}{space}{fence}"


def cell(text: object, longest: int = LONGEST) -> str:
    r"""Return a value as `code` does, for a cell of a table, where `\|` is a `|` even in a span.

    Table: https://github.github.com/gfm/#tables-extension-.
    """
    return code(text, longest).replace("|", "\\|")


def listed(values: Iterable[object], most: int = 50) -> str:
    """Return many values in one cell, the first ones if they are too many."""
    every = list(values)
    shown = ", ".join(cell(value) for value in every[:most])
    return f"{shown} and {len(every) - most:,} more" if len(every) > most else shown


def fit(text: str, size: int, tail: str = "") -> str:
    """Return a text and a tail that together take at most so many bytes in UTF-8.

    What is too much is cut off the end of the text, whole lines of it, and a sentence says so.
    """
    if len(f"{text}{tail}".encode()) <= size:
        return f"{text}{tail}"
    notice = "\n\nThe rest is cut, as a comment has a limit: the job's log has it whole.\n"
    room = max(0, size - len(f"{notice}{tail}".encode()))
    if tail and room < size // 2:  # the tail is the long one
        return fit(text, size // 2) + fit(tail, size // 2)
    head = text.encode()[:room].decode("utf-8", "ignore")
    whole, newline, _ = head.rpartition("\n")
    return f"{whole if newline else head}{notice}{tail}"
