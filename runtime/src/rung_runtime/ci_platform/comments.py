"""The report as the one comment of a pull request: its text, and how it is recognized."""

from typing import Any

from ..escaping import fit

MARK = "<!-- ml report -->"  # by which the comment is found again


def render_comment(text: str, tail: str, max_bytes: int) -> str:
    """Return a comment that begins with MARK and has at most `max_bytes` bytes."""
    return fit(f"{MARK}\n{text}", max_bytes, tail)


def is_marked(comment: dict[str, Any]) -> bool:
    """Check whether a comment is a report, and not one that quotes it."""
    return str(comment.get("body") or "").startswith(MARK)


def author_field(comment: dict[str, Any], author: str, field: str) -> Any:
    """Return a field of the author of a comment; None if the account is gone.

    Args:
        comment: The comment, as the API returns it.
        author: What the API calls the author.
        field: The field of the author.
    """
    account = comment.get(author)
    return account.get(field) if isinstance(account, dict) else None
