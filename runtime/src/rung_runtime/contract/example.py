"""The example that a new project trains on, and how it goes once a user brings their own data.

Only what nobody has edited is changed: an edited file stays, and is named.
"""

import re
from pathlib import Path
from typing import NamedTuple

from .. import problem, project
from ..artifacts import digest
from ..atomic_file import atomic_write

FLIGHTS = Path("data/raw/flights.csv")
FLIGHTS_DIGEST = "sha256:2ee6fee12bbb7a6943a42f97956010123fdf77e9fa65c7697f8eee8da2a06bee"
README = Path("README.md")
PYPROJECT = Path("pyproject.toml")
SCHEMA = Path("schema.py")  # of problem/
# As the template brings it, and as it did up to 0.2.
SCHEMA_DIGESTS = {
    "sha256:ee41ea96d75e6ef412f4ad985f76f4ff85defaed3b1becb0b7955274d9bd39df",
    "sha256:8db7ca5e6bf33ef5869d749b3501b0bd6faccb2877be660c01a3f8fb175d2086",
}
RULE = "a flight goes somewhere else"
EXAMPLE_RULE = re.compile(
    r"    (?P<name>found|by_name)[^\n]* = \{\}\n    if \{.*?    return (?P=name)\n", re.DOTALL
)
NO_RULE = """    # Such as: {"begins before it ends": pl.col("begin") <= pl.col("end")}
    return {}
"""
SOURCE_SENTENCE = re.compile(
    r"The project trains on an example, [^:]*, until you bring a file:"
    r"|The project trains on `data/raw/[^`]*`\. To train on another file:"
)
DESCRIPTION = re.compile(r"Predicts whether a flight will arrive more than 15 minutes late\.")
UNSAFE_CHARACTERS = re.compile(r'["\\`<>{}\x00-\x1f]')  # in TOML, Markdown or Jinja
MAX_GIT_BYTES = 5000 * 1024  # of a file that the hooks let into Git


class Removal(NamedTuple):
    """What became of the example.

    Attributes:
        written: Files that were changed.
        removed: Files that are gone.
        messages: What a person has to remove, because somebody has edited it.
    """

    written: list[Path]
    removed: list[Path]
    messages: list[str]


def has_schema() -> bool:
    """Check whether `problem/schema.py` is still the example's."""
    schema = problem.folder() / SCHEMA
    return schema.is_file() and digest(schema) in SCHEMA_DIGESTS


def remove(source: Path, target: str) -> Removal:
    """Remove the example from a project that trains on `source` from now on.

    Args:
        source: The file in `data/raw/`.
        target: What is predicted, for the sentence that describes the project.
    """
    removal = Removal([], [], [])
    if source == FLIGHTS:
        return removal
    if FLIGHTS.is_file():
        if digest(FLIGHTS) == FLIGHTS_DIGEST:
            FLIGHTS.unlink()
            removal.removed.append(FLIGHTS)
        else:
            removal.messages.append(
                f"{FLIGHTS} was edited, so it stays: delete it if you do not need it"
            )
    schema = problem.folder() / SCHEMA
    if has_schema():
        removal.written.append(schema)
        with atomic_write(schema) as new:
            new.write_text(EXAMPLE_RULE.sub(NO_RULE, schema.read_text("utf-8")), "utf-8")
    elif schema.is_file() and RULE in schema.read_text("utf-8", "replace"):
        removal.messages.append("problem/schema.py was edited, so the example's rule stays in it")
    for path in (README, PYPROJECT):
        if path.is_file() and _describe_project(path, source, target):
            removal.written.append(path)
    return removal


def _describe_project(path: Path, source: Path, target: str) -> bool:
    """Replace the example's sentences in a file with those of another source and target.

    Returns:
        Whether there was one.
    """
    plain = UNSAFE_CHARACTERS.sub(" ", f"{target}, from {source.name}")
    sentences = {
        SOURCE_SENTENCE: f"The project trains on `{source}`. To train on another file:",
        DESCRIPTION: f"Predicts {plain}.",
    }
    old = path.read_text("utf-8")
    text = old
    for pattern, sentence in sentences.items():
        text = pattern.sub(sentence.replace("\\", r"\\"), text)
    if text != old:
        with atomic_write(path) as new:
            new.write_text(text, "utf-8")
    return text != old


def warn_of_size(file: Path, source: Path) -> dict[str, str]:
    """Return a note on a file that is too large for Git, with what to do at the project's level."""
    size = file.stat().st_size
    if size <= MAX_GIT_BYTES:
        return {}
    if project.current().has_loop:
        remedy = f"uv run dvc add {source}, then commit {source}.dvc"
    else:
        remedy = f"write /{source} into .gitignore and bring the file to each machine"
    return {
        "(file)": f"WARNING: {size / 1e6:,.1f} MB, and the hooks keep files over 5 MB out of Git: "
        f"{remedy}; or read it in problem/data.py from where it is"
    }
