"""A document is on the disk before it takes the place of the last one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rung_runtime.adapters.target_local import supervisor
from rung_runtime.atomic_file import atomic_write
from rung_runtime.storage import Folder


def write_atomically(path: Path) -> None:
    with atomic_write(path) as new:
        new.write_text("new")


@pytest.mark.parametrize(
    "write",
    [
        write_atomically,
        lambda path: supervisor.write_json(path, "new"),
        lambda path: Folder(str(path.parent)).upload(path.name, [b"n", b"ew"], 3),
    ],
    ids=["a document", "what the local target knows", "what a step hands on"],
)
def test_the_last_one_is_replaced_by_what_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "document"
    path.write_text("old")
    on_disk: list[tuple[int, str]] = []

    def fsync(file: int) -> None:
        on_disk.append((os.fstat(file).st_ino, path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    write(path)
    assert on_disk == [(path.stat().st_ino, "old")]
    assert "new" in path.read_text()
