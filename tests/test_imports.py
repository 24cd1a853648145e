"""`rung update` has a team's own code import from where modules of the template have moved to."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import yaml
from conftest import ROOT
from rung.imports import renames, rewritten, rewritten_lines
from rung.moves import Move

MOVED = (
    "__init__.py",
    "cli.py",
    "config.py",
    "pipeline/gate.py",
    "pipeline/train.py",
    "registry/__init__.py",
)
PACKAGES = {"settings.py": ("config/delivery.py", "rung_runtime.config")}  # of several modules
ELSEWHERE = {
    "registry/oci.py": "adapters/registry_oci/__init__.py",
    "tracking.py": "adapters/tracker_mlflow/__init__.py",
}
NAMES = {  # of a module that was divided, what went elsewhere
    "Drift": "rung_runtime.config.drift.Drift",
    "drift": "rung_runtime.config.drift.load_drift",
}
PLACES = dict(zip(MOVED, MOVED, strict=True)) | ELSEWHERE
KNOWN = renames(
    [
        *(Move(f"src/flights/{old}", f"src/rung_runtime/{new}") for old, new in PLACES.items()),
        *(
            Move(f"src/flights/{old}", f"src/rung_runtime/{new}", package)
            for old, (new, package) in PACKAGES.items()
        ),
        Move("src/flights/limits.py", "src/rung_runtime/config/delivery.py", names=NAMES),
    ],
    {"src/flights/__init__.py": "LOOP: bool = True\nclass Refused(Exception): ...\n"},
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from flights.config import load", "from rung_runtime.config import load"),
        ("from flights import config", "from rung_runtime import config"),
        ("from flights.settings import Delivery", "from rung_runtime.config import Delivery"),
        ("from flights.limits import Drift", "from rung_runtime.config.drift import Drift"),
        (
            "from ..limits import Delivery, Drift as D, drift  # ours",
            "from rung_runtime.config.delivery import Delivery\n"
            "from rung_runtime.config.drift import Drift as D, load_drift as drift  # ours",
        ),
        (
            'patch("flights.limits.Drift", flights.limits.Watch)',
            'patch("rung_runtime.config.drift.Drift", rung_runtime.config.delivery.Watch)',
        ),
        (
            "from flights import config as c  # a note",
            "from rung_runtime import config as c  # a note",
        ),
        ("from flights import LOOP, Refused", "from rung_runtime import LOOP, Refused"),
        (
            "from flights.pipeline import gate, train",
            "from rung_runtime.pipeline import gate, train",
        ),
        ("from flights.registry import opened", "from rung_runtime.registry import opened"),
        ("import flights.pipeline.gate as g", "import rung_runtime.pipeline.gate as g"),
        ("from ..pipeline.gate import decide", "from rung_runtime.pipeline.gate import decide"),
        ("from .. import config", "from rung_runtime import config"),
        ("from flights.pipeline.gate import *", "from rung_runtime.pipeline.gate import *"),
        (
            "from flights.pipeline.gate import (\n    decide,  # what\n    notes,\n)",
            "from rung_runtime.pipeline.gate import (\n    decide,  # what\n    notes,\n)",
        ),
        (
            "from flights import tracking",
            "from rung_runtime.adapters import tracker_mlflow as tracking",
        ),
        (
            "from flights.registry import oci as o, opened",
            "from rung_runtime.adapters import registry_oci as o\n"
            "from rung_runtime.registry import opened",
        ),
        (
            "from flights.registry.oci import Oci",
            "from rung_runtime.adapters.registry_oci import Oci",
        ),
        (
            'patch("flights.registry.oci.Oci")',
            'patch("rung_runtime.adapters.registry_oci.Oci")',
        ),
        (
            "from flights import config, problem",
            "from flights import problem\nfrom rung_runtime import config",
        ),
        (
            "from flights import (\n    config,  # typed\n    problem,\n)  # both",
            "# typed\nfrom flights import problem\nfrom rung_runtime import config  # both",
        ),
        (
            'patch.setattr("flights.pipeline.gate.decide", None)',
            'patch.setattr("rung_runtime.pipeline.gate.decide", None)',
        ),
        (
            "if x:\n    from flights.cli import main; main()",
            "if x:\n    from rung_runtime.cli import main; main()",
        ),
    ],
)
def test_what_moved_is_imported_from_its_new_place(before: str, after: str) -> None:
    assert rewritten(f"{before}\n", "src/flights/problem/model.py", KNOWN) == f"{after}\n"


@pytest.mark.parametrize(
    "text",
    [
        "from flights.problem.features import features",
        "from . import config",  # problem/config.py, the team's own
        "from .gate import decide",
        "from flights_of_others.config import load",
        "from my.flights.config import load",
        "import flights",
        "x = flights.configuration",
        "from flights.own import config",
        "this is not Python: from flights.config import load",
        "from ... import config",  # beyond the top
    ],
)
def test_what_did_not_move_is_left_to_the_letter(text: str) -> None:
    assert rewritten(text, "src/flights/problem/model.py", KNOWN) == text


def test_a_module_that_became_a_package_of_its_name_is_imported_as_before() -> None:
    file = Move("src/rung_runtime/http_client.py", "src/rung_runtime/http_client/client.py")
    known = renames([replace(file, module="rung_runtime.http_client")], {})
    text = "from rung_runtime import http_client, project\nfrom rung_runtime.http_client import *\n"
    assert rewritten(text, "tests/test_own.py", known) == text


def test_line_ends_and_characters_are_kept() -> None:
    text = "# naïve\r\nfrom flights.config import load\r\nx = 'µ'\r\n"
    after = text.replace("flights", "rung_runtime")
    assert rewritten(text, "tests/test_own.py", KNOWN) == after


def test_a_relative_import_outside_of_src_is_left() -> None:
    text = "from .config import load\n"
    assert rewritten(text, "tests/test_own.py", KNOWN) == text


def test_a_teams_line_in_a_file_that_moved_imports_from_where_its_old_place_did() -> None:
    """It was merged without a conflict, and meant another package one folder further down."""
    template = "from ..pipeline import gate\nfrom .data import app\n"
    ours = "from .pipeline import gate, train  # ours\n"
    ours += "<<<<<<< before updating\n    from . import config\n"
    merged = rewritten_lines(template + ours, template, "src/flights/cli.py", KNOWN)
    assert merged == template + (
        "from rung_runtime.pipeline import gate, train  # ours\n"
        "<<<<<<< before updating\n"
        "    from rung_runtime import config\n"
    )


def test_each_name_of_the_table_is_where_the_table_says() -> None:
    rows = yaml.safe_load((ROOT / "copier/moves.yml").read_text("utf-8"))
    places = [place for row in rows for place in row.get("names", {}).values()]
    assert len(places) >= 5
    for place in places:
        module, _, name = place.rpartition(".")
        assert hasattr(import_module(module), name), place
