"""Artifacts of a run as folders: what the stand-ins of upload- and download-artifact do."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import shutil
import sys
from pathlib import Path

KEPT = Path(os.environ["STANDIN_RUN"], "artifacts")
ENV = os.environ


def upload() -> str:
    """Keep files under a name; their common folder is the artifact's root."""
    lines = [line.strip() for line in ENV["PATHS"].splitlines() if line.strip()]
    kept = set[Path]()
    roots = []
    for line in lines:
        if line.startswith("!"):
            kept -= set(files(line[1:].strip()))
            continue
        matches = list(files(line))
        kept |= set(matches)
        if matches:
            roots.append(root(line))
    if not kept:
        message = f"No files were found with the provided path: {', '.join(lines)}."
        if ENV["NONE"] == "error":
            sys.exit(f"::error::{message}")
        print(f"::warning::{message} No artifacts will be uploaded.")
        return ""
    folder = KEPT / ENV["NAME"]
    if folder.exists() and ENV["OVERWRITE"] != "true":
        sys.exit(
            f"::error::(409) Conflict: an artifact with this name already exists: {folder.name}"
        )
    shutil.rmtree(folder, ignore_errors=True)
    base = Path(os.path.commonpath(roots))
    base = base.parent if base.is_file() else base
    for path in kept:
        to = folder / path.relative_to(base)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)  # without its mode: a ZIP of an artifact keeps none
    print(f"Kept {len(kept)} files as {folder.name}.")
    names = "\n".join(sorted(str(path) for path in kept))
    return f"digest={hashlib.sha256(names.encode()).hexdigest()}"


def files(pattern: str) -> list[Path]:
    """The files of a path or a pattern; those that begin with a dot only where that is asked."""
    every = ENV["HIDDEN_FILES"] == "true"
    matches = []
    for name in glob.glob(str(Path.cwd() / pattern), recursive=True, include_hidden=every):  # noqa: PTH207
        path = Path(name)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            inner = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
            if file.is_file() and (every or not any(part[0] == "." for part in inner.parts)):
                matches.append(file)
    return matches


def root(pattern: str) -> Path:
    """The path up to the first wildcard."""
    plain: list[str] = []
    for part in (Path.cwd() / pattern).parts:
        if set(part) & set("*?["):
            break
        plain.append(part)
    return Path(*plain)


def download() -> str:
    """Bring one artifact by name, or all, each into a folder of its own."""
    to = Path.cwd() / ENV["TO"]
    name = ENV["NAME"]
    pattern = ENV["PATTERN"] or "*"
    if name and not (KEPT / name).is_dir():
        sys.exit(f"::error::Unable to download artifact(s): Artifact not found for name: {name}")
    wanted = (
        [KEPT / name] if name else [p for p in KEPT.iterdir() if fnmatch.fnmatch(p.name, pattern)]
    )
    for folder in wanted:
        flat = bool(name) or ENV["MERGE"] == "true"
        shutil.copytree(folder, to if flat else to / folder.name, dirs_exist_ok=True)
    to.mkdir(parents=True, exist_ok=True)
    print(f"Brought {', '.join(folder.name for folder in wanted) or 'nothing'}.")
    return f"path={to}"


if __name__ == "__main__":
    result = {"upload": upload, "download": download}[sys.argv[1]]()
    with Path(ENV["GITHUB_OUTPUT"]).open("a") as output:
        output.write(f"{result}\n")
