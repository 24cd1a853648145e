"""The example that a new project trains on, and how it goes once there is data of one's own.

Only what nobody has edited is changed: an edited file is left, and named.
"""

import re
from pathlib import Path

from .. import problem, project
from ..artifacts import atomic_write, digest

FLIGHTS, README = Path("data/raw/flights.csv"), Path("README.md")
SCHEMA = Path("schema.py")  # of problem/
# As the template brings them.
UNTOUCHED = {
    FLIGHTS: "sha256:2ee6fee12bbb7a6943a42f97956010123fdf77e9fa65c7697f8eee8da2a06bee",
    SCHEMA: "sha256:8db7ca5e6bf33ef5869d749b3501b0bd6faccb2877be660c01a3f8fb175d2086",
}
RULE = "a flight goes somewhere else"
EXAMPLE_RULE = re.compile(r"    found = \{\}\n    if \{.*?    return found\n", re.DOTALL)
NO_RULE = """    # Such as: {"begins before it ends": pl.col("begin") <= pl.col("end")}
    return {}
"""
OF_EXAMPLE = re.compile(
    r"The project trains on an example, [^:]*, until you bring a file:"
    r"|The project trains on `data/raw/[^`]*`\. To train on another file:"
)
DESCRIPTION = re.compile(r"Predicts whether a flight will arrive more than 15 minutes late\.")
LARGEST = 5000 * 1024  # bytes of a file that the hooks let into Git


def is_schema() -> bool:
    """Whether `problem/schema.py` is still the example's."""
    schema = problem.folder() / SCHEMA
    return schema.is_file() and digest(schema) == UNTOUCHED[SCHEMA]


def leave(source: Path, target: str) -> list[str]:
    """Take the example out of a project that trains on `source` from now on.

    Args:
        source: The file in `data/raw/`.
        target: What is predicted, for the sentence that describes the project.

    Returns:
        What a person has to take out, because somebody has edited it.
    """
    if source == FLIGHTS:
        return []
    messages = []
    if FLIGHTS.is_file():
        if digest(FLIGHTS) == UNTOUCHED[FLIGHTS]:
            FLIGHTS.unlink()
        else:
            messages.append(f"{FLIGHTS} was edited, so it stays: delete it if you do not need it")
    schema = problem.folder() / SCHEMA
    if is_schema():
        with atomic_write(schema) as new:
            new.write_text(EXAMPLE_RULE.sub(NO_RULE, schema.read_text("utf-8")), "utf-8")
    elif schema.is_file() and RULE in schema.read_text("utf-8", "replace"):
        messages.append("problem/schema.py was edited, so the example's rule stays in it")
    plain = re.sub(r'["\\`<>{}\x00-\x1f]', " ", f"{target}, from {source.name}")
    sentences = {
        OF_EXAMPLE: f"The project trains on `{source}`. To train on another file:",
        DESCRIPTION: f"Predicts {plain}.",
    }
    for path in (README, Path("pyproject.toml")):
        before = after = path.read_text("utf-8") if path.is_file() else ""
        for example, sentence in sentences.items():
            after = example.sub(sentence.replace("\\", r"\\"), after)
        if after != before:
            with atomic_write(path) as new:
                new.write_text(after, "utf-8")
    return messages


def size(file: Path, source: Path) -> dict[str, str]:
    """A note on a file that is too large for Git, with the way out at the project's level."""
    size = file.stat().st_size
    if size <= LARGEST:
        return {}
    outside = f"write /{source} into .gitignore and bring the file to each machine"
    way = (
        f"uv run dvc add {source}, then commit {source}.dvc"
        if project.current().has_loop
        else outside
    )
    return {
        "(file)": f"WARNING: {size / 1e6:,.1f} MB, and the hooks keep files over 5 MB out of Git: "
        f"{way}; or read it in problem/data.py from where it is"
    }
