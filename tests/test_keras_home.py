"""Keras finds no settings of a person, and leaves none: `tests/networks` runs it where it is."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
from rung_runtime.adapters import model_format_keras


def test_keras_has_no_folder_of_its_own_unless_a_person_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_HOME", "/elsewhere")
    importlib.reload(model_format_keras)
    assert os.environ["KERAS_HOME"] == "/elsewhere"
    monkeypatch.delenv("KERAS_HOME")
    importlib.reload(model_format_keras)
    home = Path(os.environ["KERAS_HOME"])
    monkeypatch.setenv("KERAS_HOME", str(home))  # so that the test takes it back
    assert not home.exists()
    with pytest.raises(OSError, match=r"\w"):  # Keras ignores that, and that it cannot write there
        home.mkdir(parents=True)
