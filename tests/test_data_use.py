"""Data of one's own: what people have is taken as it is, and what cannot be learned is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import tables
import yaml
from conftest import Copy
from tables import PEOPLES, Table, text

pytestmark = pytest.mark.slow
Fresh = Callable[..., Copy]


# What each holds that the others do not is read in process too: test_infer.py, test_cases.py.
LATER = {tables.churn, tables.sensors, tables.survey, tables.fraud, tables.wide}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make, id=str(make.__name__), marks=[pytest.mark.nightly] if make in LATER else []
        )
        for make in PEOPLES
    ],
)
def test_a_table_as_people_have_it_is_learned_at_once(
    fresh: Fresh, tmp_path: Path, make: Callable[[Path], Table]
) -> None:
    table = make(tmp_path)
    copy = fresh()
    output = " ".join(copy.ml(*table.use, exits=0).stdout.split())  # nobody has touched the example
    contract = yaml.safe_load((copy.path / "config/data.yaml").read_text())
    assert contract["task"] == table.task
    assert contract["source"] == f"data/raw/{table.file.name}"
    assert table.left_out <= set(contract.get("ignored", {}))
    assert all(name in output for name in table.left_out)
    if "--group" in table.options:
        assert contract["split"] == {"by": "group", "column": table.options[-1]}
    copy.ml("run", exits=0)
    assert copy.read("gate")["verdict"] == "passed"
    skill = copy.read("evaluate")["baselines"]["constant"]["skill"]
    assert skill["low"] > 0
    # The very file can be asked about, once it has no target.
    answers = copy.ml("predict", str(table.file), exits=0).stdout.splitlines()
    assert len(answers) == copy.read("ingest")["rows"]
    assert "prediction" in json.loads(answers[0])


def own_files(project: Path) -> dict[str, bytes]:
    """Return what a person's files hold, by name."""
    files = [path for path in project.rglob("*") if path.is_file()]
    names = {path.relative_to(project).as_posix(): path for path in files}
    ours = (".git/", "artifacts/", ".dvc/tmp")
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if not name.startswith(ours) and path.suffix != ".pyc"
    }


def named(sentence: str, files: Iterable[str]) -> set[str]:
    """Return the files that a sentence names."""
    return {name for name in files if name in sentence}


def test_after_data_of_ones_own_nothing_speaks_of_the_example(fresh: Fresh, tmp_path: Path) -> None:
    copy = fresh()
    table = tables.german(tmp_path, orders=300)
    (copy.path / "README.md").write_text((copy.path / "README.md").read_text() + "Ours.\n")
    before = own_files(copy.path)
    output = copy.ml(*table.use, exits=0).stdout
    after = own_files(copy.path)
    sentence = output.splitlines()[-1]
    written, _, removed = sentence.partition("; removed ")
    known = before.keys() | after.keys()
    assert named(written, known) == {name for name in after if after[name] != before.get(name)}
    assert named(removed, known) == before.keys() - after.keys() == {"data/raw/flights.csv"}
    [schema] = copy.path.glob("src/*/problem/schema.py")
    files = [copy.path / name for name in ("README.md", "pyproject.toml")]
    texts = "".join(path.read_text() for path in files)
    assert not re.search(r"(?i)\ba flight\b|\bflights\b|airport|New York", texts)
    assert "flight" not in schema.read_text()
    assert "Ours." in files[0].read_text()
    assert not (copy.path / "data/raw/flights.csv").exists()
    assert "Predicts Storno" in files[0].read_text()


def test_an_example_that_somebody_edited_is_left_and_named(fresh: Fresh, tmp_path: Path) -> None:
    copy = fresh()
    table = tables.german(tmp_path, orders=300)
    [schema] = copy.path.glob("src/*/problem/schema.py")
    flights = copy.path / "data/raw/flights.csv"
    for path in (schema, flights):
        path.write_text(path.read_text() + "\n")
    before = schema.read_bytes(), flights.read_bytes()
    printed = copy.ml(*table.use, exits=0).stdout
    assert (schema.read_bytes(), flights.read_bytes()) == before
    assert "schema.py was edited" in printed
    assert "flights.csv was edited" in printed


def test_a_file_that_git_would_not_take_is_told_of_at_once(fresh: Fresh, tmp_path: Path) -> None:
    table = tables.german(tmp_path)
    lines = table.file.read_text().splitlines()
    long = f";{'x' * 5000}"
    table.file.write_text("\n".join([f"{lines[0]};Notiz", *(line + long for line in lines[1:])]))
    printed = " ".join(fresh().ml(*table.use, exits=0).stdout.split())
    assert "keep files over 5 MB out of Git" in printed


def test_a_coin_is_refused_in_plain_words(fresh: Fresh, tmp_path: Path) -> None:
    copy = fresh()
    table = tables.nothing(tmp_path)
    assert "WARNING" in copy.ml(*table.use, exits=0).stdout
    stderr = copy.ml("run", exits=1).stderr
    assert "skill over a constant" in stderr
    assert "Traceback" not in stderr
    assert not (copy.path / "artifacts/model").exists()


# --- refusals --------------------------------------------------------------------------------


def csv(rows: int, **columns: Callable[[int], object]) -> str:
    r = random.Random(0)
    columns = {"x": lambda n: f"{r.random():.3f}", "colour": lambda n: r.choice("rgb")} | columns
    return text(columns, ([make(n) for make in columns.values()] for n in range(rows)))


REFUSED: dict[str, tuple[str, list[str], list[str]]] = {
    "absent": (csv(200, income=lambda n: n % 2), ["--target", "incme"], ["'incme'", "'income'"]),
    "of no such task": (
        csv(200, y=lambda n: "abc"[n % 3]),
        ["--target", "y", "--task", "guess"],
        ["--task guess", "regression"],
    ),
    "of one class": (csv(200, y=lambda n: "yes"), ["--target", "y"], ["'y'", "every row"]),
    "of too few rows": (csv(30, y=lambda n: n % 2), ["--target", "y"], ["30", "too few"]),
    "empty": (csv(200, y=lambda n: ""), ["--target", "y"], ["'y'", "too few"]),
    "another in every row": (csv(200, y=lambda n: f"name {n}"), ["--target", "y"], ["'y'"]),
    "a date": (csv(200, y=lambda n: f"2024-01-{n % 28 + 1:02}"), ["--target", "y"], ["datetime"]),
    "of a class with few rows": (
        csv(200, y=lambda n: "rare" if n == 7 else "ab"[n % 2]),
        ["--target", "y"],
        ["'rare'", "1 "],
    ),
    "text, for a regression": (
        csv(200, y=lambda n: "ab"[n % 2]),
        ["--target", "y", "--task", "regression"],
        ["'y'", "regression"],
    ),
    "asked with a time that is none": (
        csv(200, y=lambda n: n % 2),
        ["--target", "y", "--time", "colour"],
        ["'colour'"],
    ),
    "asked with a group that is absent": (
        csv(200, y=lambda n: n % 2),
        ["--target", "y", "--group", "team"],
        ["'team'"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_target_is_refused_in_one_sentence_when_it_is(
    fresh: Fresh, tmp_path: Path, case: str
) -> None:
    content, arguments, names = REFUSED[case]
    (tmp_path / "t.csv").write_text(content)
    copy = fresh()
    before = contents(copy)
    stderr = copy.ml("data", "use", str(tmp_path / "t.csv"), *arguments, exits=2).stderr
    assert stderr.startswith("ml: ")
    assert stderr.count("\n") == 1
    assert not [name for name in names if name not in stderr], stderr
    assert contents(copy) == before


# --- what it says ----------------------------------------------------------------------------


def test_a_feature_that_gives_the_target_away_is_told_of(fresh: Fresh, tmp_path: Path) -> None:
    content = csv(400, score=lambda n: n % 97, refund=lambda n: int(n % 97 > 60), y=lambda n: "")
    lines = content.splitlines()
    leaking = [lines[0], *(line + ("paid" if ",1," in line[-3:] else "open") for line in lines[1:])]
    (tmp_path / "t.csv").write_text("\n".join(leaking))
    output = fresh().ml("data", "use", str(tmp_path / "t.csv"), "--target", "y", exits=0).stdout
    [note] = [line for line in rows_of(output) if line.startswith("refund")]
    assert "WARNING" in note


def rows_of(output: str) -> Iterable[str]:
    """The rows of the printed table, each in one line."""
    rows: list[str] = []
    for line in output.splitlines():
        if line.startswith("  ") and rows:
            rows[-1] += " " + line.strip()
        else:
            rows.append(line)
    return rows


# --- nothing is overwritten ------------------------------------------------------------------


def contents(copy: Copy) -> dict[str, bytes]:
    folders = ("config", "data/raw")
    files = [p for f in folders for p in (copy.path / f).rglob("*") if p.is_file()]
    return {str(p.relative_to(copy.path)): p.read_bytes() for p in files}


@pytest.mark.parametrize("edited", ["data", "model", "gate"])
def test_an_edited_config_is_replaced_only_when_told_so(
    fresh: Fresh, tmp_path: Path, edited: str
) -> None:
    copy = fresh()
    table = tables.diabetes(tmp_path)
    path = copy.path / f"config/{edited}.yaml"
    path.write_text(path.read_text() + "\n# mine\n")
    before = contents(copy)
    stderr = copy.ml(*table.use, exits=2).stderr
    assert f"config/{edited}.yaml" in stderr
    assert "--replace" in stderr
    assert contents(copy) == before
    copy.ml(*table.use, "--replace", exits=0)
    assert contents(copy) != before


def test_other_bytes_under_the_same_name_are_replaced_only_when_told_so(
    fresh: Fresh, tmp_path: Path
) -> None:
    copy = fresh()
    table = tables.diabetes(tmp_path)
    shutil.copy(table.file, copy.path / "data/raw/diabetes.csv")
    copy.ml(*table.use, exits=0)  # the same file is in no one's way, nor is the example
    before = contents(copy)
    table.file.write_text(table.file.read_text().replace("n/a", ""))
    assert "data/raw/diabetes.csv" in copy.ml(*table.use, exits=2).stderr
    assert contents(copy) == before
    copy.ml(*table.use, "--replace", exits=0)
    assert contents(copy)["data/raw/diabetes.csv"] == table.file.read_bytes()
